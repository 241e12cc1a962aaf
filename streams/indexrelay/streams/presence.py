"""Who is there, and in what state: one key with a TTL per member, and an index of the members.

A member is one process: its label and its instance (`indexrelay.streams.identity`), so several
processes under one label stand side by side. Whose state it is follows from the key and never from
what the state says, since a key may be protected and its value may name anybody. A process of an
earlier version is a member by its label alone.

The index is a sorted set of ids by the time at which their key ends, so that finding everyone needs
no SCAN. The key is the fact; the index only says where to look. Both are written by one script, by
the server's clock, which also drops from the index whoever's time is over. `Presence.all` writes
nothing: whoever may only read presence can use it.
"""

from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import ValidationError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ProcessState
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.refusing import naming, refusals_of, replies_of

log = get_logger(__name__)

Role: TypeAlias = Literal["reader", "rebuilder"]
StateT = TypeVar("StateT", bound=ProcessState)


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
        """Replace the whole state of a member; it counts as gone ``ttl_seconds`` from now."""
        key = self._member_key(member_id)
        with refusals_of(key):
            self._connection.script("presence_publish")(
                keys=[self._index, key], args=[member_id, state, max(1, round(ttl_seconds * 1000))]
            )

    def all(self) -> dict[str, bytes]:
        """The states of all who are there, by their ids, in the order of the ids."""
        with naming(self._index):
            index: Any = self._connection.commands.zrange(self._index, 0, -1)
        # A member whose id is no text has no key of ours; it must not hide the others.
        ids = sorted(member.decode(errors="replace") for member in index)
        if not ids:
            return {}
        states: Any = self._connection.commands.mget([self._member_key(member) for member in ids])
        return {
            member: state for member, state in zip(ids, states, strict=True) if state is not None
        }

    def remove(self, member_id: str) -> None:
        """A member leaves at once, instead of being missed after its TTL."""
        key = self._member_key(member_id)
        with refusals_of(key), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            pipeline.zrem(self._index, member_id)
            replies_of(pipeline)


def present(
    connection: Connection, keys: Keys, kind: Role, model: type[StateT]
) -> dict[str, StateT | None]:
    """The state of every live process by its member id, in the order of these ids.

    ``None``: it cannot be read here. A process of another major version must not hide the others.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    states: dict[str, StateT | None] = {}
    for member, raw in Presence(connection, keys, kind).all().items():
        try:
            states[member] = model.model_validate_json(raw).known_as(member)
        except ValidationError as error:
            log.debug("presence.unreadable", kind=kind, member=member, error=str(error))
            states[member] = None
    return states
