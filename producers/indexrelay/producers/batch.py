"""One batch: changes gathered in memory, checked as they come, committed when the block ends.

Everything that can be wrong is found while the ``with`` block runs, before the catalog is touched;
leaving the block normally commits all of it in one transaction (or hands it over to the `Batches`
that it belongs to), leaving it by an exception commits nothing. A batch is held in memory whole (a
vector takes ``4 * dimension`` bytes), so a job with more than that has several batches.
"""

import dataclasses
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from indexrelay.producers.errors import BatchClosedError, NotCommittedError, RepeatedIdsError
from indexrelay.producers.outcome import Outcome
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Commit
from indexrelay.storage.entries import Entries
from indexrelay.storage.validation import check_entries, check_ids

HandsOver = Callable[[BatchChanges, Outcome], None]
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
    ) -> None:
        self.collection = collection
        self.batch_id = batch_id
        self._dimension = dimension
        self._metric = metric
        self._hand_over = hand_over
        self._upserts: list[Entries] = []
        self._upserted: set[str] = set()
        self._deletes: dict[str, None] = {}
        self._outcome = Outcome()
        self._ended = False

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """Add entries, or replace those with the same id, whole.

        Args:
            ids: ``n`` ids, each non-empty and new to this batch.
            vectors: shape ``(n, dimension)``; taken as float32. Copied, so that the job may reuse
                its array.
            texts: ``n`` texts for text components; ``None``: none have one.
            payloads: ``n`` JSON values to be served beside the ids; ``None``: none have one.

        Raises:
            InvalidEntriesError: names the rows that are wrong (dimension, NaN or infinity, a zero
                vector under cosine, empty or repeated ids, lengths that differ).
            RepeatedIdsError: ids that this batch upserts or deletes already.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        entries = check_entries(
            ids, vectors, texts, payloads, dimension=self._dimension, metric=self._metric
        )
        self._refuse(entries.ids, self._upserted, "upserted twice")
        self._refuse(entries.ids, self._deletes, "both deleted and upserted")
        if not len(entries):
            return
        if entries.vectors is vectors or not entries.vectors.flags.owndata:
            entries = dataclasses.replace(entries, vectors=entries.vectors.copy())
        self._upserts.append(entries)
        self._upserted.update(entries.ids)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove entries; an id that the collection does not hold is no error.

        Raises:
            InvalidEntriesError: empty or repeated ids, by row.
            RepeatedIdsError: ids that this batch upserts or deletes already.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        checked = check_ids(ids)
        self._refuse(checked, self._deletes, "deleted twice")
        self._refuse(checked, self._upserted, "both upserted and deleted")
        self._deletes.update(dict.fromkeys(checked))

    def __len__(self) -> int:
        """How many entries it changes so far."""
        return len(self._upserted) + len(self._deletes)

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
            deletes=list(self._deletes),
        )
        changed = len(self)
        # What was gathered may be large, and the job may keep the batch for its commit.
        self._upserts, self._upserted, self._deletes = [], set(), {}
        if error is not None:
            self._outcome.no_commit = f"its block ended by {type(error).__name__}"
        elif not changed:
            self._outcome.no_commit = "nothing was upserted or deleted"
        else:
            self._hand_over(changes, self._outcome)

    def _check_open(self) -> None:
        if self._ended:
            raise BatchClosedError(self.collection)

    def _refuse(self, ids: Sequence[str], taken: set[str] | dict[str, None], said: str) -> None:
        repeated = [name for name in ids if name in taken] if taken else []
        if repeated:
            raise RepeatedIdsError(self.collection, repeated, said=said)
