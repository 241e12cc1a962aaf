"""Several batches in one transaction: for jobs with many small ones.

A commit costs an fsync, and an event a round trip; a job that analyses songs one by one would pay
both for each. Here every batch keeps its own id, generation and event, but all of them are written
in one transaction and announced in one round trip, when the outer block ends. What they have
gathered is in memory until then.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from indexrelay.producers.batch import Batch, HandsOver
from indexrelay.producers.errors import BatchClosedError
from indexrelay.producers.outcome import Handed, Outcome
from indexrelay.producers.tracing import check_traceparent
from indexrelay.storage.catalog import BatchChanges, Commit
from indexrelay.storage.catalog.commits import check_batch_id

OpensBatch = Callable[[str, str | None, HandsOver], Batch]
"""Makes a batch of a collection, under the id or one that is drawn; raises as `Producer.batch`."""
Marks = Callable[[str], object]
"""Sees that a collection is one whose job keeps its own data; raises as `batch_completed`."""
CommitsAll = Callable[[Sequence[Handed]], bool]
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
        self._handed: list[Handed] = []
        self._gathering = threading.Lock()
        self._done: tuple[Handed, ...] = ()
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

        def hand_over(changes: BatchChanges, outcome: Outcome) -> None:
            outcome.no_commit = "the block of its batches has not ended"
            self._gather(Handed(changes=changes, outcome=outcome, traceparent=traceparent))

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
        self._gather(Handed(changes=changes, outcome=Outcome(), traceparent=traceparent))

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

    def _gather(self, handed: Handed) -> None:
        with self._gathering:
            if self._ended:
                raise BatchClosedError(handed.changes.collection)
            self._handed.append(handed)


def _told(changes: BatchChanges) -> BatchChanges:
    """What is kept of changes that were handed on: they may be large."""
    return BatchChanges(collection=changes.collection, batch_id=changes.batch_id)
