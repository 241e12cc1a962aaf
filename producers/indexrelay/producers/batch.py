"""One batch, or several together: changes gathered in memory and committed when a block ends.

Calls apply in the order in which they are made, and an upsert replaces what it is given: the vector
always, text and payload where there is one. Values are checked while the ``with`` block runs,
before the catalog is touched. Leaving the block normally commits all of it in one transaction;
leaving it by an exception commits nothing. A batch is held in memory whole (a vector takes ``4 *
dimension`` bytes), so a job with more than that has several batches.

A commit costs an fsync, and an event a round trip. `Batches` is for jobs with many small batches:
each keeps its own id, generation and event, but all are written in one transaction and announced in
one round trip when the outer block ends.
"""

import dataclasses
import re
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from indexrelay.producers.errors import BatchClosedError, NotCommittedError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Commit
from indexrelay.storage.entries import Entries, check_batch_id
from indexrelay.storage.errors import InvalidEntriesError, UnknownEntriesError
from indexrelay.storage.validation import (
    SizeLimits,
    check_entries,
    check_ids,
    check_listed_ids,
    check_texts,
    encode_payloads,
)

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?")
"""Later versions may append to what version 00 has."""


def check_traceparent(given: str | None) -> None:
    """Refuse what an event cannot carry, before the commit: after it a job could not tell.

    Raises:
        ValueError: it is no trace context.
    """
    if given is None or (isinstance(given, str) and _TRACEPARENT.fullmatch(given)):
        return
    raise ValueError(
        f"traceparent={given!r:.100}: a W3C trace context, 00-<32 hex>-<16 hex>-<2 hex>"
    )


@dataclass(kw_only=True)
class BatchOutcome:
    """Filled in as it happens."""

    commit: Commit | None = None
    announced: bool = False
    no_commit: str = "its block has not ended"
    """Why there is no commit, for as long as there is none."""


@dataclass(frozen=True, kw_only=True)
class FinishedBatch:
    """A batch whose block ended: what is to be committed, and where to tell what became of it."""

    changes: BatchChanges
    outcome: BatchOutcome
    traceparent: str | None = None
    """A W3C trace context that the event carries along."""


HandsOver = Callable[[BatchChanges, BatchOutcome], None]
"""Commits what was gathered, now or together with other batches, and tells the outcome."""


class Batch:
    """Changes to one collection that are committed together.

    Made by `Producer.batch`, or by `Batches.batch` to be committed together with others.

    For one thread at a time, and for one ``with`` block.
    """

    def __init__(
        self,
        collection: str,
        batch_id: str,
        *,
        dimension: int,
        metric: Metric,
        hand_over: HandsOver,
        sizes: SizeLimits | None = None,
    ) -> None:
        self.collection = collection
        self.batch_id = batch_id
        self._dimension = dimension
        self._metric = metric
        self._hand_over = hand_over
        self._sizes = sizes or SizeLimits()
        self._upserts: list[Entries] = []
        self._upserted: set[str] = set()
        # By id, what was set or cleared beside the upserts; None: it goes.
        self._texts: dict[str, str | None] = {}
        self._payloads: dict[str, str | None] = {}
        self._deletes: dict[str, None] = {}
        self._outcome = BatchOutcome()
        self._ended = False

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """Add entries, or give those with the same id what is given; what is not given stays.

        Args:
            ids: ``n`` ids, each non-empty; a list, a tuple or an array.
            vectors: shape ``(n, dimension)``; taken as float32. Copied, so that the job may reuse
                its array.
            texts: ``n`` texts for text components; ``None``, the whole or one of them: not given.
            payloads: ``n`` JSON values to be served beside the ids; ``None`` as for texts.

        Raises:
            InvalidEntriesError: names the rows that are wrong (dimension, NaN or infinity, a zero
                vector under cosine, empty or repeated ids, lengths that differ, payloads that JSON
                has no form for, texts and payloads that are too large).
            BatchClosedError: the block has ended.
        """
        self._check_open()
        entries = check_entries(
            ids,
            vectors,
            texts,
            payloads,
            dimension=self._dimension,
            metric=self._metric,
            sizes=self._sizes,
        )
        if not len(entries):
            return
        if entries.vectors is vectors or not entries.vectors.flags.owndata:
            entries = dataclasses.replace(entries, vectors=entries.vectors.copy())
        if self._deletes:
            self._begin_anew(entries.ids)
        _forget_given(self._texts, entries.ids, entries.texts)
        _forget_given(self._payloads, entries.ids, entries.payloads)
        self._upserts.append(entries)
        self._upserted.update(entries.ids)

    def set_texts(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Give entries other texts; their vectors and payloads stay.

        The entries have to be in the collection, or upserted by this batch before.

        Raises:
            InvalidEntriesError: names the rows that are wrong; ``None`` is no text (`clear_texts`).
            UnknownEntriesError: this batch deletes one of them; from the end of the block, when
                the collection does not hold one of them. Nothing is written then.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        known = check_ids(ids)
        checked = check_texts(texts, known, max_bytes=self._sizes.text)
        _refuse_missing("text", "clear_texts", checked, known)
        self._refuse_deleted(known)
        self._texts.update(zip(known, checked, strict=True))

    def set_payloads(self, ids: Sequence[str], payloads: Sequence[Any]) -> None:
        """Give entries other payloads; their vectors and texts stay.

        The entries have to be in the collection, or upserted by this batch before.

        Raises:
            InvalidEntriesError: names the rows that are wrong; ``None`` is no payload
                (`clear_payloads`).
            UnknownEntriesError: as `set_texts`.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        known = check_ids(ids)
        encoded = encode_payloads(payloads, known, max_bytes=self._sizes.payload)
        _refuse_missing("payload", "clear_payloads", encoded, known)
        self._refuse_deleted(known)
        self._payloads.update(zip(known, encoded, strict=True))

    def clear_texts(self, ids: Collection[str]) -> None:
        """Take the texts of entries away; one without a text, or that is not there, is no error.

        Raises:
            InvalidEntriesError: empty or repeated ids, by row.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        cleared = [id_ for id_ in check_listed_ids(ids) if id_ not in self._deletes]
        self._texts.update(dict.fromkeys(cleared))

    def clear_payloads(self, ids: Collection[str]) -> None:
        """Take the payloads of entries away; raises as `clear_texts` does."""
        self._check_open()
        cleared = [id_ for id_ in check_listed_ids(ids) if id_ not in self._deletes]
        self._payloads.update(dict.fromkeys(cleared))

    def delete(self, ids: Collection[str]) -> None:
        """Remove entries; an id that the collection does not hold is no error.

        Raises:
            InvalidEntriesError: empty or repeated ids, by row.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        checked = check_listed_ids(ids)
        for changed in (self._texts, self._payloads):
            for id_ in changed.keys() & checked:
                del changed[id_]
        self._upserted.difference_update(checked)
        self._deletes.update(dict.fromkeys(checked))

    def __len__(self) -> int:
        """How many entries it changes so far."""
        changed = self._upserted
        if self._texts or self._payloads:
            changed = changed | self._texts.keys() | self._payloads.keys()
        return len(changed) + len(self._deletes)

    def __bool__(self) -> bool:
        """Always true: an empty batch is still a batch (ask ``len(batch)``)."""
        return True

    @property
    def commit(self) -> Commit:
        """What was committed.

        Raises:
            NotCommittedError: the block has not ended (nor that of `Producer.batches` around it),
                ended by an exception, or changed nothing; or its commit raised, and what that says
                decides whether to repeat the batch.
        """
        if self._outcome.commit is None:
            raise NotCommittedError(self.collection, self._outcome.no_commit)
        return self._outcome.commit

    @property
    def announced(self) -> bool:
        """Whether the event went out; if not, the reconcile loop finds the commit."""
        return self._outcome.announced

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._check_open()
        self._ended = True
        changes = BatchChanges(
            collection=self.collection,
            batch_id=self.batch_id,
            upserts=self._upserts,
            texts=self._texts,
            payloads=self._payloads,
            deletes=list(self._deletes),
        )
        changed = len(self)
        # What was gathered may be large, and the job may keep the batch for its commit.
        self._upserts, self._upserted = [], set()
        self._texts, self._payloads, self._deletes = {}, {}, {}
        if error is not None:
            self._outcome.no_commit = f"its block ended by {type(error).__name__}"
        elif not changed:
            self._outcome.no_commit = "nothing was changed"
        else:
            self._hand_over(changes, self._outcome)

    def _check_open(self) -> None:
        if self._ended:
            raise BatchClosedError(self.collection)

    def _begin_anew(self, ids: Sequence[str]) -> None:
        """What was deleted and is upserted again has nothing of what it had."""
        for id_ in ids:
            if id_ in self._deletes:
                del self._deletes[id_]
                self._texts[id_] = self._payloads[id_] = None

    def _refuse_deleted(self, ids: Sequence[str]) -> None:
        deleted = [id_ for id_ in ids if id_ in self._deletes] if self._deletes else []
        if deleted:
            raise UnknownEntriesError(self.collection, deleted)


def _forget_given(
    changed: dict[str, str | None], ids: Sequence[str], given: Sequence[str | None]
) -> None:
    """Drop what was set or cleared before and is given now."""
    if changed:
        for id_, value in zip(ids, given, strict=True):
            if value is not None:
                changed.pop(id_, None)


def _refuse_missing(
    what: str, instead: str, values: Sequence[str | None], ids: Sequence[str]
) -> None:
    rows = [row for row, value in enumerate(values) if value is None]
    if rows:
        raise InvalidEntriesError(
            f"{what} that is None; {instead}() takes one away", rows=rows, ids=ids
        )


OpensBatch = Callable[[str, str | None, HandsOver], Batch]
"""Makes a batch of a collection, under the id or one that is drawn; raises as `Producer.batch`."""
Marks = Callable[[str], object]
"""Sees that a collection is one whose job keeps its own data; raises as `batch_completed`."""
CommitsAll = Callable[[Sequence[FinishedBatch]], bool]
"""Commits and announces; whether the events went out. May raise after the commit."""


class Batches:
    """Batches of any collections that are committed together; made by `Producer.batches`.

    Leaving the block normally commits all whose own blocks ended normally, leaving it by an
    exception commits nothing. Batches may be open at the same time, each on a thread of its own.
    """

    def __init__(
        self,
        *,
        opens: OpensBatch,
        marks: Marks,
        commits: CommitsAll,
    ) -> None:
        self._opens = opens
        self._marks = marks
        self._commits = commits
        self._handed: list[FinishedBatch] = []
        self._gathering = threading.Lock()
        self._done: tuple[FinishedBatch, ...] = ()
        self._announced = False
        self._ended = False

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> Batch:
        """A batch for one ``with`` block inside of this one; as `Producer.batch`.

        Its `Batch.commit` is there when this block has ended. The same ``batch_id`` a second time
        in one collection has to be the same batch: it commits nothing, and gets what the first one
        gets.
        """
        check_traceparent(traceparent)

        def hand_over(changes: BatchChanges, outcome: BatchOutcome) -> None:
            outcome.no_commit = "the block of its batches has not ended"
            self._gather(FinishedBatch(changes=changes, outcome=outcome, traceparent=traceparent))

        return self._opens(collection, batch_id, hand_over)

    def batch_completed(
        self, collection: str, *, batch_id: str | None = None, traceparent: str | None = None
    ) -> None:
        """Say with the others that a collection whose entries live elsewhere has new ones.

        Raises what `Producer.batch_completed` raises before the commit.
        """
        check_traceparent(traceparent)
        batch_id = secrets.token_hex(16) if batch_id is None else batch_id
        check_batch_id(batch_id)
        self._marks(collection)
        changes = BatchChanges(collection=collection, batch_id=batch_id, own_data=True)
        self._gather(
            FinishedBatch(changes=changes, outcome=BatchOutcome(), traceparent=traceparent)
        )

    def __len__(self) -> int:
        """How many batches have been gathered, or were committed."""
        return len(self._handed) or len(self._done)

    def __bool__(self) -> bool:
        """Always true: no batches yet are still `Batches` (ask ``len(batches)``)."""
        return True

    @property
    def commits(self) -> tuple[Commit, ...]:
        """What was committed, in the order in which the batches' blocks ended; empty before."""
        return tuple(each.outcome.commit for each in self._done if each.outcome.commit is not None)

    @property
    def announced(self) -> bool:
        """Whether the events went out; if not, the reconcile loop finds the commits."""
        return self._announced

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._gathering:
            self._ended = True
            handed, self._handed = tuple(self._handed), []
        if error is not None:
            for each in handed:
                each.outcome.no_commit = f"the block of its batches ended by {type(error).__name__}"
        elif handed:
            self._done = tuple(replace(each, changes=_told(each.changes)) for each in handed)
            self._announced = self._commits(handed)

    def _gather(self, handed: FinishedBatch) -> None:
        with self._gathering:
            if self._ended:
                raise BatchClosedError(handed.changes.collection)
            self._handed.append(handed)


def _told(changes: BatchChanges) -> BatchChanges:
    """What is kept of changes that were handed on: they may be large."""
    return BatchChanges(collection=changes.collection, batch_id=changes.batch_id)
