"""Entries on their way: what a job hands over, what a build reads, and what one batch comes to.

Rows travel as columns, a chunk at a time. `CollectionSource` and `SourceSnapshot` are the contract
of everything that entries are read from.

The calls on a batch apply one after the other. Of several upserts of an id the last vector counts,
and the last text and payload that were given; a text or payload that is ``None`` was not given and
stays as it is. What is left is the batch's **content**. Two batches with the same content have the
same digest, whatever the order of their calls, of their rows and of the keys in their payloads, and
however they were cut into calls. The digest covers ids, vectors, texts, payloads, what is cleared
and what is deleted, but neither the collection nor what it held before. It costs 0.5 µs per row of
128 dimensions.

The rows of a content are in the order of their ids, because neighbours by id lie on the same pages
of the database: in any other order overwriting a tenth of a million rows takes twice as long.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, islice
from operator import lt
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexrelay.schemas.settings import Metric
from indexrelay.storage.errors import InvalidBatchIdError, InvalidEntriesError

if TYPE_CHECKING:
    from indexrelay.schemas.session import SessionToken

Vectors = NDArray[np.float32]
"""Shape ``(n, dimension)``, float32."""
CHUNK_ROWS = 10_000
"""Rows per chunk: bounded memory (10 MB at 256 dimensions), and far beyond per-call cost."""
STORED = np.dtype("<f4")
"""How vectors are stored and digested, whatever the machine's byte order."""


@dataclass(frozen=True, kw_only=True)
class Entries:
    """A chunk of entries, column by column; all columns have the same length ``n``."""

    ids: list[str]
    vectors: Vectors
    """Shape ``(n, dimension)``, float32."""
    texts: list[str | None]
    payloads: list[str | None]
    """Each a JSON value as text, or ``None``."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A chunk of what changed: entries that are new or changed, and ids that were deleted."""

    upserts: Entries
    deletes: list[str]


class SourceSnapshot(Protocol):
    """A collection as it was at one generation; everything read from it agrees.

    Valid inside the ``with`` that opened it, on the thread that opened it.
    """

    @property
    def collection(self) -> str:
        """Its name."""
        ...

    @property
    def epoch(self) -> str:
        """The life of the collection that ``generation`` counts in."""
        ...

    @property
    def generation(self) -> int:
        """Read inside the snapshot: what a build from it covers."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    @property
    def metric(self) -> Metric:
        """How near two of its vectors are."""
        ...

    @property
    def count(self) -> int:
        """How many live entries there are."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """What the source holds and does not give, by its kind; see `CollectionSource.left_out`."""
        ...

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every live entry once, in the order of the ids' UTF-8 bytes."""
        ...

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        """What changed in (``after``, ``generation``]; each id at most once, with its last state.

        ``None`` when that is not known (another kind of source, or deletes older than the source
        remembers): the caller reads everything instead.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SnapshotBase:
    """What the snapshots of all sources share; of a source that does not record what changed."""

    collection: str
    epoch: str
    generation: int
    dimension: int
    metric: Metric
    count: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:  # noqa: ARG002 - the protocol's signature
        """Always ``None``: the caller reads everything."""
        return None


class CollectionSource(Protocol):
    """Where one collection's entries are read from; safe to use from any thread."""

    def observe(self) -> int:
        """Number in the catalog what is new, if anything is; return the generation."""
        ...

    def look(self) -> int | None:
        """Open it and check that a build could read it; nothing is numbered or created.

        How many entries there are; ``None``: some, and they were not counted.

        Raises:
            SourceError: it cannot be read, or does not hold what it is declared to hold; the
                message names the file, the table or the column.
        """
        ...

    def left_out(self) -> Mapping[str, int]:
        """What is there now and is not read as entries, by its kind; empty: nothing.

        ``without_vector``: rows of a table that have none yet. ``subfolders``, ``other_files`` of a
        folder, and ``other_arrays`` in its files.

        Raises:
            SourceError: it cannot be looked at.
        """
        ...

    def snapshot(self) -> AbstractContextManager[SourceSnapshot]:
        """One consistent view.

        Raises:
            SourceError: it cannot be read, or does not hold what the collection declares; the
                message names the file or the rows.
        """
        ...


# Batches

MAX_BATCH_ID = 200
"""Characters; as in the events that carry it."""


Guard: TypeAlias = Callable[[str | None], bool]
"""Whether an entry with this payload, JSON as text or ``None``, is one that the writer may change;
called inside of the transaction, so it looks at nothing else and takes no time."""


@dataclass(frozen=True, kw_only=True)
class BatchChanges:
    """What a job hands over under one batch id, applied in the order of the fields."""

    collection: str
    batch_id: str
    upserts: Sequence[Entries] = ()
    """As `indexrelay.storage.validation.check_entries` gives them. A text or payload that is
    ``None`` stays as it is."""
    texts: Mapping[str, str | None] = field(default_factory=dict)
    """By id, for entries that exist or are among the upserts; ``None`` removes the text."""
    payloads: Mapping[str, str | None] = field(default_factory=dict)
    """The same, each a JSON value as text."""
    deletes: Sequence[str] = ()
    embedded: Mapping[str, str] = field(default_factory=dict)
    """By the id of upserted entries whose vectors were made of a text: that text. An embedder need
    not give the same vector twice, so the same batch is known by its texts."""
    own_data: bool = False
    """Whether the job keeps the entries itself: what changed is then not known here."""
    guard: Guard | None = None
    """Of a writer who may change a part of the entries only: those whose payload it accepts, before
    the batch and after it. An entry of somebody else is neither deleted, as if it were not there,
    nor changed. ``None``: all of them."""


@dataclass(frozen=True, kw_only=True)
class StoredEntry:
    """One entry as the catalog has it, and the moment at which it was read."""

    id: str
    text: str | None
    payload: str | None
    """A JSON value as text."""
    epoch: str
    generation: int
    """Of its collection: what the entry is in every later state is another read."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The result of a batch."""

    collection: str
    epoch: str
    batch_id: str
    generation: int
    upserts: int
    """Entries that were written, or whose text or payload was set or removed."""
    deletes: int
    """Entries that were deleted; ids that did not exist do not count."""
    repeated: bool
    """Whether the batch had been committed before: this is the result of that commit."""

    @property
    def session(self) -> "SessionToken":
        """What a reader has to contain so that it has this commit."""
        from indexrelay.schemas.session import SessionToken

        return SessionToken.at(self.collection, self.epoch, self.generation)


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


class Update(NamedTuple):
    """A new text or payload of an entry whose vector stays."""

    id: str
    sets_text: bool
    text: str | None
    """``None`` where it is set: the text is removed."""
    sets_payload: bool
    payload: str | None

    @property
    def sets(self) -> bool:
        """Whether it sets one of them, and not only takes away."""
        return (self.text, self.payload) != (None, None)


DIGEST_FORM: Final = "2:"
"""The prefix of current digests. Those of earlier releases have none, and were taken over payloads
whose keys were in the order in which the job gave them."""


@dataclass(frozen=True, kw_only=True)
class BatchContent:
    """What is to be written; an id is in it once, or twice if it is upserted and then cleared."""

    upserts: Sequence[Entries]
    """At most `CHUNK_ROWS` each; a text or payload that is ``None`` stays as it is."""
    updates: Sequence[Update]
    """To be applied after the upserts."""
    deletes: Sequence[str]
    digest: str
    """`DIGEST_FORM`, and a sha256 in hexadecimal."""
    embedded: Mapping[str, str] = field(default_factory=dict)
    """As in `BatchChanges`."""

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
        return _digest(upserts, updates, self.deletes, self.embedded)


def content_of(changes: BatchChanges) -> BatchContent:
    """What the batch's calls come to.

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
    embedded = {id_: text for id_, text in changes.embedded.items() if id_ not in gone}
    return BatchContent(
        upserts=upserts,
        updates=updates,
        deletes=deletes,
        digest=_digest(upserts, updates, deletes, embedded),
        embedded=embedded,
    )


def _take_over(
    later: dict[str, str | None], column: list[str | None], row_of: Mapping[str, int]
) -> None:
    """Move the values that were set later into the rows; what has no row stays in ``later``.

    So does what was cleared: ``None`` in a row would leave the stored value as it is.
    """
    for id_, value in list(later.items()):
        if value is not None and id_ in row_of:
            column[row_of[id_]] = value
            del later[id_]


class _Rows:
    """The rows of all upserts of a batch, numbered through in the order of the calls."""

    def __init__(self, upserts: Sequence[Entries]) -> None:
        """Copy the columns into lists; the vectors of large calls are not copied.

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
        """The rows in the order of their ids, each id once with the values that were given last."""
        ids = self.ids
        gone = not without.isdisjoint(ids)
        if not gone and all(map(lt, ids, islice(ids, 1, None))):  # as most jobs give them
            return range(len(ids))
        order = sorted(range(len(ids)), key=ids.__getitem__)  # stable: of one id the last is last
        if gone:
            order = [row for row in order if ids[row] not in without]
        return self._merged(order) if len(set(ids)) < len(ids) else order

    def _merged(self, order: Sequence[int]) -> list[int]:
        """The last row of each id; a text or payload that it does not give is taken from before."""
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
    """The vectors of all rows; those of small calls are joined, up to `CHUNK_ROWS`.

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


def _digest(
    upserts: Iterable[Entries],
    updates: Sequence[Update],
    deletes: Sequence[str],
    embedded: Mapping[str, str],
) -> str:
    """The digest of a content: each column by itself, so that the size of chunks is no part.

    In place of the vectors of ``embedded`` it goes by the texts that they were made of.
    """
    ids, vectors, texts, payloads = (hashlib.sha256() for _ in range(4))
    rows = 0
    for chunk in upserts:
        rows += len(chunk)
        ids.update(_written(chunk.ids))
        given = np.ascontiguousarray(chunk.vectors, dtype=STORED)
        if embedded:
            given = given.copy()
            given[[row for row, id_ in enumerate(chunk.ids) if id_ in embedded]] = 0
        vectors.update(given.data.cast("B"))
        texts.update(_written(chunk.texts))
        payloads.update(_written(chunk.payloads))
    whole = hashlib.sha256(f"{rows},{len(updates)},{len(deletes)};".encode())
    for column in (ids, vectors, texts, payloads):
        whole.update(column.digest())
    if updates:
        for some in zip(*updates, strict=True):
            whole.update(_written([str(each) if isinstance(each, bool) else each for each in some]))
    whole.update(_written(deletes))
    if embedded:
        whole.update(_written(sorted(embedded)))
        whole.update(_written([embedded[id_] for id_ in sorted(embedded)]))
    return DIGEST_FORM + whole.hexdigest()


def _written(column: Sequence[str | None]) -> bytes:
    """A column as bytes that no other column has; NUL, which is in no value, ends each value."""
    missing = column.count(None)
    if missing == len(column):
        return b"\1" * missing
    if missing:
        return "".join("\1" if value is None else f"\2{value}\0" for value in column).encode()
    return ("\2" + "\0\2".join(column) + "\0").encode()  # type: ignore[arg-type] # none is None
