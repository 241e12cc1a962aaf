"""The demo's analysis job: embed a batch, commit it, wait until every reader serves it.

It starts a rebuilder and readers, and measures. The pipeline's *own share* of a batch's time is
neither the quiet wait nor build nor verification: events, bookkeeping, leases, child processes,
release, reload and report. Builds run side by side, so the union of their times is subtracted.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

from indexrelay.console.demo.corpus import PlannedBatch
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.demo.report import BatchReport
from indexrelay.console.demo.settings import COLLECTION, COMPONENTS
from indexrelay.console.errors import CommandError, ProcessEndedError
from indexrelay.console.installation import Installation, signals_of
from indexrelay.console.processes import (
    Child,
    RoleSettings,
    admin_child,
    free_port,
    reader_child,
    rebuilder_child,
    socket_folder,
    stop_together,
)
from indexrelay.producers.errors import NotServedError
from indexrelay.producers.producer import Producer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import (
    BuildOutcome,
    Event,
    RebuildFinished,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.versions import made_from
from indexrelay.storage.catalog import Commit
from indexrelay.streams.consumer import Delivery, Tail

_SERVED_SECONDS: Final = 120.0
_RESULT_SECONDS: Final = 10.0
"""A result goes out with its release, so it is nearly always there before the readers are."""
_COUNT: Final = 1000
_START_SECONDS: Final = 60.0
"""Importing FAISS in several processes at once takes a while on a small machine."""
_LOOK_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 10.0


class Job:
    """Runs one planned batch after the other."""

    def __init__(
        self,
        installation: Installation,
        *,
        embedding: Embedding,
        clock: Clock,
        children: Sequence[Child],
        readers: int,
        fail: str | None,
        marker: Path,
    ) -> None:
        self.batches: list[BatchReport] = []
        self.results: list[RebuildResult] = []
        self.without_vector: set[str] = set()
        """Ids of entries whose text has no vector."""
        self._embedding = embedding
        self._clock = clock
        self._children = children
        self._readers = readers
        self._fail = fail
        self._marker = marker
        self._producer = Producer(
            installation.settings,
            catalog=installation.catalog,
            connection=installation.connection,
            clock=clock,
            wait=self._pause,
        )
        self._tail = Tail(installation.connection, installation.keys.results)
        self._tail.read(count=_COUNT, block_seconds=0)  # from here on
        self._lost = (
            frozenset()
            if fail is None
            else {fail} | made_from(fail, installation.settings.components)
        )

    def run(self, planned: PlannedBatch, *, failing: bool) -> str:
        """Hand over one batch, and wait until it is served; returns the lines that report it.

        Raises:
            NotServedError: it was not served, or a component failed that was not meant to.
            ProcessEndedError: a reader or the rebuilder died.
        """
        if failing:
            self._marker.touch()
        try:
            commit, seconds, release = self._served(planned, failing=failing)
        finally:
            self._marker.unlink(missing_ok=True)
        mine = self._results_of(commit)
        self.batches.append(
            BatchReport(
                batch_id=commit.batch_id,
                generation=commit.generation,
                upserts=commit.upserts,
                deletes=commit.deletes,
                status=_worst(mine),
                event_to_served_seconds=seconds,
                own_share_seconds=own_share(seconds, mine),
                release=release,
            )
        )
        summary = (
            f"{commit.batch_id}: {commit.upserts:,} upserts, {commit.deletes:,} deletes, "
            f"served by {self._readers} reader(s) after {seconds:.2f} s"
        )
        return "\n  ".join([summary, *(line for result in mine for line in _failure_lines(result))])

    def _served(self, planned: PlannedBatch, *, failing: bool) -> tuple[Commit, float, int]:
        with self._producer.batch(COLLECTION, planned.batch_id) as batch:
            vectors, known = self._embedding([each.searched for each in planned.upserts])
            kept = [each for each, has in zip(planned.upserts, known, strict=True) if has]
            batch.upsert(
                [each.id for each in kept],
                vectors[known],
                texts=[each.searched for each in kept],
                payloads=[
                    {"place": each.place, "kind": each.kind, "summary": each.summary}
                    for each in kept
                ],
            )
            # An entry that lost its vector with its new text would otherwise keep the old one.
            lost = [each.id for each, has in zip(planned.upserts, known, strict=True) if not has]
            self.without_vector.update(lost)
            batch.delete([*planned.deletes, *lost])
        began = self._clock.monotonic()
        components = set(COMPONENTS)
        if failing:
            try:
                self._wait(batch.commit, components)
            except NotServedError as error:
                if set(error.failures) != {self._fail}:
                    raise
            # The others are served all the same; the failed one keeps its last good version.
            components -= self._lost
        served = self._wait(batch.commit, components)
        return batch.commit, self._clock.monotonic() - began, served

    def _wait(self, commit: Commit, components: set[str]) -> int:
        return self._producer.wait_served(
            commit,
            timeout_seconds=_SERVED_SECONDS,
            readers=self._readers,
            components=components,
        ).release

    def _results_of(self, commit: Commit) -> list[RebuildResult]:
        """The rebuilds that covered a batch; waits for the first of them."""
        deadline = self._clock.monotonic() + _RESULT_SECONDS
        while True:
            self.results += results_in(self._tail.read(count=_COUNT, block_seconds=0).deliveries)
            mine = [each for each in self.results if commit.batch_id in each.batch_ids]
            if mine or self._clock.monotonic() > deadline:
                return mine
            self._pause(0.01)

    def _pause(self, seconds: float) -> None:
        """Between two looks; a child that died would otherwise be waited for in vain."""
        check_running(self._children)
        time.sleep(seconds)


def started(
    installation: Installation,
    *,
    config: Path,
    environ: Mapping[str, str],
    readers: int,
    stack: ExitStack,
) -> Sequence[Child]:
    """Start a rebuilder and readers; ``stack`` stops them in the reverse order.

    Raises:
        ProcessEndedError: one of them ended.
        CommandError: one of them did not report in time.
    """
    data_dir = installation.settings.data_dir
    shared = RoleSettings(config=config, environ=environ, logs=data_dir / "logs")
    sockets = socket_folder(data_dir)
    if data_dir not in sockets.parents:
        stack.callback(rmtree, sockets, ignore_errors=True)
    rebuilder = rebuilder_child(shared)
    serving = [
        reader_child(shared, f"reader-{number}", socket=sockets / f"reader-{number}.sock")
        for number in range(1, readers + 1)
    ]
    stack.callback(stop_together, [rebuilder], grace_seconds=_GRACE_SECONDS)
    stack.callback(stop_together, serving, grace_seconds=_GRACE_SECONDS)
    children = [rebuilder, *serving]
    for child in children:
        child.start()
    _await_presence(installation, children, readers=readers)
    return children


@dataclass(frozen=True, kw_only=True)
class AdminPage:
    """The process of the admin page, and where it is."""

    child: Child
    address: str


def admin_started(
    installation: Installation, *, config: Path, environ: Mapping[str, str], stack: ExitStack
) -> AdminPage:
    """Serve the admin page on a free port of this machine; ``stack`` stops it.

    Raises:
        ProcessEndedError: it ended.
        CommandError: it did not answer in time.
    """
    settings = installation.settings
    shared = RoleSettings(config=config, environ=environ, logs=settings.data_dir / "logs")
    host = settings.admin.host
    port = free_port(host, settings.admin.port)
    child = admin_child(shared, port=port)
    stack.callback(child.stop, grace_seconds=_GRACE_SECONDS)
    child.start()
    deadline = time.monotonic() + _START_SECONDS
    while True:
        check_running([child])
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return AdminPage(child=child, address=f"http://{host}:{port}")
        if time.monotonic() >= deadline:
            raise CommandError(f"the admin page did not answer in time; its log: {child.tail()}")
        time.sleep(_LOOK_SECONDS)


def check_running(children: Sequence[Child]) -> None:
    """Notice a child that ended.

    Raises:
        ProcessEndedError: with the end of its log.
    """
    for child in children:
        code = child.exit_code
        if code is not None:
            raise ProcessEndedError(child.name, code=code, tail=child.tail())


def own_share(event_to_served: float, results: Iterable[RebuildResult]) -> float:
    """Seconds of one batch that were the pipeline's own.

    Args:
        event_to_served: seconds from the event to the last reader.
        results: the rebuilds that covered the batch.
    """
    spent = []
    for result in results:
        if result.woken_at is not None:
            spent.append((result.woken_at.timestamp(), result.started_at.timestamp()))
        for component in result.components.values():
            if component.started_at is not None:
                start = component.started_at.timestamp()
                spent.append((start, start + component.seconds))
    return max(0.0, event_to_served - covered_seconds(spent))


def covered_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def results_in(deliveries: Sequence[Delivery]) -> list[RebuildResult]:
    """The results among what was read from the results stream, in their order."""
    found = []
    for delivery in deliveries:
        if delivery.raw is None:
            continue
        try:
            data = Event.from_bytes(delivery.raw).data
        except UnreadableEventError:
            continue  # a rebuilder of another major version; it is not ours to bury
        if isinstance(data, RebuildFinished):
            found.append(RebuildResult.model_validate(data.model_dump()))
    return found


def _await_presence(installation: Installation, children: Sequence[Child], *, readers: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        check_running(children)
        signals = signals_of(installation)
        if len(signals.readers) == readers and signals.rebuilders:
            return
        if time.monotonic() > deadline:
            states = (*signals.readers.values(), *signals.rebuilders.values())
            there = ", ".join(sorted(state.label for state in states)) or "no process"
            raise CommandError(
                f"after {_START_SECONDS:.0f} s only {there} had reported; "
                f"the logs are in {installation.settings.data_dir / 'logs'} (keep them with --data)"
            )
        time.sleep(_LOOK_SECONDS)


def _failure_lines(result: RebuildResult) -> Iterator[str]:
    """What went wrong in a rebuild, and what is served instead."""
    if result.status is RebuildStatus.SUCCESS:
        return
    yield f"{result.status}: {result.message}"
    for name, component in result.components.items():
        if component.outcome is not BuildOutcome.REBUILT:
            served = max(component.covers.values(), default=0)
            yield (
                f"{component.outcome} {name}: {component.error}; "
                f"its last good version still serves, at generation {served}"
            )


def _worst(results: Sequence[RebuildResult]) -> RebuildStatus:
    statuses = {result.status for result in results}
    order = (RebuildStatus.FAILURE, RebuildStatus.PARTIAL_SUCCESS)
    return next((status for status in order if status in statuses), RebuildStatus.SUCCESS)
