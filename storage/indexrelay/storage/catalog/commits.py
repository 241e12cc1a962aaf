"""What one commit says, and how its parts become changes that do not contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt

import numpy as np

from indexrelay.storage.entries import CHUNK_ROWS, Entries
from indexrelay.storage.errors import InvalidBatchIdError

MAX_BATCH_ID = 200
"""Characters; as in the events that carry it."""


@dataclass(frozen=True, kw_only=True)
class BatchChanges:
    """What a job hands over under one batch id."""

    collection: str
    batch_id: str
    upserts: Sequence[Entries] = ()
    """As `indexrelay.storage.validation.check_entries` gives them."""
    deletes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What became of a batch."""

    collection: str
    epoch: str
    batch_id: str
    generation: int
    upserts: int
    """Entries that came or were written again."""
    deletes: int
    """Entries that went; ids that were not there do not count."""
    repeated: bool
    """Whether the batch had been committed before: this is what it got then."""


def check_batch_id(batch_id: str) -> None:
    """Refuse what the database or an event could not carry.

    Raises:
        InvalidBatchIdError: empty, too long, NUL or a lone surrogate in it.
    """
    plain = isinstance(batch_id, str) and "\0" not in batch_id
    if not plain or not 1 <= len(batch_id) <= MAX_BATCH_ID:
        raise InvalidBatchIdError(batch_id)
    try:
        batch_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidBatchIdError(batch_id) from error


def settled(upserts: Sequence[Entries], deletes: Sequence[str]) -> list[Entries]:
    """The chunks without what the batch itself makes void, so that every id is left at most once.

    A delete wins over every upsert of its id, and of several upserts the last one wins.
    """
    decided = set(deletes)
    kept = []
    for chunk in reversed(upserts):
        ids = set(chunk.ids)
        if len(ids) < len(chunk) or not decided.isdisjoint(ids):
            chunk = _undecided(chunk, decided)  # noqa: PLW2901 - the same chunk, less its void rows
        decided |= ids
        if len(chunk):
            kept.append(chunk)
    return kept[::-1]


def parts(chunk: Entries, rows: int) -> list[Entries]:
    """The chunk in pieces of at most ``rows``; their vectors are views."""
    if len(chunk) <= rows:
        return [chunk] if len(chunk) else []
    return [
        Entries(
            ids=chunk.ids[start : start + rows],
            vectors=chunk.vectors[start : start + rows],
            texts=chunk.texts[start : start + rows],
            payloads=chunk.payloads[start : start + rows],
        )
        for start in range(0, len(chunk), rows)
    ]


def arranged(chunks: Sequence[Entries]) -> list[Entries]:
    """The same rows, small chunks put together, each in the order of its ids.

    Neighbours by id lie on the same pages of the database. In any other order it reads and writes a
    page once for each row on it: overwriting a tenth of a million rows takes twice as long. And a
    job that hands over row by row would pay for a statement for each.
    """
    gathered: list[list[Entries]] = []
    room = 0
    width = None
    for chunk in chunks:
        if len(chunk) > room or chunk.vectors.shape != (len(chunk), width):
            gathered.append([])
            room, width = CHUNK_ROWS, chunk.vectors.shape[-1]
        gathered[-1].append(chunk)
        room -= len(chunk)
    return [_in_id_order(_together(some)) for some in gathered]


def _together(chunks: list[Entries]) -> Entries:
    if len(chunks) == 1:
        return chunks[0]
    return Entries(
        ids=[id_ for chunk in chunks for id_ in chunk.ids],
        vectors=np.concatenate([chunk.vectors for chunk in chunks]),
        texts=[text for chunk in chunks for text in chunk.texts],
        payloads=[payload for chunk in chunks for payload in chunk.payloads],
    )


def _in_id_order(chunk: Entries) -> Entries:
    in_order = all(map(lt, chunk.ids, islice(chunk.ids, 1, None)))
    if in_order or len(chunk.vectors) != len(chunk):  # the latter is refused by whoever writes it
        return chunk
    return _rows(chunk, sorted(range(len(chunk)), key=chunk.ids.__getitem__))


def _undecided(chunk: Entries, decided: set[str]) -> Entries:
    last = {id_: row for row, id_ in enumerate(chunk.ids) if id_ not in decided}
    return chunk if len(last) == len(chunk) else _rows(chunk, sorted(last.values()))


def _rows(chunk: Entries, rows: Sequence[int]) -> Entries:
    return Entries(
        ids=[chunk.ids[row] for row in rows],
        vectors=chunk.vectors[list(rows)],
        texts=[chunk.texts[row] for row in rows],
        payloads=[chunk.payloads[row] for row in rows],
    )
