"""Many writers, one transaction: what comes while a commit runs is committed with the next one.

A commit costs an fsync, whatever is in it. So batches of writers that know nothing of each other
wait in one queue, and a thread commits all that have come, each whole or not at all by itself. A
writer has its outcome as soon as the transaction is durable. What stands is then announced on a
second thread: Redis, slow or away, holds up no writer, and what is not announced is found in the
catalog.

Writers that wait for their answer before they write again come back a moment after a commit, when
the first of them would begin the next one alone. So after a group a commit waits for as many as
there were in it, for half as long as that took at most (as PostgreSQL's ``commit_delay`` does while
others are active): with eight writers there are then eight in a transaction, and not one and seven
in turns. A single writer never waits.

The queue is bounded. Both threads start with the first batch, in the process that hands it over; a
forked child begins with an empty queue and threads of its own.
"""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from indexrelay.producers.batch import Batch, Committer, PendingBatch
from indexrelay.producers.errors import BackPressureError, GroupFullError
from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.storage.catalog import Commit
from indexrelay.storage.entries import Guard
from indexrelay.storage.errors import UnknownCollectionError
from indexrelay.streams.presence import follow_forks

_log = get_logger(__name__)

MAX_TOGETHER: Final = 256
"""Batches of one transaction: beyond that an fsync more is little beside the rest."""
_MOST_ENTRIES: Final = 10_000
"""Entries of one transaction, but for one batch that has more: nobody waits for long."""
_LONGEST_GATHERING_SECONDS: Final = 0.005
"""How long a commit waits for others, at most: a slow disk makes groups large by itself."""
_MOST_UNANNOUNCED: Final = 10_000
"""Commits that wait to be announced while Redis does not answer; more are left to be found."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A batch in the queue, and who waits for its commit."""

    pending: PendingBatch
    size: int
    outcome: "Future[Commit]" = field(default_factory=Future)


class GroupCommit:
    """Commits batches of many writers together; safe to use from several threads.

    Made by `Producer.group_commit`; close it before the producer.
    """

    def __init__(self, committer: Committer, *, max_waiting: int) -> None:
        self._committer = committer
        self._max_waiting = max_waiting
        self._closed = False
        self._declared: dict[str, CollectionSettings] = {}
        """Collections that were found, or made, in the catalog as the settings declare them."""
        self._prepare()
        follow_forks(self)

    def _prepare(self) -> None:
        """Make what belongs to one process."""
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._committed: deque[tuple[Commit, str | None]] = deque()
        self._is_over = False
        self._last_size = 1
        self._last_seconds = 0.0
        self._threads: list[threading.Thread] = []

    def after_fork_in_child(self) -> None:
        """Leave what waits to the parent."""
        self._prepare()

    def __len__(self) -> int:
        """How many batches wait for the next transaction."""
        return len(self._waiting)

    def __bool__(self) -> bool:
        """Always true: an empty queue is a queue (ask ``len(group)``)."""
        return True

    def knows(self, collection: str) -> bool:
        """Whether the catalog is known to have a collection as the settings declare it."""
        return collection in self._declared

    def declare(self, collection: str) -> None:
        """See that the catalog has it, so that `prepared` need not ask; raises as that does."""
        self._declared[collection] = self._committer.declare(collection, own_data=False)

    def prepared(
        self,
        collection: str,
        batch_id: str | None,
        change: Callable[[Batch], None],
        *,
        guard: Guard | None = None,
    ) -> PendingBatch:
        """A batch that is checked and ready for `submit`.

        Args:
            collection: its name in the settings.
            batch_id: as that of `Producer.batch`.
            change: makes its changes, one at least.
            guard: which entries the writer may change, by their payloads; see `BatchChanges.guard`.

        Raises:
            ValueError: nothing was changed.
            Error: what `Producer.batch` and the methods of `Batch` raise.
        """
        declared = self._declared.get(collection)
        gathered: list[PendingBatch] = []
        with self._committer.batch(
            collection, batch_id, traceparent=None, submit=gathered.append, declared=declared
        ) as batch:
            change(batch)
        if declared is None:
            self._declared[collection] = batch.declared
        if not gathered:
            raise ValueError(f"a batch for {collection!r} changes nothing")
        [pending] = gathered
        if guard is None:
            return pending
        changes = dataclasses.replace(pending.changes, guard=guard)
        return dataclasses.replace(pending, changes=changes)

    def submit(self, pending: PendingBatch) -> "Future[Commit]":
        """Have a batch committed with the next transaction; the result is there once it is durable.

        The future raises, beside what the catalog raises, where it is not known whether anything
        was written:
            BatchContentError: other content was committed under its id.
            UnknownEntriesError: a text or payload is set of entries that do not exist.
            GuardedEntriesError: it changes entries that its guard does not accept.
            UnknownCollectionError: the collection was dropped meanwhile; the same again makes it.

        Raises:
            GroupFullError: so many wait already, or this was closed; nothing is written.
        """
        changes = pending.changes
        size = sum(map(len, changes.upserts)) + len(changes.deletes) + len(changes.payloads)
        waiting = _Waiting(pending=pending, size=size)
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_waiting:
                raise GroupFullError(self._max_waiting, closed=self._closed)
            self._waiting.append(waiting)
            if not self._threads:
                self._start()
            self._changed.notify_all()
        return waiting.outcome

    def close(self) -> None:
        """Take no more, commit and announce what waits, and end the threads; safe twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for body, what in ((self._commit_all, "commits"), (self._announce_all, "announcements")):
            thread = SupervisedThread(body, name=f"indexrelay-group-{what}", wait=_at_once)
            self._threads.append(thread)
            thread.start()

    def _commit_all(self) -> None:
        """The thread that commits."""
        while group := self._next_group():
            self._commit(group)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _next_group(self) -> list[_Waiting]:
        """What is to be committed together; nothing: this was closed, and nothing waits."""
        group: list[_Waiting] = []
        size = 0
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._last_size > 1:
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self._last_size or self._closed,
                    min(self._last_seconds / 2, _LONGEST_GATHERING_SECONDS),
                )
            while self._waiting and len(group) < MAX_TOGETHER:
                if group and size + self._waiting[0].size > _MOST_ENTRIES:
                    break
                group.append(self._waiting.popleft())
                size += group[-1].size
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        """Commit what nobody has given up meanwhile."""
        group = [each for each in group if each.outcome.set_running_or_notify_cancel()]
        if group:
            self._commit_running(group)

    def _commit_running(self, group: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        try:
            outcomes = self._committer.commit_each([each.pending for each in group])
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            parts: dict[str, list[_Waiting]] = {}
            for each in group:
                parts.setdefault(each.pending.changes.collection, []).append(each)
            if len(parts) > 1:  # one may be locked by a job; what was written is not written twice
                for part in parts.values():
                    self._commit_running(part)
                return
            for each in group:
                each.outcome.set_exception(error)
            return
        self._last_size, self._last_seconds = len(group), time.monotonic() - began
        commits: list[tuple[Commit, str | None]] = []
        for each, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Commit):
                commits.append((outcome, each.pending.traceparent))
                each.outcome.set_result(outcome)
                continue
            if isinstance(outcome, UnknownCollectionError):
                self._declared.pop(each.pending.changes.collection, None)
            each.outcome.set_exception(outcome)
        with self._changed:
            room = _MOST_UNANNOUNCED - len(self._committed)
            self._committed.extend(commits[:room])
            self._changed.notify_all()

    def _announce_all(self) -> None:
        """The thread that announces, however many commits there are by then at once."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._committed or self._is_over)
                if not self._committed:
                    return
                some = [self._committed.popleft() for _ in range(len(self._committed))]
            try:
                self._committer.announce([each for each, _ in some], [each for _, each in some])
            except BackPressureError as error:
                _log.warning("group.not_announced", commits=len(some), error=str(error))


def _at_once(_seconds: float) -> bool:
    """Let a thread go on after an error that nobody expected; it has been logged."""
    return False
