"""Whether stored payloads are JSON, so that they may stand in an answer as they are.

They were JSON when they came in, and a file whose digest is right holds what was written. That is
no proof, since whoever may write to the artifacts may write anything with its digest, and one
payload that is none would take every other hit of the answer with it. So each is looked at, without
keeping what is in it: parsed where all of them are small, and else by SQLite, which reads JSON
by the letter of RFC 8259, makes no Python object of it, and lets other threads run meanwhile.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from pydantic_core import from_json

_SMALL_BYTES: Final = 64 * 1024
"""Of all payloads together: to parse so many takes a few milliseconds and megabytes at worst."""
_AT_ONCE: Final = 100
"""Payloads in one statement. For each of its own a thread would stand in line for Python again."""
_AT_ONCE_BYTES: Final = 1024 * 1024


def first_invalid(payloads: Sequence[bytes]) -> int | None:
    """The index of the first payload that is not JSON in UTF-8; ``None``: all of them are."""
    if sum(map(len, payloads)) <= _SMALL_BYTES:
        number = _first_unparsed(payloads)
        if number is None:
            return None
    return _first_refused(payloads)


def _first_unparsed(payloads: Sequence[bytes]) -> int | None:
    for number, payload in enumerate(payloads):
        try:
            from_json(payload, allow_inf_nan=False)
        except ValueError:  # or it holds half a surrogate pair, which JSON allows
            return number
    return None


def _first_refused(payloads: Sequence[bytes]) -> int | None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        for first, some in _portions(payloads):
            try:
                texts = [payload.decode() for payload in some]
            except UnicodeDecodeError:
                return first + next(n for n, each in enumerate(some) if not _is_utf8(each))
            columns = ",".join(["json_valid(?)"] * len(texts))
            [found] = database.execute(f"SELECT {columns}", texts)
            for number, (is_valid, payload) in enumerate(zip(found, some, strict=True)):
                if not is_valid or b"\0" in payload:  # SQLite reads a text up to there
                    return first + number
    return None


def _is_utf8(payload: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        payload.decode()
        return True
    return False


def _portions(payloads: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Some at a time, each portion with the index of its first."""
    first, some, size = 0, list[bytes](), 0
    for number, payload in enumerate(payloads):
        if some and (len(some) == _AT_ONCE or size + len(payload) > _AT_ONCE_BYTES):
            yield first, some
            first, some, size = number, [], 0
        some.append(payload)
        size += len(payload)
    if some:
        yield first, some
