"""Keys of ours that hold what is not ours: of another type, or of no meaning.

Somebody may run another program on the same server under the same names, or try a command by hand.
What stands in the way is named (the key, what it holds, what it should hold), and is *set aside*:
renamed to ``{ns}:aside:…`` and left there for a week. Nothing of ours is lost by it, since all of
it can be had again: presence and leases are written anew within seconds, the release number and the
group by the next comparison, and events only say that there is something to look for.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.refusing import refusals_of, replies_of
from indexrelay.streams.scanning import scan

ASIDE_SECONDS: Final = 604_800
"""How long what was set aside stays: a week, for whoever misses it."""

_MOST_DIGITS: Final = 12
"""Of a release number: at a release a second it takes 30,000 years to have more."""
_NAMES: Final = {"zset": "a sorted set"}


@dataclass(frozen=True, kw_only=True)
class WrongKey:
    """One of them."""

    key: str
    found: str
    """``a list``, ``'abc'``, ``a value without an end``."""
    wanted: str
    ends: bool = True
    """Whether it only lacks an end, and is given one instead of being set aside."""

    def __str__(self) -> str:
        return f"the key {self.key} holds {self.found}, and should hold {self.wanted}"


def find_wrong_keys(
    connection: Connection, keys: Keys, *, components: Iterable[str]
) -> tuple[WrongKey, ...]:
    """Look at every key of the namespace that somebody relies on.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    wanted = {
        **dict.fromkeys((keys.events, keys.results, keys.reloads), "stream"),
        **dict.fromkeys(sorted({*scan(connection, keys.reports("*"))}), "stream"),
        keys.release: "string",
        **{keys.lease(name): "string" for name in components},
    }
    types = _types(connection, wanted)
    found = [
        WrongKey(key=key, found=_named(types[key]), wanted=_named(kind))
        for key, kind in wanted.items()
        if types[key] not in {kind, "none"}
    ]
    if types[keys.release] == "string":
        found += _release_number(connection, keys)
    found += _members(connection, keys)
    return tuple(found)


def set_aside(connection: Connection, keys: Keys, wrong: WrongKey, *, ttl_seconds: float) -> str:
    """Get it out of the way; what was done, as a sentence.

    Args:
        ttl_seconds: the end that is given to what has none.

    Raises:
        BackendRefusedError: the server refused it.
        redis.exceptions.RedisError: the server is away.
    """
    with refusals_of(wrong.key):
        if not wrong.ends:
            connection.commands.pexpire(wrong.key, round(ttl_seconds * 1000))
            return f"{wrong}: it was given one, and ends in {ttl_seconds:g} s"
        aside = keys.aside(wrong.key)
        with connection.commands.pipeline(transaction=False) as pipeline:
            pipeline.rename(wrong.key, aside)
            pipeline.pexpire(aside, ASIDE_SECONDS * 1000)
            replies_of(pipeline)
    return f"{wrong}: it was set aside as {aside}, for a week"


def _types(connection: Connection, keys: Iterable[str]) -> dict[str, str]:
    names = list(keys)
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in names:
            pipeline.type(key)
        replies: list[Any] = replies_of(pipeline)
    return {key: reply.decode() for key, reply in zip(names, replies, strict=True)}


def _named(kind: str) -> str:
    return _NAMES.get(kind, f"a {kind}")


def _release_number(connection: Connection, keys: Keys) -> list[WrongKey]:
    value: Any = connection.commands.get(keys.release)
    if value is None or re.fullmatch(rb"[0-9]{1,%d}" % _MOST_DIGITS, value):
        return []
    shown = repr(value[:40].decode(errors="replace"))
    return [WrongKey(key=keys.release, found=shown, wanted="a release's number")]


def _members(connection: Connection, keys: Keys) -> list[WrongKey]:
    patterns = (keys.reader("*"), keys.rebuilder("*"))
    names = sorted({key for pattern in patterns for key in scan(connection, pattern)})
    if not names:
        return []
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in names:
            pipeline.type(key)
            pipeline.pttl(key)
        replies: list[Any] = replies_of(pipeline)
    found = []
    for key, kind, milliseconds in zip(names, replies[::2], replies[1::2], strict=True):
        if kind not in {b"string", b"none"}:
            found.append(WrongKey(key=key, found=_named(kind.decode()), wanted="a string"))
        elif milliseconds == -1:
            found.append(
                WrongKey(
                    key=key,
                    found="a value without an end",
                    wanted="one that ends when its process does",
                    ends=False,
                )
            )
    return found
