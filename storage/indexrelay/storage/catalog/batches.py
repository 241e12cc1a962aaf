"""Batches: what a job hands over, what that comes to, and the digest of it.

The calls on a batch apply one after the other. Of several upserts of an id the last vector counts,
and the last text and payload that were given; a text or payload that is ``None`` was not given and
stays as it is. What is left is the batch's **content**. Two batches with the same content have the
same digest, whatever the order of their calls, of their rows and of the keys in their payloads, and
however they were cut into calls.

The digest covers ids, vectors, texts, payloads, what is cleared and what is deleted. It covers
neither the collection nor what the collection held before. Payloads count as they are written, with
their keys in order (`indexrelay.storage.validation.encode_payloads`). It costs 0.5 µs per row of
128 dimensions.

Rows are written in the order of their ids, because neighbours by id lie on the same pages of the
database: in any other order overwriting a tenth of a million rows takes twice as long. They are
written `CHUNK_ROWS` at a time.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, islice
from operator import lt
from typing import Final

import numpy as np

from indexrelay.storage.catalog.database import STORED, Update
from indexrelay.storage.entries import CHUNK_ROWS, Entries, Vectors
from indexrelay.storage.errors import InvalidBatchIdError, InvalidEntriesError

MAX_BATCH_ID = 200
"""Characters; as in the events that carry it."""


@dataclass(frozen=True, kw_only=True)
class BatchChanges:
    """What a job hands over under one batch id.

    Applied in the order of the fields; `indexrelay.storage.catalog.batches` says what comes
    of it.
    """

    collection: str
    batch_id: str
    upserts: Sequence[Entries] = ()
    """As `indexrelay.storage.validation.check_entries` gives them. A text or payload that is
    ``None`` stays what it is."""
    texts: Mapping[str, str | None] = field(default_factory=dict)
    """By id, for entries that are there or among the upserts; ``None``: the text goes."""
    payloads: Mapping[str, str | None] = field(default_factory=dict)
    """The same, each a JSON value as text."""
    deletes: Sequence[str] = ()
    own_data: bool = False
    """Whether the job keeps the entries itself: what changed is then not known here."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What became of a batch."""

    collection: str
    epoch: str
    batch_id: str
    generation: int
    upserts: int
    """Entries that came, were written again, or got or lost a text or payload."""
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


DIGEST_FORM: Final = "2:"
"""Begins each digest that is made today. Those of earlier releases begin with nothing, and went
over payloads whose keys were in the order in which the job gave them."""


@dataclass(frozen=True, kw_only=True)
class BatchContent:
    """What is to be written; an id is in it once, or twice if it is upserted and then cleared."""

    upserts: Sequence[Entries]
    """At most `CHUNK_ROWS` each; a text or payload that is ``None`` stays what it is."""
    updates: Sequence[Update]
    """To be applied after the upserts."""
    deletes: Sequence[str]
    digest: str
    """`DIGEST_FORM`, and a sha256 in hexadecimal."""

    @property
    def updated(self) -> int:
        """How many entries are updated and not upserted."""
        updated = {update.id for update in self.updates}
        for chunk in self.upserts:
            if not updated:
                break
            updated.difference_update(chunk.ids)
        return len(updated)

    @property
    def payloads(self) -> dict[str, str]:
        """Every payload that is given, by the id of its entry."""
        upserted = chain.from_iterable(
            zip(chunk.ids, chunk.payloads, strict=True) for chunk in self.upserts
        )
        updated = ((update.id, update.payload) for update in self.updates)
        given = chain(upserted, updated)
        return {id_: payload for id_, payload in given if payload is not None}

    def digest_with(self, payloads: Mapping[str, str]) -> str:
        """The digest that it would have if some payloads, by id, were written otherwise."""
        upserts = [
            replace(chunk, payloads=list(map(payloads.get, chunk.ids, chunk.payloads)))
            for chunk in self.upserts
        ]
        updates = [
            update._replace(payload=payloads.get(update.id, update.payload))
            for update in self.updates
        ]
        return _digest(upserts, updates, self.deletes)


def content_of(changes: BatchChanges) -> BatchContent:
    """Settle what the batch's calls left.

    Raises:
        InvalidEntriesError: the upserts' vectors are of different dimensions.
    """
    gone = set(changes.deletes)
    rows = _Rows(changes.upserts)
    order = rows.settled(without=gone)
    texts = {id_: text for id_, text in changes.texts.items() if id_ not in gone}
    payloads = {id_: each for id_, each in changes.payloads.items() if id_ not in gone}
    if texts or payloads:
        row_of = {rows.ids[row]: row for row in order}
        _take_over(texts, rows.texts, row_of)
        _take_over(payloads, rows.payloads, row_of)
    upserts = rows.chunks(order)
    updates = [
        Update(id_, id_ in texts, texts.get(id_), id_ in payloads, payloads.get(id_))
        for id_ in sorted(texts.keys() | payloads.keys())
    ]
    deletes = sorted(gone)
    return BatchContent(
        upserts=upserts,
        updates=updates,
        deletes=deletes,
        digest=_digest(upserts, updates, deletes),
    )


def _take_over(
    later: dict[str, str | None], column: list[str | None], row_of: Mapping[str, int]
) -> None:
    """Give the rows what was set later, and leave in ``later`` what has no row.

    What was cleared stays there, too: a row that gives nothing would leave it as it is.
    """
    for id_, value in list(later.items()):
        if value is not None and id_ in row_of:
            column[row_of[id_]] = value
            del later[id_]


class _Rows:
    """The rows of all upserts of a batch, numbered through in the order of the calls."""

    def __init__(self, upserts: Sequence[Entries]) -> None:
        """Take the columns over as lists of their own; vectors of large calls stay where they are.

        Raises:
            InvalidEntriesError: the vectors are of different dimensions.
        """
        self.ids: list[str] = []
        self.texts: list[str | None] = []
        self.payloads: list[str | None] = []
        for chunk in upserts:
            self.ids += chunk.ids
            self.texts += chunk.texts
            self.payloads += chunk.payloads
        self._vectors = _blocks(upserts)
        self._ends = np.array(list(accumulate(map(len, self._vectors))))

    def settled(self, *, without: AbstractSet[str]) -> Sequence[int]:
        """The rows in the order of their ids, each id once.

        The row that is left of an id has its last vector, and what was given last of a text and a
        payload.
        """
        ids = self.ids
        gone = not without.isdisjoint(ids)
        if not gone and all(map(lt, ids, islice(ids, 1, None))):  # as most jobs give them
            return range(len(ids))
        order = sorted(range(len(ids)), key=ids.__getitem__)  # stable: of one id the last is last
        if gone:
            order = [row for row in order if ids[row] not in without]
        return self._merged(order) if len(set(ids)) < len(ids) else order

    def _merged(self, order: Sequence[int]) -> list[int]:
        """Of the rows of one id, which follow each other, the last, with what was given before."""
        kept: list[int] = []
        for row in order:
            if kept and self.ids[kept[-1]] == self.ids[row]:
                before = kept.pop()
                for column in (self.texts, self.payloads):
                    if column[row] is None:
                        column[row] = column[before]
            kept.append(row)
        return kept

    def chunks(self, order: Sequence[int]) -> list[Entries]:
        """These rows, `CHUNK_ROWS` at a time."""
        starts = range(0, len(order), CHUNK_ROWS)
        return [self._chunk(order[start : start + CHUNK_ROWS]) for start in starts]

    def _chunk(self, rows: Sequence[int]) -> Entries:
        return Entries(
            ids=[self.ids[row] for row in rows],
            vectors=self._vectors_of(rows),
            texts=[self.texts[row] for row in rows],
            payloads=[self.payloads[row] for row in rows],
        )

    def _vectors_of(self, rows: Sequence[int]) -> Vectors:
        """Their vectors, one array; a view where they lie together."""
        numbers = np.asarray(rows)
        if len(self._vectors) == 1:
            [block] = self._vectors
            return block[rows.start : rows.stop] if isinstance(rows, range) else block[numbers]
        block_of = np.searchsorted(self._ends, numbers, side="right")
        starts = self._ends - [len(block) for block in self._vectors]
        vectors = np.empty((len(rows), self._vectors[0].shape[1]), np.float32)
        for number in np.unique(block_of):
            places = np.flatnonzero(block_of == number)
            vectors[places] = self._vectors[number][numbers[places] - starts[number]]
        return vectors


def _blocks(upserts: Iterable[Entries]) -> list[Vectors]:
    """The vectors of all rows; those of small calls are put together, up to `CHUNK_ROWS`.

    Raises:
        InvalidEntriesError: they are of different dimensions.
    """
    blocks: list[list[Vectors]] = []
    room = 0
    width: int | None = None
    for chunk in filter(len, upserts):
        shape = chunk.vectors.shape
        if len(shape) != 2 or shape[0] != len(chunk) or width not in (None, shape[1]):
            wanted = f"({len(chunk)}, {width or 'dimension'})"
            raise InvalidEntriesError(f"vectors have shape {shape}, they must have {wanted}")
        width = shape[1]
        if len(chunk) > room:
            blocks.append([])
            room = CHUNK_ROWS
        blocks[-1].append(chunk.vectors)
        room -= len(chunk)
    return [block[0] if len(block) == 1 else np.concatenate(block) for block in blocks]


def _digest(upserts: Iterable[Entries], updates: Sequence[Update], deletes: Sequence[str]) -> str:
    """Over each column by itself, so that it does not matter how the rows are cut into chunks."""
    ids, vectors, texts, payloads = (hashlib.sha256() for _ in range(4))
    rows = 0
    for chunk in upserts:
        rows += len(chunk)
        ids.update(_written(chunk.ids))
        vectors.update(np.ascontiguousarray(chunk.vectors, dtype=STORED).data.cast("B"))
        texts.update(_written(chunk.texts))
        payloads.update(_written(chunk.payloads))
    whole = hashlib.sha256(f"{rows},{len(updates)},{len(deletes)};".encode())
    for column in (ids, vectors, texts, payloads):
        whole.update(column.digest())
    if updates:
        for some in zip(*updates, strict=True):
            whole.update(_written([str(each) if isinstance(each, bool) else each for each in some]))
    whole.update(_written(deletes))
    return DIGEST_FORM + whole.hexdigest()


def _written(column: Sequence[str | None]) -> bytes:
    """A column as bytes that no other column has: a NUL, which no value holds, ends each value."""
    missing = column.count(None)
    if missing == len(column):
        return b"\1" * missing
    if missing:
        return "".join("\1" if value is None else f"\2{value}\0" for value in column).encode()
    return ("\2" + "\0\2".join(column) + "\0").encode()  # type: ignore[arg-type] # none is None
