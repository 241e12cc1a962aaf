"""What a monitoring system reads of a reader: queries, releases, components and memory.

Counting is done by hand, in a microsecond for each query: three additions under a lock. The library
of Prometheus writes the page, when it is asked for; what is not counted is looked up only then.
docs/metrics.md lists all of it.

Where several workers answer at one address, whichever is asked gives the page of all of them:
counters and histograms are sums, and of the gauges each is put together as its meaning wants.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import ReaderState
from indexrelay.service.queries import Observation

if TYPE_CHECKING:  # most readers have no other workers
    from indexrelay.service.workers import WorkerPlace

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    10.0,
)
"""Seconds: from a search of a graph to one of a scan over everything."""
_STATUS: Final = Path("/proc/self/status")
Samples: TypeAlias = tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]
"""Of one family of metrics: the name, the labels and the value of each."""


@dataclass(slots=True)
class _Durations:
    """How long queries took: how many fell into each bucket, and their sum."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def copied(self) -> tuple[list[tuple[str, float]], float]:
        """As the library takes them: so many up to each bound, and their sum."""
        counted = zip((*map(str, BUCKETS), "+Inf"), accumulate(self.buckets), strict=True)
        return list(counted), self.seconds


class QueryCounts:
    """Counts queries; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._answered: dict[tuple[str, str], _Durations] = {}

    def observe(self, observation: Observation) -> None:
        """Count one query."""
        component, operation = observation.component, observation.operation
        with self._lock:
            self._ended[component, operation, observation.outcome] += 1
            if observation.outcome == "answered":
                found = self._answered.get((component, operation))
                if found is None:
                    found = self._answered[component, operation] = _Durations()
                found.add(observation.seconds)

    def families(self) -> Iterator[Metric]:
        """What was counted."""
        ended = CounterMetricFamily(
            "indexrelay_queries",
            "Queries over HTTP that ended, by how they did.",
            labels=["component", "operation", "outcome"],
        )
        durations = HistogramMetricFamily(
            "indexrelay_index_search_latency_seconds",
            "Seconds that queries took which were answered, without waiting for a thread.",
            labels=["component", "operation"],
        )
        with self._lock:  # the event loop counts, too, and is not to wait for a page
            counts = dict(self._ended)
            answered = {labels: found.copied() for labels, found in self._answered.items()}
        for ended_by, count in counts.items():
            ended.add_metric(ended_by, count)
        for labels, (buckets, seconds) in answered.items():
            durations.add_metric(labels, buckets, seconds)
        yield ended
        yield durations


WriteOutcome: TypeAlias = Literal["written", "repeated", "refused", "overloaded", "failed"]


class WriteCounts:
    """Counts writes over HTTP; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._durable: dict[str, _Durations] = {}

    def observe(
        self, collection: str, operation: str, outcome: WriteOutcome, seconds: float
    ) -> None:
        """Count one write.

        Args:
            collection: its name; empty where the settings declare none of that name.
            operation: what it does.
            outcome: how it ended.
            seconds: until it was durable, or refused.
        """
        with self._lock:
            self._ended[collection, operation, outcome] += 1
            if outcome == "written":
                self._durable.setdefault(collection, _Durations()).add(seconds)

    def families(self) -> Iterator[Metric]:
        """What was counted."""
        ended = CounterMetricFamily(
            "indexrelay_writes",
            "Writes over HTTP that ended, by how they did.",
            labels=["collection", "operation", "outcome"],
        )
        durable = HistogramMetricFamily(
            "indexrelay_write_seconds",
            "Seconds from a write's header until it was durable.",
            labels=["collection"],
        )
        with self._lock:
            counts = dict(self._ended)
            durations = {each: found.copied() for each, found in self._durable.items()}
        for labels, count in counts.items():
            ended.add_metric(labels, count)
        for collection, (buckets, seconds) in durations.items():
            durable.add_metric([collection], buckets, seconds)
        yield ended
        yield durable


_SUMMED: Final = frozenset({"counter", "histogram"})
"""The types of what only grows: it counts for good, also of a worker that is gone."""
_OF_WORKERS: Final[Mapping[str, Callable[[Iterable[float]], float]]] = {
    "indexrelay_workers": sum,
    "indexrelay_queries_in_progress": sum,
    "indexrelay_newest_release": max,
    "indexrelay_problems": max,
    "indexrelay_component_load_failed": max,
    "indexrelay_reload_duration_seconds": max,
    "indexrelay_mapped_bytes": max,
    "indexrelay_resident_bytes": sum,
}
"""What a gauge of all workers is; every other one is the least of them, so that it shows the worker
that is furthest behind."""
_SHARED: Final = ("of", "files")
"""Pages that all of them have in memory once."""
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class MetricsPage(Collector):
    """Everything on the page, at the moment when it is written."""

    def __init__(
        self,
        reloader: Reloader,
        counts: QueryCounts,
        writes: WriteCounts,
        in_progress: Callable[[], int],
        place: "WorkerPlace | None" = None,
    ) -> None:
        """Nothing is counted here.

        Args:
            reloader: whose state is shown.
            counts: of queries.
            writes: of writes.
            in_progress: gives how many queries run, or wait for a thread.
            place: among the workers of one address; ``None``: this process is the only one.
        """
        self._reloader = reloader
        self._counts = counts
        self._writes = writes
        self._in_progress = in_progress
        self._place = place

    def to_bytes(self) -> bytes:
        """The page, in the text format of Prometheus.

        Raises:
            ReloaderStoppedError: the reader was stopped.
        """
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each family of metrics."""
        if self._place is None:
            yield from self._own()
            return
        own = self.post(self._place)
        notes = self._place.others()
        for family in own:
            counts_for_good = family.type in _SUMMED
            others = [
                note.families.get(family.name, ())
                for note, lives in notes
                if lives or counts_for_good
            ]
            yield _combined(family, others)

    def post(self, place: "WorkerPlace") -> list[Metric]:
        """Write down for the other workers what this one has counted, and return it."""
        own: list[Metric] = []

        def gather() -> tuple[bool, Mapping[str, Samples]]:
            for family in self._own():
                before = place.counted.get(family.name, ()) if family.type in _SUMMED else ()
                own.append(_combined(family, [before]))
            return self._reloader.ready, {each.name: _samples_of(each) for each in own}

        place.post(gather)
        return own

    def _own(self) -> Iterator[Metric]:
        """What this process has to say."""
        yield from self._counts.families()
        yield _gauge(
            "indexrelay_queries_in_progress",
            "Queries that run, or wait for a thread.",
            self._in_progress(),
        )
        yield from self._writes.families()
        yield _gauge("indexrelay_workers", "Processes that answer at this address.", 1)
        replaces = self._place is not None and self._place.replaces_another
        yield CounterMetricFamily(
            "indexrelay_worker_restarts",
            "Workers that took the place of one that had ended.",
            value=replaces,
        )
        state = self._reloader.state
        yield from self._releases(state)
        yield from self._components(state)
        yield from _memory()

    def _releases(self, state: ReaderState) -> Iterator[Metric]:
        yield _gauge("indexrelay_ready", "1 where every required component is served.", state.ready)
        yield _gauge(
            "indexrelay_release", "The newest release that was worked through.", state.release
        )
        yield _gauge(
            "indexrelay_newest_release",
            "The newest release in the artifacts, as of the last look.",
            self._reloader.newest_release,
        )
        problems = GaugeMetricFamily(
            "indexrelay_problems", "What keeps this reader from being well.", labels=["code"]
        )
        for code, count in Counter(str(each.code) for each in self._reloader.problems).items():
            problems.add_metric([code], count)
        yield problems

    def _components(self, state: ReaderState) -> Iterator[Metric]:
        label = ["component"]
        entries = GaugeMetricFamily(
            "indexrelay_component_entries", "Entries of what is served.", labels=label
        )
        size = GaugeMetricFamily(
            "indexrelay_component_bytes", "Bytes of the files of what is served.", labels=label
        )
        created = GaugeMetricFamily(
            "indexrelay_component_created_timestamp_seconds",
            "When what is served was built.",
            labels=label,
        )
        generation = GaugeMetricFamily(
            "indexrelay_component_generation",
            "The generation of a collection that what is served contains.",
            labels=["component", "collection"],
        )
        failed = GaugeMetricFamily(
            "indexrelay_component_load_failed", "1 where the last load failed.", labels=label
        )
        took = GaugeMetricFamily(
            "indexrelay_reload_duration_seconds",
            "Seconds that loading what is served took, by how the last release ended for it.",
            labels=["component", "outcome"],
        )
        blobs: dict[str, int] = {}
        with self._reloader.acquire() as snapshot:
            for name in sorted(snapshot):
                manifest = snapshot.manifest(name)
                entries.add_metric([name], manifest.entries)
                size.add_metric([name], manifest.size)
                created.add_metric([name], manifest.created_at.timestamp())
                for collection, covered in manifest.covers.items():
                    generation.add_metric([name, collection], covered)
                blobs |= {blob.digest: blob.size for blob in manifest.files.values()}
        for name, loaded in state.components.items():
            failed.add_metric([name], loaded.error is not None)
            if loaded.version is not None:
                took.add_metric([name, str(loaded.outcome)], loaded.seconds)
        yield from (entries, size, created, generation, failed, took)
        yield _gauge(
            "indexrelay_mapped_bytes",
            "Bytes of the files of all that is served, each once; they are shared by the readers "
            "of a host.",
            sum(blobs.values()),
        )


def _memory() -> Iterator[Metric]:
    """What the process has in memory; nothing where the system does not tell."""
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    fields = dict(line.partition(":")[::2] for line in text.splitlines())
    found = {name: _kilobytes(fields.get(name, "")) for name in ("RssAnon", "RssFile", "RssShmem")}
    resident = GaugeMetricFamily(
        "indexrelay_resident_bytes",
        "Bytes of the process that are in memory: its own, and those of mapped files.",
        labels=["of"],
    )
    resident.add_metric(["process"], found["RssAnon"])
    resident.add_metric(["files"], found["RssFile"] + found["RssShmem"])
    yield resident


def _kilobytes(text: str) -> int:
    number = text.split()[:1]
    return 1024 * int(number[0]) if number and number[0].isdigit() else 0


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _combined(family: Metric, others: Iterable[Samples]) -> Metric:
    """A family with what other workers have of it."""
    how = sum if family.type in _SUMMED else _OF_WORKERS.get(family.name, min)
    values: dict[_Key, list[float]] = {}
    for name, labels, value in (*_samples_of(family), *(each for some in others for each in some)):
        values.setdefault((name, labels), []).append(value)
    combined = Metric(family.name, family.documentation, family.type)
    for (name, labels), given in values.items():
        combined.add_sample(name, dict(labels), max(given) if _SHARED in labels else how(given))
    return combined


def counted_for_good(families: Mapping[str, Samples]) -> dict[str, Samples]:
    """The counters and histograms among families, which a gauge is told from by its samples: they
    are called as the family is."""
    return {
        family: samples
        for family, samples in families.items()
        if all(name != family for name, _, _ in samples)
    }


def _samples_of(family: Metric) -> Samples:
    return tuple((each.name, tuple(each.labels.items()), each.value) for each in family.samples)
