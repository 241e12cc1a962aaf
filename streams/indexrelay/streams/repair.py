"""Finds and repairs keys of ours that hold what is not ours, and repairs a server by hand.

Another program may use the same names on the same server, or a user may try a command by hand, or
have a password that leaked. A `WrongKey` names the key, what it holds, what it should hold, and who
may write there. What is of another type is *set aside*, renamed to ``{ns}:aside:…`` and left there
for a week; what is too large is deleted or shortened; what has no TTL is given one.
Nothing of ours is lost by it, since all of it can be had again.

A stream's ids only grow, and every user who may add to it may give one. After the greatest nothing
can be added for ever, and one that is far ahead of the server's clock makes every age wrong. So a
stream whose newest id is ahead of that clock is set aside, too.

A rebuilder repairs keys by itself. `Repair` does the same where none runs or none may, as a user
with more rights. It also repairs what no key shows: a script that does not end, and scripts or
functions that take more memory than any of ours.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.streams.connection import Connection, replies_of, writes_to
from indexrelay.streams.consumer import LAST, StreamInfo, memory_of, stream_info
from indexrelay.streams.errors import UnkillableScriptError, refusal_code
from indexrelay.streams.keys import Keys, keys_by_label, label_of, scan, within
from indexrelay.streams.presence import MAX_LABEL_BYTES, MAX_PROCESSES, MAX_STATE_BYTES
from indexrelay.streams.retention import cap, server_memory

ASIDE_SECONDS: Final = 604_800
"""How long a key that was set aside stays: a week, for users who miss it."""
MAX_ASIDE_BYTES: Final = 1_048_576
"""A larger key is deleted instead: it would take the memory for a week."""
MAX_AHEAD_SECONDS: Final = 300
"""How far a stream's ids may be ahead of the server's clock: because a client gave one, or because
the clock was set back. The same repair is right for both."""
MAX_PRESENCE_SECONDS: Final = 3600
"""The longest TTL of a state in presence that the settings allow."""
MAX_STATES_BYTES: Final = 8 * MAX_LABEL_BYTES
"""Of the states under one label: many times what is looked at there."""
MAX_REPORTS_BYTES: Final = 67_108_864
"""Of the reports under one label; trimming leaves a quarter of it."""
MAX_SCRIPT_BYTES: Final = 16_777_216
"""Of the scripts, and of the functions, that a server keeps; ours take a few thousand."""
TOO_LONG: Final = 2
"""A stream that is so many times as long as it may be is more than the next trimming leaves."""

_END_SECONDS: Final = 2.0
"""How long a script that is ended may take to notice; most take a moment."""
_END_PAUSE_SECONDS: Final = 0.01
_BY_HAND_SECONDS: Final = 300.0
"""How long a person waits for the keys of one pattern to be deleted; each second some 100,000."""


class Action(StrEnum):
    """What one step does."""

    END_SCRIPT = "end_script"
    REPAIR_KEY = "repair_key"
    FLUSH_SCRIPTS = "flush_scripts"
    FLUSH_FUNCTIONS = "flush_functions"


class Remedy(StrEnum):
    """How a key is repaired."""

    ASIDE = "aside"
    """Renamed, and kept for a week; deleted, where it is large."""
    DELETE = "delete"
    SHORTEN = "shorten"
    """The oldest entries of a stream go."""
    TTL = "ttl"
    """It is given a TTL."""


_HOW: Final = {
    Remedy.ASIDE: "set it aside for a week, or delete it if it is large",
    Remedy.DELETE: "delete",
    Remedy.SHORTEN: "remove its oldest entries",
    Remedy.TTL: "give it a TTL",
}


@dataclass(frozen=True, kw_only=True)
class WrongKey:
    """A key of ours that holds what is not ours: of another type, of no meaning, or too large."""

    key: str
    """Or a pattern: all keys that match."""
    found: str
    """``a list``, ``'abc'``, ``a value without a TTL``."""
    wanted: str
    remedy: Remedy = Remedy.ASIDE
    entries: int = 0
    """How many a stream that is shortened keeps."""

    @property
    def floods(self) -> bool:
        """Whether it is so many keys that there may be others by the next look."""
        return self.remedy is Remedy.DELETE and self.key.endswith("*")

    @property
    def hides(self) -> bool:
        """Whether nothing can be read or added there until it is repaired."""
        return self.remedy is Remedy.ASIDE

    @property
    def label(self) -> str | None:
        """The only label of readers that may write there; ``None``: rebuilders or jobs may."""
        return label_of(self.key)

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


@dataclass(frozen=True, kw_only=True)
class Step:
    """One repair: what is wrong, and what would be done."""

    action: Action
    what: str
    how: str
    wrong: WrongKey | None = None
    """The key that is repaired."""


class Repair:
    """Repairs one server of one installation; for use by one thread.

    `look` returns what would be done and `carry_out` does one of it, so that a person sees it
    before. Nothing is lost by any of it: all of a server's keys may be wiped at any time, and
    scripts are sent to it again when they are needed.
    """

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
        """What would be done. While a script runs, nothing else can be seen.

        Raises:
            redis.exceptions.RedisError: the server is away, or does not allow to look.
        """
        try:
            return (*self._keys_to_repair(), *self._memory_to_free())
        except ResponseError as error:
            if refusal_code(error) != "BUSY":
                raise
        what = "a script or function runs and does not end, and the server answers nothing else"
        return (Step(action=Action.END_SCRIPT, what=what, how="end it"),)

    def carry_out(self, step: Step) -> str:
        """Do one step; what was done, as a sentence.

        Raises:
            UnkillableScriptError: the script has written something, so that the server does not
                kill it.
            redis.exceptions.RedisError: the server is away, or refuses.
        """
        commands: Any = self._connection.commands
        match step.action:
            case Action.END_SCRIPT:
                return self._end_script()
            case Action.FLUSH_SCRIPTS:
                commands.script_flush()
            case Action.FLUSH_FUNCTIONS:
                commands.function_flush()
            case Action.REPAIR_KEY if step.wrong is not None:
                ttl_seconds = self._limits.presence_ttl_seconds
                return repair_key(
                    self._connection,
                    self._keys,
                    step.wrong,
                    ttl_seconds=ttl_seconds,
                    in_time=within(_BY_HAND_SECONDS),
                )
        return f"{step.what}: they were removed"

    def _keys_to_repair(self) -> Iterator[Step]:
        found = find_wrong_keys(
            self._connection, self._keys, self._limits, components=self._components
        )
        for wrong in found:
            yield Step(
                action=Action.REPAIR_KEY,
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
                    how=f"remove all {kind}: each is sent to the server again when it is needed",
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
            self._wait_until_it_ends()
            return "the script or function was ended"
        return "the script or function had ended by itself"

    def _wait_until_it_ends(self) -> None:
        """Return when the server answers again: a script ends at its next look for an order, which
        a busy machine keeps it from. One more script behind it is not waited for."""
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until:
            try:
                self._connection.commands.ping()
            except ResponseError as error:
                if refusal_code(error) != "BUSY":
                    return  # this user may not PING; the server answered
                time.sleep(_END_PAUSE_SECONDS)
            else:
                return


def find_wrong_keys(
    connection: Connection, keys: Keys, limits: RebuilderSettings, *, components: Iterable[str]
) -> tuple[WrongKey, ...]:
    """Look at every key of the namespace that some process reads.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    history = min(limits.history_entries, limits.stream_max_entries)
    reports = sorted({*scan(connection, keys.reports("*"))})
    changes = sorted({*scan(connection, keys.changes("*"))})
    streams = {
        keys.events: limits.stream_max_entries,
        keys.results: history,
        keys.reloads: limits.stream_max_entries,
        **dict.fromkeys(reports, history),
        **dict.fromkeys(changes, limits.stream_max_entries),
    }
    wanted = {
        **dict.fromkeys(streams, "stream"),
        keys.release: "string",
        **{keys.lease(name): "string" for name in components},
        **{keys.improvement_lease(name): "string" for name in components},
    }
    types = _types(connection, list(wanted))
    found = [
        WrongKey(key=key, found=_named(types[key]), wanted=_named(kind))
        for key, kind in wanted.items()
        if types[key] not in {kind, "none"}
    ]
    now = connection.server_milliseconds()
    for key, most in streams.items():
        if types[key] == "stream":
            info = stream_info(connection, key)
            size = (memory_of(connection, key) or 0) if key in reports else 0
            found += _of_stream(info, key, most, now, reports_bytes=size)
    if types[keys.release] == "string":
        found += _release_number(connection, keys)
    for prefix in (keys.reader(""), keys.rebuilder("")):
        found += _members(connection, prefix)
    found += _aside(connection, keys)
    return tuple(found)


def _aside(connection: Connection, keys: Keys) -> Iterator[WrongKey]:
    """What was set aside and takes too much, or has no end; together under one label of readers.

    A reader may have many keys, so that many of a moderate size may be set aside.
    """
    owned: dict[str, set[str]] = {}
    for key in scan(connection, keys.aside_of("*")):
        if len(members := owned.setdefault(_owned(keys, key), set())) <= MAX_PROCESSES:
            members.add(key)
    for pattern, members in owned.items():
        some = sorted(members)
        with connection.commands.pipeline(transaction=False) as pipeline:
            for key in some:
                pipeline.pttl(key)
            left: list[Any] = replies_of(pipeline)
        size = sum(memory_of(connection, key) or 0 for key in some)
        if size > MAX_ASIDE_BYTES or len(some) > MAX_PROCESSES:
            yield WrongKey(
                key=pattern,
                found=f"{size:,} bytes that were set aside",
                wanted=f"at most {MAX_ASIDE_BYTES:,}",
                remedy=Remedy.DELETE,
            )
            continue
        for key, milliseconds in zip(some, left, strict=True):
            if milliseconds == -1 or milliseconds > ASIDE_SECONDS * 1000:
                yield WrongKey(
                    key=key,
                    found="what was set aside, without an end",
                    wanted="it for a week at most",
                    remedy=Remedy.TTL,
                )


def _owned(keys: Keys, aside: str) -> str:
    """A pattern of all that was set aside of the same kind and label, or the key alone."""
    kind, _, rest = aside.removeprefix(keys.aside_of("")).partition(":")
    label, instance = split_member_id(rest)
    if kind != "reader" or not instance:
        return aside
    return keys.aside_of(f"reader:{label}:*")


def _types(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in names:
            pipeline.type(key)
        replies: list[Any] = replies_of(pipeline)
    return {key: reply.decode() for key, reply in zip(names, replies, strict=True)}


_NAMES: Final = {"zset": "a sorted set"}


def _named(kind: str) -> str:
    return _NAMES.get(kind, f"a {kind}")


def _of_stream(
    info: StreamInfo, key: str, most: int, now: int, *, reports_bytes: int
) -> Iterator[WrongKey]:
    ahead = (info.last_generated.milliseconds - now) / 1000
    if ahead > MAX_AHEAD_SECONDS:
        found = (
            "the greatest possible id, after which nothing can be added"
            if info.last_generated == LAST
            else f"ids that are {_duration(ahead)} ahead of the server's clock"
        )
        yield WrongKey(key=key, found=found, wanted="ids by the server's clock")
    elif info.entries > TOO_LONG * most:
        yield WrongKey(
            key=key,
            found=f"{info.entries:,} entries",
            wanted=f"at most {most:,}",
            remedy=Remedy.SHORTEN,
            entries=most,
        )
    elif reports_bytes > MAX_REPORTS_BYTES:
        yield WrongKey(
            key=key,
            found=f"{reports_bytes:,} bytes",
            wanted=f"at most {MAX_REPORTS_BYTES:,}",
            remedy=Remedy.DELETE,
        )


def _duration(seconds: float) -> str:
    for unit, length in (("years", 31_557_600), ("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"


_MOST_DIGITS: Final = 12
"""Of a release number: at a release a second it takes 30,000 years to have more."""


def _release_number(connection: Connection, keys: Keys) -> list[WrongKey]:
    value: Any = connection.commands.get(keys.release)
    if value is None or re.fullmatch(rb"[0-9]{1,%d}" % _MOST_DIGITS, value):
        return []
    shown = repr(value[:40].decode(errors="replace"))
    return [WrongKey(key=keys.release, found=shown, wanted="a release's number")]


def _members(connection: Connection, prefix: str) -> Iterator[WrongKey]:
    """The states of one kind of process."""
    found = keys_by_label(connection, prefix, most=MAX_PROCESSES)
    for label, members in found.keys.items():
        pattern = f"{prefix}{label}:*"
        if label in found.crowded:
            more = "more than " if found.cut else ""
            yield WrongKey(
                key=pattern,
                found=f"{more}{found.crowded[label]:,} states",
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
        ttl = "without a TTL"
        if milliseconds_left > 0:
            ttl = f"with a TTL of {_duration(milliseconds_left / 1000)}"
        yield WrongKey(
            key=key,
            found=f"a value {ttl}",
            wanted="one that goes when its process does",
            remedy=Remedy.TTL,
        )


def repair_key(
    connection: Connection,
    keys: Keys,
    wrong: WrongKey,
    *,
    ttl_seconds: float,
    in_time: Callable[[], bool] | None = None,
) -> str:
    """Repair a key; what was done, as a sentence.

    Args:
        ttl_seconds: the TTL that is given to a key without one.
        in_time: whether there is time to delete more keys; ``None``: for `SCAN_SECONDS`.

    Raises:
        BackendRefusedError: the server refused it.
        redis.exceptions.RedisError: the server is away.
    """
    with writes_to(wrong.key):
        match wrong.remedy:
            case Remedy.TTL:
                connection.commands.pexpire(wrong.key, round(ttl_seconds * 1000))
                return f"{wrong}: it was given a TTL of {ttl_seconds:g} s"
            case Remedy.SHORTEN:
                removed = cap(connection, wrong.key, entries=wrong.entries)
                return f"{wrong}: the {removed:,} oldest were removed"
            case Remedy.DELETE:
                if _delete(connection, wrong.key, in_time=in_time):
                    return f"{wrong}: deleted"
                return f"{wrong}: some were deleted, and the others go at the next repair"
            case Remedy.ASIDE:
                return _set_aside(connection, keys, wrong)


def _set_aside(connection: Connection, keys: Keys, wrong: WrongKey) -> str:
    aside = keys.aside(wrong.key)
    with connection.commands.pipeline(transaction=False) as pipeline:
        pipeline.rename(wrong.key, aside)
        pipeline.pexpire(aside, ASIDE_SECONDS * 1000)
        replies_of(pipeline)
    # Only now: until it is renamed, its writer may add to it.
    if (memory_of(connection, aside) or 0) > MAX_ASIDE_BYTES:
        connection.commands.unlink(aside)
        return f"{wrong}: it is too large to be set aside, and was deleted"
    return f"{wrong}: it was set aside as {aside}, for a week"


def _delete(connection: Connection, pattern: str, *, in_time: Callable[[], bool] | None) -> bool:
    """Delete what matches, as it is found; whether there was time for all of it."""
    if "*" not in pattern:
        connection.commands.unlink(pattern)
        return True
    looked = scan(connection, pattern, in_time=in_time)
    for found in looked.steps():
        if found:
            connection.commands.unlink(*found)
    return not looked.cut
