"""Who is there: the rebuilders and readers that are alive, as they say it themselves."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from indexrelay.schemas.loggers import get_logger
from indexrelay.streams import Connection, Keys, Presence

_log = get_logger(__name__)
StateT = TypeVar("StateT", bound=BaseModel)
Kind = Literal["reader", "rebuilder"]


def members(
    connection: Connection, keys: Keys, kind: Kind, model: type[StateT]
) -> dict[str, StateT | None]:
    """The state of each live member by its id; ``None`` where it cannot be read here.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    states: dict[str, StateT | None] = {}
    for member, raw in Presence(connection, keys, kind).all().items():
        try:
            states[member] = model.model_validate_json(raw)
        except ValidationError as error:
            # Of another major version: it must not hide the others.
            _log.debug("presence.unreadable", kind=kind, member=member, error=str(error))
            states[member] = None
    return states


def seconds_left(connection: Connection, keys: Sequence[str]) -> dict[str, float]:
    """When these keys end, by the server's clock; those that never do are left out.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    if not keys:
        return {}
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        replies: list[Any] = pipeline.execute()
    return {
        key: milliseconds / 1000
        for key, milliseconds in zip(keys, replies, strict=True)
        if milliseconds >= 0
    }
