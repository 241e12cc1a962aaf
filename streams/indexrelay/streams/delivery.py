"""One entry of a stream, as it reaches a consumer, and how replies become that."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from indexrelay.schemas.events import FIELD


class Delivery(NamedTuple):
    """An entry taken from a stream; a tuple, since a burst makes tens of thousands a second."""

    entry_id: bytes
    """``b"<milliseconds>-<sequence>"``, given by the server."""
    raw: bytes | None
    """The event's bytes, unread. ``None``: the entry was trimmed while it was pending; it is no
    poison: acknowledge it, count it, and look at the truth."""
    deliveries: int = 1
    """How often it was handed out, this time included. Crashes and lost replies count as well: of
    use only to catch an event that kills whoever takes it."""


Entry = tuple[bytes, Mapping[bytes, bytes]]


def raw_of(fields: Mapping[bytes, bytes]) -> bytes | None:
    """The event in an entry's fields.

    An entry that is not ours (another field, or several) keeps all its bytes, as ``name=value``
    lines: nothing can parse that as an event, so it ends in the dead letters with what it said.
    """
    if not fields:
        return None
    if len(fields) == 1 and FIELD in fields:
        return fields[FIELD]
    return b"\n".join(name + b"=" + value for name, value in fields.items())


def entries_in(reply: Any) -> list[Entry]:
    """The entries in the reply to a read of one stream, in RESP2's shape; empty for none."""
    return list(reply[0][1]) if reply else []


def deliveries_of(entries: Iterable[Entry]) -> list[Delivery]:
    """Deliveries in the order of the stream, each taken for its first."""
    return [Delivery(entry_id=entry_id, raw=raw_of(fields)) for entry_id, fields in entries]
