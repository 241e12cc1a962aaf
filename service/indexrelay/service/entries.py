"""Answers about entries: some by their ids, a count, a page of them, neighbours of many.

As for hits, what is written is bounded: entry by entry, until there is no room for the next.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from indexrelay.components.query import Entry
from indexrelay.components.served import Hit
from indexrelay.service.answers import (
    Answer,
    Answering,
    FoundEntry,
    Hold,
    encoded_hits,
    head_of,
    joined,
    plain_json,
)


class ReadEntry(BaseModel):
    """One entry."""

    id: str
    payload: Any
    """Its JSON payload; null where it has none."""
    text: str | None = None
    """Its text, where the component knows it."""


class EntriesAnswer(Answer):
    """One entry for each id that was asked for; null where there is none."""

    entries: list[ReadEntry | None]


class CountAnswer(Answer):
    """How many entries there are, of those that the filter matches."""

    count: int


class ScrollAnswer(Answer):
    """A page of entries in the order of their ids."""

    entries: list[ReadEntry]
    after: str | None
    """What to ask for with ``after`` to get the next page; null: this was the last one."""


class NeighboursAnswer(Answer):
    """By each id: the entries nearest to it."""

    neighbours: dict[str, list[FoundEntry]]


def encoded_entries(
    entries: Iterable[Entry | None],
    answering: Answering,
    *,
    max_bytes: int,
    after: Sequence[str | None] = (),
) -> bytes:
    """An `EntriesAnswer`, or with ``after`` a `ScrollAnswer`, as JSON.

    Args:
        entries: what was found; ``None`` for an id that is not there.
        answering: the version that was asked.
        max_bytes: of the answer.
        after: of a page: the id from which it goes on.

    Raises:
        InvalidQueryError: it would be longer than ``max_bytes``.
        ValueError: a payload is not JSON.
    """
    tail = b"".join(b',"after":' + plain_json(each) for each in after) + b"}"
    head = head_of(answering) + b',"entries":'
    shown = (None if each is None else _shown(each) for each in entries)
    room = max_bytes - len(head) - len(tail)
    return b"".join((head, joined(shown, max_bytes=room, advice="{count} or fewer"), tail))


def _shown(entry: Entry) -> dict[str, Any]:
    shown = {"id": entry.id, "payload": entry.payload}
    return shown if entry.text is None else {**shown, "text": entry.text}


def encoded_count(count: int, answering: Answering) -> bytes:
    """A `CountAnswer` as JSON."""
    return head_of(answering) + b',"count":%d}' % count


def encoded_neighbours(
    found: Iterable[tuple[str, Sequence[Hit]]],
    answering: Answering,
    *,
    max_bytes: int,
    are_json: bool = False,
    hold: Hold | None = None,
) -> bytes:
    """A `NeighboursAnswer` as JSON; takes and raises what `encoded_hits` does."""
    head, tail = head_of(answering) + b',"neighbours":{', b"}}"
    left = max_bytes - len(head) - len(tail)
    pieces: list[bytes] = []
    for entry_id, hits in found:
        name = plain_json(entry_id) + b":"
        room = left - len(name)
        pieces.append(name + encoded_hits(hits, max_bytes=room, are_json=are_json, hold=hold))
        left -= len(pieces[-1]) + len(",")
    return b"".join((head, b",".join(pieces), tail))
