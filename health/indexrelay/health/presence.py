"""Who is there: the rebuilders and readers that are alive, as they say it themselves."""

from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from indexrelay.schemas.loggers import get_logger
from indexrelay.streams import Connection, Keys, Presence

_log = get_logger(__name__)
StateT = TypeVar("StateT", bound=BaseModel)


def members(
    connection: Connection, keys: Keys, kind: Literal["reader", "rebuilder"], model: type[StateT]
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
