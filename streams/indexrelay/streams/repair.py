"""Finds keys of ours that hold what is not ours, and mends them; and repairs a server by hand.

Somebody may run another program on the same server under the same names, try a command by hand, or
have a password that leaked. A `WrongKey` names the key, what it holds, what it should hold, and who
may write there. What is of another type is *set aside*, renamed to ``{ns}:aside:…`` and left there
for a week; what is too large is deleted or shortened; what would stay for ever is given an end.
Nothing of ours is lost by it, since all of it can be had again.

A stream's ids only grow, and whoever may add to it may give one. After the greatest nothing can be
added for ever, and one that is far ahead of the server's clock makes every age wrong. So a stream
whose newest id is ahead of that clock is set aside, too.

A rebuilder mends keys by itself. `Repair` does the same where none runs or none may, as a user who
may do more, and with it what no key shows: a script that does not end, and scripts or functions
that take more memory than any of ours. `look` says what would be done, `carry_out` does one of it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.streams.connection import Connection, refusals_of, replies_of
from indexrelay.streams.consumer import LAST, StreamSize, memory_of, stream_size
from indexrelay.streams.errors import UnkillableScriptError, refusal_code
from indexrelay.streams.keys import Keys, scan
from indexrelay.streams.presence import MAX_LABEL_BYTES, MAX_PROCESSES, MAX_STATE_BYTES
from indexrelay.streams.retention import cap, server_memory, server_milliseconds

ASIDE_SECONDS: Final = 604_800
"""How long what was set aside stays: a week, for whoever misses it."""
MAX_ASIDE_BYTES: Final = 1_048_576
"""What is larger is deleted instead: kept for a week, it would fill the memory for a week."""
MAX_AHEAD_SECONDS: Final = 300
"""How far a stream's ids may be ahead of the server's clock. They are because somebody gave one, or
because the clock was set back; the same is right for both."""
MAX_PRESENCE_SECONDS: Final = 3600
"""No setting lets a process say that it is there for longer, without being heard of again."""
TOO_LONG: Final = 2
"""A stream that is so many times as long as it may be is more than the next trimming leaves."""
MAX_STATES_BYTES: Final = 8 * MAX_LABEL_BYTES
"""Of the states under one label: many times what is looked at there."""
MAX_REPORTS_BYTES: Final = 67_108_864
"""Of the reports under one label; trimming leaves a quarter of it."""

_MOST_DIGITS: Final = 12
"""Of a release number: at a release a second it takes 30,000 years to have more."""
_NAMES: Final = {"zset": "a sorted set"}
_AT_A_TIME: Final = 1000


class Remedy(StrEnum):
    """What is done about it."""

    ASIDE = "aside"
    """Renamed, and kept for a week; deleted, where it is large."""
    DELETE = "delete"
    SHORTEN = "shorten"
    """The oldest entries of a stream go."""
    END = "end"
    """It is given an end."""


@dataclass(frozen=True, kw_only=True)
class WrongKey:
    """One of them."""

    key: str
    """Or a pattern: all that match."""
    found: str
    """``a list``, ``'abc'``, ``a value without an end``."""
    wanted: str
    remedy: Remedy = Remedy.ASIDE
    entries: int = 0
    """How many a stream that is shortened keeps."""

    @property
    def hides(self) -> bool:
        """Whether nothing can be read there, or added, until it is mended."""
        return self.remedy is Remedy.ASIDE

    @property
    def label(self) -> str | None:
        """The only label of readers that may write there; ``None``: rebuilders or jobs may."""
        kind, _, rest = self.key.partition("}:")[2].partition(":")
        return split_member_id(rest)[0] if kind in {"reader", "reports"} else None

    @property
    def writers(self) -> str:
        """Who may write there, where each has a user of its own."""
        if self.label is not None:
            return f"only readers that are called {self.label} write there"
        if self.key.endswith("}:events"):
            return "only jobs and rebuilders write there"
        return "only rebuilders write there"

    def __str__(self) -> str:
        return f"the key {self.key} holds {self.found}, and should hold {self.wanted}"


def find_wrong_keys(
    connection: Connection, keys: Keys, limits: RebuilderSettings, *, components: Iterable[str]
) -> tuple[WrongKey, ...]:
    """Look at every key of the namespace that somebody relies on.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    history = min(limits.history_entries, limits.stream_max_entries)
    reports = sorted({*scan(connection, keys.reports("*"))})
    streams = {
        keys.events: limits.stream_max_entries,
        keys.results: history,
        keys.reloads: limits.stream_max_entries,
        **dict.fromkeys(reports, history),
    }
    wanted = {
        **dict.fromkeys(streams, "stream"),
        keys.release: "string",
        **{keys.lease(name): "string" for name in components},
    }
    types = _types(connection, list(wanted))
    found = [
        WrongKey(key=key, found=_named(types[key]), wanted=_named(kind))
        for key, kind in wanted.items()
        if types[key] not in {kind, "none"}
    ]
    now = server_milliseconds(connection)
    for key, most in streams.items():
        if types[key] == "stream":
            size = stream_size(connection, key)
            found += _of_stream(size, key, most, now, is_reports=key in reports)
    if types[keys.release] == "string":
        found += _release_number(connection, keys)
    for prefix in (keys.reader(""), keys.rebuilder("")):
        found += _members(connection, prefix)
    return tuple(found)


def mend(connection: Connection, keys: Keys, wrong: WrongKey, *, ttl_seconds: float) -> str:
    """Get it out of the way; what was done, as a sentence.

    Args:
        ttl_seconds: the end that is given to what has none.

    Raises:
        BackendRefusedError: the server refused it.
        redis.exceptions.RedisError: the server is away.
    """
    with refusals_of(wrong.key):
        match wrong.remedy:
            case Remedy.END:
                connection.commands.pexpire(wrong.key, round(ttl_seconds * 1000))
                return f"{wrong}: it was given one, and ends in {ttl_seconds:g} s"
            case Remedy.SHORTEN:
                removed = cap(connection, wrong.key, entries=wrong.entries)
                return f"{wrong}: the {removed:,} oldest were removed"
            case Remedy.DELETE:
                _delete(connection, wrong.key)
                return f"{wrong}: deleted"
            case Remedy.ASIDE:
                return _set_aside(connection, keys, wrong)


def _set_aside(connection: Connection, keys: Keys, wrong: WrongKey) -> str:
    if (memory_of(connection, wrong.key) or 0) > MAX_ASIDE_BYTES:
        _delete(connection, wrong.key)
        return f"{wrong}: it is too large to be set aside, and was deleted"
    aside = keys.aside(wrong.key)
    with connection.commands.pipeline(transaction=False) as pipeline:
        pipeline.rename(wrong.key, aside)
        pipeline.pexpire(aside, ASIDE_SECONDS * 1000)
        replies_of(pipeline)
    return f"{wrong}: it was set aside as {aside}, for a week"


def _delete(connection: Connection, pattern: str) -> None:
    found = list({*scan(connection, pattern)}) if "*" in pattern else [pattern]
    for some in _portions(found):
        connection.commands.unlink(*some)


def _portions(found: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(found), _AT_A_TIME):
        yield found[start : start + _AT_A_TIME]


def _types(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in names:
            pipeline.type(key)
        replies: list[Any] = replies_of(pipeline)
    return {key: reply.decode() for key, reply in zip(names, replies, strict=True)}


def _named(kind: str) -> str:
    return _NAMES.get(kind, f"a {kind}")


def _of_stream(
    size: StreamSize, key: str, most: int, now: int, *, is_reports: bool
) -> Iterator[WrongKey]:
    ahead = (size.last_generated.milliseconds - now) / 1000
    if ahead > MAX_AHEAD_SECONDS:
        found = (
            "the greatest possible id, after which nothing can be added"
            if size.last_generated == LAST
            else f"ids that are {_duration(ahead)} ahead of the server's clock"
        )
        yield WrongKey(key=key, found=found, wanted="ids by the server's clock")
    elif size.entries > TOO_LONG * most:
        yield WrongKey(
            key=key,
            found=f"{size.entries:,} entries",
            wanted=f"at most {most:,}",
            remedy=Remedy.SHORTEN,
            entries=most,
        )
    elif is_reports and (size.bytes or 0) > MAX_REPORTS_BYTES:
        yield WrongKey(
            key=key,
            found=f"{size.bytes:,} bytes",
            wanted=f"at most {MAX_REPORTS_BYTES:,}",
            remedy=Remedy.DELETE,
        )


def _duration(seconds: float) -> str:
    for unit, length in (("years", 31_557_600), ("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"


def _release_number(connection: Connection, keys: Keys) -> list[WrongKey]:
    value: Any = connection.commands.get(keys.release)
    if value is None or re.fullmatch(rb"[0-9]{1,%d}" % _MOST_DIGITS, value):
        return []
    shown = repr(value[:40].decode(errors="replace"))
    return [WrongKey(key=keys.release, found=shown, wanted="a release's number")]


def _members(connection: Connection, prefix: str) -> Iterator[WrongKey]:
    """The states of one kind of process."""
    by_label: dict[str, set[str]] = {}
    many: dict[str, int] = {}
    for key in scan(connection, f"{prefix}*"):
        label, _ = split_member_id(key.removeprefix(prefix))
        known = by_label.setdefault(label, set())
        if len(known) < MAX_PROCESSES:
            known.add(key)
        elif key not in known:
            many[label] = many.get(label, MAX_PROCESSES) + 1
    for label, members in by_label.items():
        pattern = f"{prefix}{label}:*"
        if label in many:
            yield WrongKey(
                key=pattern,
                found=f"{many[label]:,} states",
                wanted=f"at most {MAX_PROCESSES:,}",
                remedy=Remedy.DELETE,
            )
            continue
        yield from _states(connection, sorted(members), pattern)


def _states(connection: Connection, members: Sequence[str], pattern: str) -> Iterator[WrongKey]:
    """The states under one label."""
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in members:
            pipeline.type(key)
            pipeline.pttl(key)
            pipeline.strlen(key)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    total = 0
    for key, kind, left, size in zip(
        members, replies[::3], replies[1::3], replies[2::3], strict=True
    ):
        for reply in (kind, left):
            if isinstance(reply, RedisError):
                raise reply
        if kind not in {b"string", b"none"}:
            yield WrongKey(key=key, found=_named(kind.decode()), wanted="a string")
        elif not isinstance(size, RedisError):  # or it became another type meanwhile
            total += size
            yield from _of_state(key, left, size)
    if total > MAX_STATES_BYTES:
        yield WrongKey(
            key=pattern,
            found=f"states of {total:,} bytes",
            wanted=f"at most {MAX_STATES_BYTES:,}",
            remedy=Remedy.DELETE,
        )


def _of_state(key: str, milliseconds_left: int, size: int) -> Iterator[WrongKey]:
    if size > MAX_STATE_BYTES:
        yield WrongKey(
            key=key,
            found=f"a state of {size:,} bytes",
            wanted=f"one of at most {MAX_STATE_BYTES:,}",
            remedy=Remedy.DELETE,
        )
    elif milliseconds_left == -1 or milliseconds_left > MAX_PRESENCE_SECONDS * 1000:
        end = "without an end"
        if milliseconds_left > 0:
            end = f"that ends in {_duration(milliseconds_left / 1000)}"
        yield WrongKey(
            key=key,
            found=f"a value {end}",
            wanted="one that ends when its process does",
            remedy=Remedy.END,
        )


MAX_SCRIPT_BYTES: Final = 16_777_216
"""Of the scripts, and of the functions, that a server keeps; ours take a few thousand."""

_HOW: Final = {
    Remedy.ASIDE: "set it aside for a week, or delete it if it is large",
    Remedy.DELETE: "delete",
    Remedy.SHORTEN: "remove its oldest entries",
    Remedy.END: "give it an end",
}


class Action(StrEnum):
    """What is done in one step."""

    END_SCRIPT = "end_script"
    MEND_KEY = "mend_key"
    FLUSH_SCRIPTS = "flush_scripts"
    FLUSH_FUNCTIONS = "flush_functions"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that is wrong, and what is to be done about it."""

    action: Action
    what: str
    how: str
    wrong: WrongKey | None = None
    """The key that is mended."""


class Repair:
    """One server of one installation; for use by one thread."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        limits: RebuilderSettings,
        *,
        components: Iterable[str],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._limits = limits
        self._components = tuple(components)

    def look(self) -> tuple[Step, ...]:
        """What is to be done. While a script runs, nothing else can be seen.

        Raises:
            redis.exceptions.RedisError: the server is away, or does not allow to look.
        """
        try:
            return (*self._keys_to_mend(), *self._memory_to_free())
        except ResponseError as error:
            if refusal_code(error) != "BUSY":
                raise
        what = "a script or function runs and does not end, and the server answers nobody"
        return (Step(action=Action.END_SCRIPT, what=what, how="end it"),)

    def carry_out(self, step: Step) -> str:
        """Do it; what was done, as a sentence.

        Raises:
            UnkillableScriptError: the script has written something, so that the server does not
                end it.
            BackendRefusedError, redis.exceptions.RedisError: the server is away, or refused.
        """
        commands: Any = self._connection.commands
        match step.action:
            case Action.END_SCRIPT:
                return self._end_script()
            case Action.FLUSH_SCRIPTS:
                commands.script_flush()
            case Action.FLUSH_FUNCTIONS:
                commands.function_flush()
            case Action.MEND_KEY if step.wrong is not None:
                ttl_seconds = self._limits.presence_ttl_seconds
                return mend(self._connection, self._keys, step.wrong, ttl_seconds=ttl_seconds)
        return f"{step.what}: they were removed"

    def _keys_to_mend(self) -> Iterator[Step]:
        found = find_wrong_keys(
            self._connection, self._keys, self._limits, components=self._components
        )
        for wrong in found:
            yield Step(
                action=Action.MEND_KEY,
                what=f"{wrong}; {wrong.writers}",
                how=_HOW[wrong.remedy],
                wrong=wrong,
            )

    def _memory_to_free(self) -> Iterator[Step]:
        memory = server_memory(self._connection)
        if memory is None:
            return
        for action, kind, size in (
            (Action.FLUSH_SCRIPTS, "scripts", memory.scripts),
            (Action.FLUSH_FUNCTIONS, "functions", memory.functions),
        ):
            if size > MAX_SCRIPT_BYTES:
                yield Step(
                    action=action,
                    what=f"{kind} take {size:,} bytes of the server's memory",
                    how=f"remove all {kind}: whoever needs one gives it to the server again",
                )

    def _end_script(self) -> str:
        commands: Any = self._connection.commands
        for words in (("SCRIPT", "KILL"), ("FUNCTION", "KILL")):
            try:
                commands.execute_command(*words)
            except ResponseError as error:
                code = refusal_code(error)
                if code == "UNKILLABLE":
                    raise UnkillableScriptError from error
                if code in {"NOTBUSY", "BUSY"} or "unknown" in str(error).lower():
                    continue  # it is a function, or it has ended, or the server has none
                raise
            return "the script or function was ended"
        return "the script or function had ended by itself"
