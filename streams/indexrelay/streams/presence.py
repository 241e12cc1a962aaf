"""Who is there, and in what state: one key with a TTL per member, and an index of the members.

A member is one process: its label and its instance (`indexrelay.streams.identity`), so several
processes under one label stand side by side. Whose state it is follows from the key and never from
what the state says, since a key may be protected and its value may name anybody. A state that names
another process than its key is **dropped**: it counts for nobody, and `status` tells of it. So does
one that is larger than any that a process of ours writes. A process of an earlier version is a
member by its label alone.

The index is a sorted set of ids by the time at which their key ends, so that finding everyone needs
no SCAN. The key is the fact; the index only says where to look. Both are written by one script, by
the server's clock, which also drops from the index whoever's time is over. `Presence.all` writes
nothing: whoever may only read presence can use it. It reads no more than `MAX_MEMBERS` members, of
each no more than `MAX_STATE_BYTES`, and no more than `MAX_PRESENCE_BYTES` in all, the small ones
first, whatever somebody put there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from pydantic import ValidationError
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.events import MAX_EVENT_BYTES
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ProcessState
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import MessageTooLargeError
from indexrelay.streams.keys import Keys
from indexrelay.streams.passing import refusal_code
from indexrelay.streams.refusing import naming, refusals_of, replies_of

log = get_logger(__name__)

Role: TypeAlias = Literal["reader", "rebuilder"]
StateT = TypeVar("StateT", bound=ProcessState)

MAX_STATE_BYTES: Final = MAX_EVENT_BYTES
"""Of one member's state: as much as a message may have, since a state holds the last result."""

MAX_MEMBERS: Final = 10_000
"""Members of one kind that are looked at: those whose presence ends last."""

MAX_PRESENCE_BYTES: Final = 64 * MAX_STATE_BYTES
"""Of all members of one kind together. A state takes about 500 bytes for each component."""

_SHOWN: Final = 300
"""Characters of a dropped state's own name that are told: it may have been made up."""


class Presence:
    """The members of one kind; safe to use from any thread.

    Every method raises:
        redis.exceptions.RedisError: the server is away, or refused (`BackendRefusedError` where
            something was to be written).
    """

    def __init__(self, connection: Connection, keys: Keys, kind: Role) -> None:
        self._connection = connection
        self._index = keys.readers if kind == "reader" else keys.rebuilders
        self._member_key = keys.reader if kind == "reader" else keys.rebuilder

    def publish(self, member_id: str, state: bytes, *, ttl_seconds: float) -> None:
        """Replace the whole state of a member; it counts as gone ``ttl_seconds`` from now.

        Raises:
            MessageTooLargeError: it has more than `MAX_STATE_BYTES`, so that nobody would read it.
        """
        key = self._member_key(member_id)
        if len(state) > MAX_STATE_BYTES:
            raise MessageTooLargeError(key, len(state), MAX_STATE_BYTES)
        with refusals_of(key):
            self._connection.script("presence_publish")(
                keys=[self._index, key], args=[member_id, state, max(1, round(ttl_seconds * 1000))]
            )

    def all(self) -> dict[str, bytes]:
        """The states of all who are there, by their ids, in the order of the ids."""
        return dict(self.look().states)

    def look(self) -> "Look":
        """The same, and what was left unread."""
        with naming(self._index):
            index: Any = self._connection.commands.zrange(self._index, -MAX_MEMBERS - 1, -1)
        # A member whose id is no text has no key of ours; it must not hide the others.
        ids = sorted({member.decode(errors="replace") for member in index[-MAX_MEMBERS:]})
        unread = {} if len(ids) * MAX_STATE_BYTES <= MAX_PRESENCE_BYTES else self._too_many(ids)
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            for member in (wanted := [each for each in ids if each not in unread]):
                pipeline.getrange(self._member_key(member), 0, MAX_STATE_BYTES)
            replies = _answers(pipeline)
        states = {member: state for member, state in zip(wanted, replies, strict=True) if state}
        for member, state in list(states.items()):
            if len(state) > MAX_STATE_BYTES:
                del states[member]
                unread[member] = f"its state is larger than {MAX_STATE_BYTES:,} bytes"
        return Look(states=states, unread=unread, crowded=len(index) > MAX_MEMBERS)

    def _too_many(self, ids: Sequence[str]) -> dict[str, str]:
        """Those of so many members whose states have no room, the largest ones; and why."""
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            for member in ids:
                pipeline.strlen(self._member_key(member))
            sizes = dict(zip(ids, _answers(pipeline), strict=True))
        room = MAX_PRESENCE_BYTES
        unread = {}
        for member in sorted(ids, key=lambda each: sizes[each] or 0):
            room -= sizes[member] or 0
            if room < 0:
                unread[member] = f"all states together take more than {MAX_PRESENCE_BYTES:,} bytes"
        return unread

    def remove(self, member_id: str) -> None:
        """A member leaves at once, instead of being missed after its TTL."""
        key = self._member_key(member_id)
        with refusals_of(key), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            pipeline.zrem(self._index, member_id)
            replies_of(pipeline)


@dataclass(frozen=True, kw_only=True)
class Look:
    """The states of one kind, as bytes."""

    states: Mapping[str, bytes]
    unread: Mapping[str, str]
    """By member id: what was too large to be read, and why."""
    crowded: bool
    """Whether there are more than `MAX_MEMBERS`, so that some were not looked at."""


def _answers(pipeline: Pipeline) -> list[Any]:
    """The replies; ``None`` for a key of another type, of which `streams.wrong_keys` tells.

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
    """Who is there, as far as their keys say so."""

    states: Mapping[str, StateT | None] = field(default_factory=dict)
    """By member id, in the order of the ids; ``None``: it cannot be read here."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """By member id: what was found there and counts for nobody, and why."""
    crowded: bool = False
    """Whether there are more of them than are looked at."""


def members_of(
    connection: Connection, keys: Keys, kind: Role, model: type[StateT]
) -> Members[StateT]:
    """Every live process, and what was dropped because it is not its key's.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    states: dict[str, StateT | None] = {}
    look = Presence(connection, keys, kind).look()
    dropped = dict(look.unread)
    for member, raw in look.states.items():
        try:
            state = model.model_validate_json(raw)
        except ValidationError as error:
            log.debug("presence.unreadable", kind=kind, member=member, error=str(error))
            states[member] = None
            continue
        if state.member == member:
            states[member] = state
        else:
            dropped[member] = f"its state says that it is {state.member[:_SHOWN]}"
    for member, why in dropped.items():
        log.debug("presence.dropped", kind=kind, member=member, why=why)
    return Members(states=states, dropped=dropped, crowded=look.crowded)


def present(
    connection: Connection, keys: Keys, kind: Role, model: type[StateT]
) -> dict[str, StateT | None]:
    """The state of every live process by its member id, in the order of these ids.

    ``None``: it cannot be read here. A process of another major version must not hide the others.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    return dict(members_of(connection, keys, kind, model).states)
