"""What one commit says, and how its parts become changes that do not contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexrelay.storage.entries import Entries
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


def _undecided(chunk: Entries, decided: set[str]) -> Entries:
    last = {id_: row for row, id_ in enumerate(chunk.ids) if id_ not in decided}
    return _rows(chunk, sorted(last.values()))


def _rows(chunk: Entries, rows: Sequence[int]) -> Entries:
    if len(rows) == len(chunk):
        return chunk
    return Entries(
        ids=[chunk.ids[row] for row in rows],
        vectors=chunk.vectors[list(rows)],
        texts=[chunk.texts[row] for row in rows],
        payloads=[chunk.payloads[row] for row in rows],
    )
