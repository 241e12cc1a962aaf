"""What somebody may write in place of what belongs there: values, documents and bytes.

Everything is drawn from one `random.Random`, so that a seed gives the same again.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

Path = tuple[str | int, ...]
"""Where something stands in a document: keys and positions."""

_HUGE: Final = 100_000
VALUES: Final[Sequence[Any]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "1",
    "true",
    "null",
    "tracks",
    "index",
    "é",
    "e\u0301",
    "\u202etxet",
    "\x00",
    "a\x00b",
    "\x1b]0;owned\x07",
    "\r\n\r\n",
    "\ud800",
    "\U0001f3b5",
    "../../../../etc/passwd",
    "/dev/zero",
    "C:\\con",
    "{indexrelay}:events",
    "'; DROP TABLE indexrelay_entries; --",
    "%s%n{0.__class__}${7*7}",
    "!!python/object/apply:os.system ['id']",
    "00-0000-00",
    "2026-13-45T99:99:99Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "f" * 64,
    "F" * 64,
    "x" * 201,
    "x" * _HUGE,
    "ü" * 1000,
    [],
    [None],
    [[]],
    ["x"] * 2000,
    {},
    {"": ""},
    {"index": "f" * 64},
    {"index": {"version": "f" * 64, "outcome": "failed", "error": "x" * 5000}},
    {f"k{number}": number for number in range(2000)},
)


def paths_of(document: Any, prefix: Path = ()) -> Iterator[Path]:
    """Every place in a document: fields, and what is in them."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*prefix, key)
            yield from paths_of(value, (*prefix, key))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            yield (*prefix, position)
            yield from paths_of(value, (*prefix, position))


def replaced(document: Any, path: Path, value: Any) -> Any:
    """``document`` with another value at ``path``; the rest is shared."""
    if not path:
        return value
    key, *rest = path
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = replaced(copy[key], tuple(rest), value)
    return copy


def without(document: Any, path: Path) -> Any:
    """``document`` without what stands at ``path``."""
    key, *rest = path
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    if rest:
        copy[key] = without(copy[key], tuple(rest))
    else:
        del copy[key]
    return copy


def mutated(document: Any, random: Random) -> Any:
    """``document`` with one thing in it other than it should be."""
    path = random.choice(list(paths_of(document)))
    if random.random() < 0.2:
        return without(document, path)
    return replaced(document, path, random.choice(VALUES))


def written(document: Any, random: Random) -> bytes:
    """A document as somebody may write it: mostly as JSON, sometimes as something near to it."""
    raw = json.dumps(document, ensure_ascii=random.random() < 0.7).encode(errors="surrogatepass")
    return random.choice(_WRITINGS)(raw, random) if random.random() < 0.15 else raw


def _flipped(raw: bytes, random: Random) -> bytes:
    at = random.randrange(max(1, len(raw)))
    return raw[:at] + bytes([random.randrange(256)]) + raw[at + 1 :]


def _cut(raw: bytes, random: Random) -> bytes:
    return raw[: random.randrange(len(raw) + 1)]


def _deep(raw: bytes, random: Random) -> bytes:
    brackets = random.choice([b"[", b'{"a":'])
    return raw[:-1] + b',"more":' + brackets * random.choice([50, 300, 20_000]) + b"1"


def _twice(raw: bytes, _random: Random) -> bytes:
    return raw[:-1] + b"," + raw[1:]


def _long_number(raw: bytes, random: Random) -> bytes:
    numbers = list(re.finditer(rb"\d+", raw))
    if not numbers:
        return raw
    found = random.choice(numbers)
    digits = random.choice([b"", b"-", b"1e", b"0."]) + b"9" * 5000
    return raw[: found.start()] + digits + raw[found.end() :]


_WRITINGS: Final[Sequence[Callable[[bytes, Random], bytes]]] = (
    _flipped,
    _cut,
    _deep,
    _twice,
    _long_number,
    lambda raw, _: raw + raw,
    lambda raw, _: b"\xef\xbb\xbf" + raw,
    lambda raw, _: raw.decode(errors="replace").encode("utf-16"),
    lambda raw, _: b" " * 1_100_000 + raw,
    lambda _, random: random.randbytes(random.randrange(2000)),
    lambda *_: b"",
    lambda *_: b"null",
    lambda *_: b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system",
)
