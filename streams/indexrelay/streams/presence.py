"""Who a process is, and who is present: one key with a TTL for each process, and nothing else.

People give a label, and may give the same one to several processes: to the workers of one web
server, or by mistake. So presence is kept under the label and an *instance* that is drawn at random
for each process, and again in a forked child (`Identity`).

Whose state it is follows from the key and never from what the state says, since a key may be
protected and its value may name anybody. A state that names another process than its key, or that
is larger than any of ours, is **dropped**: it is not used, and `status` reports it. A process
of an earlier version is a member by its label alone.

There is no index of the members: a process that may add itself to a shared one may remove others,
fill it, or change its type. Each member writes its own key, and the keys are found by SCAN
(decision 020 has the figures). Looking writes nothing. Members, bytes and fields under one label
are limited, so that who may write under one label neither hides a process under another nor makes
each look slow. A process that looks again and again parses only what changed (`ParsedStates`).

A server that is out of memory refuses a new state. Then the TTL of the old one is renewed, which
takes no memory, so that a full server hides no process.
"""

import hashlib
import os
import re
import secrets
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from pydantic import ValidationError
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import MAX_EVENT_BYTES, ProcessState, Role
from indexrelay.schemas.names import READER_PATTERN, member_id, split_member_id
from indexrelay.streams.connection import Connection, portions, writes_to
from indexrelay.streams.errors import MessageTooLargeError, refusal_code
from indexrelay.streams.keys import Keys, keys_by_label

_MAX_LENGTH: Final = 128
_INSTANCE_BYTES: Final = 8
"""Two of a million processes have the same 64 bits once in forty million such fleets."""


class Forked(Protocol):
    """An object that changes in a forked child."""

    def after_fork_in_child(self) -> None:
        """Called in the child, on its only thread, before anything else runs there."""
        ...


def follow_forks(forked: Forked) -> None:
    """Call ``forked`` in every child from now on; it is not kept alive by that.

    They are called in the order in which they were given, so give first what others use.
    """
    reference = weakref.ref(forked)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive.after_fork_in_child()

    os.register_at_fork(after_in_child=call)


class Identity:
    """One process under one label; safe to read from any thread."""

    def __init__(self, label: str | None = None, *, distinct_label: bool = False) -> None:
        """Draw an instance.

        Args:
            label: ``None``: the host's name and the process number.
            distinct_label: a label that was not given ends in a part of the instance instead, for
                a caller that uses the label alone.

        Raises:
            ValueError: ``label`` may not name a reader or a rebuilder.
        """
        self._given = None if label is None else check_label(label)
        self._distinct_label = distinct_label
        self._draw()
        follow_forks(self)

    @property
    def host(self) -> str:
        """This machine's name; that of the container, in one."""
        return host_name()

    @property
    def member(self) -> str:
        """What presence is kept under."""
        return member_id(self.label, self.instance)

    def after_fork_in_child(self) -> None:
        """Become another process under the same label."""
        self._draw()

    def _draw(self) -> None:
        self.pid = os.getpid()
        self.instance = secrets.token_hex(_INSTANCE_BYTES)
        own = self.instance[:8] if self._distinct_label else str(self.pid)
        self.label = self._given or _default_label(own)


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname() or "localhost"


def check_label(label: str) -> str:
    """Return ``label`` if it may name a reader or a rebuilder.

    Raises:
        ValueError: it may not.
    """
    if re.fullmatch(READER_PATTERN[1:-1], label) is None:
        raise ValueError(
            f"id {label!r}: letters, digits, '_', '.' and '-' after a letter or a digit, "
            f"at most {_MAX_LENGTH}"
        )
    return label


def _default_label(own: str) -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", host_name()).lstrip("_.-")
    suffix = f"-{own}"
    return (host or "process")[: _MAX_LENGTH - len(suffix)] + suffix


_log = get_logger(__name__)

StateT = TypeVar("StateT", bound=ProcessState)

MAX_STATE_BYTES: Final = MAX_EVENT_BYTES
"""Of one member's state: as much as a message may have, since a state holds the last result."""

MAX_PROCESSES: Final = 1000
"""Members under one label that are looked at."""

MAX_LABEL_BYTES: Final = 8 * MAX_STATE_BYTES
"""Of all members under one label together. A state takes about 500 bytes for each component, so
that 160 processes may have 100 components each."""

MAX_STATE_FIELDS: Final = 65_536
"""Of one state, by its colons: a component has about twenty. A state is refused before it is parsed
where it has more: to say what is wrong with each takes 4 µs."""

MAX_LABEL_FIELDS: Final = 4 * MAX_STATE_FIELDS
"""Of all states under one label together: at most a second's work."""

_MAX_ID: Final = 200
"""Characters of a member's id: a label has at most 128, an instance 32."""
_SHOWN: Final = 300
"""Characters of a dropped state's own name that are shown: it may have been made up."""


class Presence:
    """The states of all processes of one role; safe to use from any thread.

    Every method raises:
        redis.exceptions.RedisError: the server is away, or refused (`BackendRefusedError` where
            something was to be written).
    """

    def __init__(self, connection: Connection, keys: Keys, kind: Role) -> None:
        self._connection = connection
        self._member_key = keys.reader if kind == "reader" else keys.rebuilder

    def publish(self, member_id: str, state: bytes, *, ttl_seconds: float) -> None:
        """Replace the whole state of a member; it counts as gone ``ttl_seconds`` from now.

        Where the server has no memory for a new state, the TTL of the old one is renewed and the
        refusal raised.

        Raises:
            MessageTooLargeError: it has more than `MAX_STATE_BYTES`, so that it would not be read.
        """
        key, milliseconds = self._member_key(member_id), max(1, round(ttl_seconds * 1000))
        if len(state) > MAX_STATE_BYTES:
            raise MessageTooLargeError(key, len(state), MAX_STATE_BYTES)
        commands = self._connection.commands
        with writes_to(key):
            try:
                commands.set(key, state, px=milliseconds)
            except ResponseError as error:
                if refusal_code(error) == "OOM":
                    commands.pexpire(key, milliseconds)
                raise

    def members(
        self,
        labels: Collection[str] | None = None,
        *,
        in_time: Callable[[], bool] | None = None,
    ) -> "Roster":
        """The ids of all who are present, as far as there is time to find them.

        Args:
            labels: those under some labels alone; a few of them are found whatever is under
                others.
            in_time: whether there is time to look on; ``None``: for `SCAN_SECONDS`.
        """
        prefix = self._member_key("")
        found = keys_by_label(
            self._connection, prefix, most=MAX_PROCESSES, labels=labels, in_time=in_time
        )
        ids = (key.removeprefix(prefix) for some in found.keys.values() for key in some)
        return Roster(
            ids=tuple(sorted(member for member in ids if len(member) <= _MAX_ID)),
            crowded=frozenset(found.crowded),
            cut=found.cut,
        )

    def all(self) -> dict[str, bytes]:
        """The states of all who are present, by their ids, in the order of the ids."""
        return dict(self.look().states)

    def look(
        self, roster: "Roster | None" = None, *, in_time: Callable[[], bool] | None = None
    ) -> "Look":
        """The same states, and what was not read.

        Args:
            roster: whose states to read, as `members` gave it a moment ago; ``None``: as it is now.
            in_time: whether there is time to read on; ``None``: always.
        """
        roster = roster or self.members(in_time=in_time)
        sizes = self._sizes(roster.ids)
        unread = dict(_beyond(sizes, MAX_STATE_BYTES, MAX_LABEL_BYTES, "bytes"))
        wanted = [member for member in roster.ids if sizes[member] and member not in unread]
        states: dict[str, bytes] = {}
        late = len(wanted)
        for some in portions(wanted, [sizes[member] for member in wanted]):
            if in_time is not None and not in_time():
                break
            late -= len(some)
            states |= {
                member: state
                for member, state in zip(some, self._read(some), strict=True)
                if state and len(state) <= MAX_STATE_BYTES  # it may have grown meanwhile
            }
        return Look(states=states, unread=unread, crowded=roster.crowded, late=late, cut=roster.cut)

    def _read(self, members: Sequence[str]) -> list[Any]:
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            for member in members:
                pipeline.getrange(self._member_key(member), 0, MAX_STATE_BYTES)
            return _answers(pipeline)

    def _sizes(self, members: Sequence[str]) -> dict[str, int]:
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            for member in members:
                pipeline.strlen(self._member_key(member))
            sizes = _answers(pipeline)
        return {member: size or 0 for member, size in zip(members, sizes, strict=True)}

    def remove(self, member_id: str) -> None:
        """Remove the state of a member at once, instead of after its TTL."""
        key = self._member_key(member_id)
        with writes_to(key):
            self._connection.commands.delete(key)


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The members of one role at one moment."""

    ids: tuple[str, ...] = ()
    """Sorted."""
    crowded: frozenset[str] = frozenset()
    """Labels with more than `MAX_PROCESSES`, of which some are not in ``ids``."""
    cut: bool = False
    """Whether there were more keys than there was time to find."""

    def under(self, labels: Collection[str]) -> "Roster":
        """Those under some labels alone."""
        return Roster(
            ids=tuple(each for each in self.ids if split_member_id(each)[0] in labels),
            crowded=self.crowded.intersection(labels),
            cut=self.cut,
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """The states of one role, as bytes."""

    states: Mapping[str, bytes]
    unread: Mapping[str, str]
    """By member id: what was too large to be read, and why."""
    crowded: frozenset[str]
    """Labels with more than `MAX_PROCESSES` members, of which some were not looked at."""
    late: int = 0
    """Members for whose states there was no time left."""
    cut: bool = False
    """Whether there were more keys than there was time to find."""


def _beyond(
    sizes: Mapping[str, int], most: int, most_together: int, unit: str
) -> Iterator[tuple[str, str]]:
    """Those that are too large, by themselves or the largest of too much; and why."""
    by_label: dict[str, list[tuple[int, str]]] = {}
    for member, size in sizes.items():
        if size > most:
            yield member, f"its state is larger than {most:,} {unit}"
        else:
            by_label.setdefault(split_member_id(member)[0], []).append((size, member))
    for members in by_label.values():
        room = most_together
        for size, member in sorted(members):
            room -= size
            if room < 0:
                yield member, f"the states under its label take more than {most_together:,} {unit}"


def _answers(pipeline: Pipeline) -> list[Any]:
    """The replies; ``None`` for a key of another type, which `find_wrong_keys` reports.

    Raises:
        redis.exceptions.RedisError: the server is away, or refused to show something.
    """
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for number, reply in enumerate(answers):
        if isinstance(reply, ResponseError) and refusal_code(reply) == "WRONGTYPE":
            answers[number] = None
        elif isinstance(reply, RedisError):
            raise reply
    return answers


@dataclass(frozen=True, kw_only=True)
class Members(Generic[StateT]):
    """Who is present, as far as their keys prove it."""

    states: Mapping[str, StateT | None] = field(default_factory=dict)
    """By member id, in the order of the ids; ``None``: it cannot be read here, since a process of
    another major version wrote it."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """By member id: why the state that was found there is not used."""
    crowded: frozenset[str] = frozenset()
    """Labels with more members than are looked at."""
    late: int = 0
    """Members for whose states there was no time left."""
    cut: bool = False
    """Whether there were more keys than there was time to find: somebody may be missing."""

    @property
    def known(self) -> dict[str, StateT]:
        """The states that can be read here, by member id."""
        return {member: state for member, state in self.states.items() if state is not None}


class ParsedStates(Generic[StateT]):
    """Parsed states, so that one is parsed again only when it changed; safe from any thread."""

    def __init__(self, model: type[StateT]) -> None:
        self._model = model
        self._parsed: dict[str, tuple[bytes, StateT | None]] = {}
        """By member: the digest of a state, and the state; ``None``: it cannot be read here."""

    def of(self, member: str, raw: bytes) -> StateT | None:
        """The state in ``raw``; ``None``: it cannot be read here."""
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        known = self._parsed.get(member)
        if known is None or known[0] != digest:
            known = self._parsed[member] = digest, self._parse(member, raw)
        return known[1]

    def forget_others(self, members: Collection[str]) -> None:
        """Keep those of ``members`` alone: who is there."""
        for gone in self._parsed.keys() - set(members):
            self._parsed.pop(gone, None)

    def _parse(self, member: str, raw: bytes) -> StateT | None:
        try:
            return self._model.model_validate_json(raw)
        except ValidationError as error:
            # Not each of them: there may be thousands.
            _log.debug("presence.unreadable", member=member, errors=error.error_count())
            return None


def members_of(
    connection: Connection,
    keys: Keys,
    model: type[StateT],
    *,
    roster: Roster | None = None,
    parsed: ParsedStates[StateT] | None = None,
    in_time: Callable[[], bool] | None = None,
) -> Members[StateT]:
    """Every live process of one role, and what was dropped because it is not its key's.

    Args:
        model: `ReaderState` or `RebuilderState`.
        roster: whose states to read; ``None``: of all who are there now.
        parsed: the states of the last look; ``None``: each state is parsed.
        in_time: whether there is time for one more state; ``None``: always.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    parsed = ParsedStates(model) if parsed is None else parsed
    states: dict[str, StateT | None] = {}
    look = Presence(connection, keys, model.ROLE).look(roster, in_time=in_time)
    fields = {member: raw.count(b":") for member, raw in look.states.items()}
    dropped = {
        **look.unread,
        **dict(_beyond(fields, MAX_STATE_FIELDS, MAX_LABEL_FIELDS, "fields")),
    }
    late = look.late
    for member, raw in look.states.items():
        if member in dropped:
            continue
        if in_time is not None and not in_time():
            late += 1
            continue
        state = parsed.of(member, raw)
        if state is None or state.member == member:
            states[member] = state
        else:
            dropped[member] = f"its state says that it is {state.member[:_SHOWN]}"
    for member, why in dropped.items():
        _log.debug("presence.dropped", role=model.ROLE, member=member, why=why)
    return Members(states=states, dropped=dropped, crowded=look.crowded, late=late, cut=look.cut)


class PresenceWatch(Generic[StateT]):
    """Reads the states of one role on a thread of its own, for a loop that must not wait for them.

    A user who may write under one label may write as much as the limits allow, and other states
    each time; to parse these takes a second, and more on a busy machine.
    """

    def __init__(
        self, connection: Connection, keys: Keys, model: type[StateT], *, period_seconds: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._model = model
        self._period_seconds = period_seconds
        self._parsed = ParsedStates(model)
        self._last: Members[StateT] | RedisError | None = None
        """What the last look of the thread showed; ``None``: it has not looked yet."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; safe twice."""
        if self._thread is None and not self._stopping.is_set():
            self._thread = SupervisedThread(
                self._run, name="indexrelay-presence", wait=self._stopping.wait
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread; safe twice and before `start`."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def members(self) -> Members[StateT]:
        """Who was present at the last look of the thread; before one, who is present now.

        Raises:
            redis.exceptions.RedisError: the server is away, or refuses.
        """
        last = self._last
        if last is None:
            return self._look()
        if isinstance(last, RedisError):
            raise last.with_traceback(None)
        return last

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._last = self._look()
            except RedisError as error:
                self._last = error
            self._stopping.wait(self._period_seconds)

    def _look(self) -> Members[StateT]:
        members = members_of(self._connection, self._keys, self._model, parsed=self._parsed)
        self._parsed.forget_others(members.states)
        return members
