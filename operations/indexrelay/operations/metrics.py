"""The metrics of an installation: their names, and their values at one look.

`METRICS` lists them, and docs/metrics.md is held to it. A role that has a port writes all of them
(`page_of`), and alerts are rules over the same samples (`samples_of`). Every value is one of the
whole installation: where several processes write them, take the greatest, not the sum. On the page
each has the label ``namespace`` besides, whose installation it is. What one
reader does it counts itself (`indexrelay.service.metrics`).

Labels are names that the settings declare and words that are listed here: what somebody writes into
Redis makes no series.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from indexrelay.health.facts import Area
from indexrelay.health.status import Condition, Severity
from indexrelay.operations.observer import (
    DURATION_BUCKETS,
    READER_CONDITIONS,
    Observation,
    reader_condition,
)
from indexrelay.schemas.errors import missing_extra

try:
    from prometheus_client import generate_latest
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
RECALL_CHECK: Final = "recall_at_10"
"""The gate whose figure is the recall of an index."""
PROBLEMS: Final = "indexrelay_verdict_problems"
"""The metric that has series only for what is not well."""
BACKUP_DUE: Final = "indexrelay_backup_due_timestamp_seconds"
"""So has this one."""
Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, in the order of the metric's labels."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One family of series."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    text: str
    """What it is, in a sentence; its unit is in its name."""


@dataclass(frozen=True)
class Sample:
    """One value of one series, at one look."""

    name: str
    labels: Labels
    value: float


def _listed(*metrics: Metric) -> Mapping[str, Metric]:
    return {each.name: each for each in metrics}


METRICS: Final = _listed(
    Metric(
        name="indexrelay_rebuild_total",
        kind="counter",
        labels=("status", "trigger"),
        text="Rebuilds that ended since this process started.",
    ),
    Metric(
        name="indexrelay_rebuild_duration_seconds",
        kind="histogram",
        labels=("status",),
        text="Seconds that those rebuilds took.",
    ),
    Metric(
        name="indexrelay_rebuild_success_ratio",
        kind="gauge",
        text="The share of the rebuilds of the last 24 hours that succeeded whole.",
    ),
    Metric(
        name="indexrelay_rebuild_consecutive_failures",
        kind="gauge",
        labels=("component",),
        text="Failed builds in a row, since it was built last.",
    ),
    Metric(
        name="indexrelay_rebuild_last_success_timestamp_seconds",
        kind="gauge",
        labels=("component",),
        text="When what is released was built.",
    ),
    Metric(
        name="indexrelay_index_build_seconds",
        kind="gauge",
        labels=("component",),
        text="Seconds that building what is released took, its gates included.",
    ),
    Metric(
        name="indexrelay_build_peak_memory_bytes",
        kind="gauge",
        labels=("component",),
        text="The most that the process of its last build had in memory, mapped files included.",
    ),
    Metric(
        name="indexrelay_build_cpu_seconds",
        kind="gauge",
        labels=("component",),
        text="Processor seconds that its last build took, its gates included.",
    ),
    Metric(
        name="indexrelay_index_entries",
        kind="gauge",
        labels=("component",),
        text="Entries of what is released.",
    ),
    Metric(
        name="indexrelay_index_bytes",
        kind="gauge",
        labels=("component",),
        text="Bytes of the files of what is released.",
    ),
    Metric(
        name="indexrelay_index_recall",
        kind="gauge",
        labels=("component",),
        text="Recall at 10 of what is released, as its gate measured it against exact search.",
    ),
    Metric(
        name="indexrelay_index_tombstone_ratio",
        kind="gauge",
        labels=("component",),
        text="The share of a base that is deleted or replaced.",
    ),
    Metric(
        name="indexrelay_index_condition",
        kind="gauge",
        labels=("component", "condition"),
        text="1 for the condition that a component is in, and 0 for the others.",
    ),
    Metric(
        name="indexrelay_freshness_seconds",
        kind="gauge",
        labels=("component",),
        text="The age of the oldest commit that some reader does not serve; 0 where there is none.",
    ),
    Metric(
        name="indexrelay_readers",
        kind="gauge",
        labels=("state",),
        text="Readers that are present, by the first of these states that is true of them.",
    ),
    Metric(
        name="indexrelay_rebuilders",
        kind="gauge",
        text="Rebuilders that are present.",
    ),
    Metric(
        name="indexrelay_events_backlog",
        kind="gauge",
        text="Events that no rebuilder took or acknowledged yet.",
    ),
    Metric(
        name="indexrelay_dead_letters",
        kind="gauge",
        text="Events that could not be read, and were neither retried nor dropped.",
    ),
    Metric(
        name="indexrelay_latest_release",
        kind="gauge",
        text="The newest release in the artifacts.",
    ),
    Metric(
        name=PROBLEMS,
        kind="gauge",
        labels=("code", "severity"),
        text="What is not well, by the judge of `status`.",
    ),
    Metric(
        name="indexrelay_disk_free_ratio",
        kind="gauge",
        labels=("place",),
        text="The share of the volume that is free.",
    ),
    Metric(
        name="indexrelay_disk_free_bytes",
        kind="gauge",
        labels=("place",),
        text="Bytes of the volume that are free.",
    ),
    Metric(
        name="indexrelay_backup_last_success_timestamp_seconds",
        kind="gauge",
        text="When the newest backup was made; absent where there is none.",
    ),
    Metric(
        name=BACKUP_DUE,
        kind="gauge",
        text="The first slot that no backup followed; absent where there is none.",
    ),
    Metric(
        name="indexrelay_last_look_timestamp_seconds",
        kind="gauge",
        text="When all of this was looked at.",
    ),
)
"""By name, in the order of the page."""


def samples_of(seen: Observation) -> Iterator[Sample]:
    """Every value of one look but those of histograms; what is not known is absent."""
    rebuilds = seen.rebuilds
    for (status, trigger), count in sorted(rebuilds.ended.items()):
        labels = (("status", status), ("trigger", trigger))
        yield Sample("indexrelay_rebuild_total", labels, count)
    if rebuilds.success_ratio is not None:
        yield Sample("indexrelay_rebuild_success_ratio", (), rebuilds.success_ratio)
    yield from _of_components(seen)
    yield from _of_releases(seen)
    yield from _of_processes(seen)
    yield from _of_places(seen)
    yield Sample("indexrelay_last_look_timestamp_seconds", (), seen.at.timestamp())


def _of_components(seen: Observation) -> Iterator[Sample]:
    unknown = seen.facts.unknown
    for name, health in seen.verdict.components.items():
        label = ("component", name)
        for condition in () if {Area.CATALOG, Area.ARTIFACTS} & unknown.keys() else Condition:
            labels = (label, ("condition", str(condition)))
            here = float(health.condition is condition)
            yield Sample("indexrelay_index_condition", labels, here)
        of = (label,)
        if Area.CATALOG not in unknown:
            yield Sample("indexrelay_rebuild_consecutive_failures", of, health.failures)
        if health.tombstones is not None:
            yield Sample("indexrelay_index_tombstone_ratio", of, health.tombstones.share)
    for name, built in seen.builds.items():
        of = (("component", name),)
        if built.peak_memory_bytes:
            peak = built.peak_memory_bytes
            yield Sample("indexrelay_build_peak_memory_bytes", of, peak)
        if built.cpu_seconds:
            yield Sample("indexrelay_build_cpu_seconds", of, built.cpu_seconds)
    for name, seconds in seen.freshness.items():
        yield Sample("indexrelay_freshness_seconds", (("component", name),), seconds)


def _of_releases(seen: Observation) -> Iterator[Sample]:
    for name, manifest in seen.facts.versions.items():
        if name not in seen.facts.definitions:
            continue
        of = (("component", name),)
        built = manifest.created_at.timestamp()
        yield Sample("indexrelay_rebuild_last_success_timestamp_seconds", of, built)
        took = manifest.build_seconds + manifest.verify_seconds
        yield Sample("indexrelay_index_build_seconds", of, took)
        yield Sample("indexrelay_index_entries", of, manifest.entries)
        yield Sample("indexrelay_index_bytes", of, manifest.size)
        for check in manifest.checks:
            if check.name == RECALL_CHECK and check.measured is not None:
                yield Sample("indexrelay_index_recall", of, check.measured)
    if Area.ARTIFACTS not in seen.facts.unknown:
        yield Sample("indexrelay_latest_release", (), seen.verdict.release)


def _of_processes(seen: Observation) -> Iterator[Sample]:
    redis = seen.facts.redis
    if redis is not None:
        states = [
            reader_condition(member, state, seen.facts)
            for member, state in seen.verdict.readers.items()
        ]
        for each in READER_CONDITIONS:
            yield Sample("indexrelay_readers", (("state", each),), states.count(each))
        yield Sample("indexrelay_rebuilders", (), len(seen.verdict.rebuilders))
        backlog = sum(each.count for each in redis.untaken)
        yield Sample("indexrelay_events_backlog", (), backlog)
    if Area.CATALOG not in seen.facts.unknown:
        yield Sample("indexrelay_dead_letters", (), seen.verdict.dead_letters)
    counts: dict[tuple[str, Severity], int] = {}
    for problem in seen.verdict.problems:
        found = (str(problem.code), problem.severity)
        counts[found] = counts.get(found, 0) + 1
    for (code, severity), count in sorted(counts.items()):
        labels = (("code", code), ("severity", str(severity)))
        yield Sample(PROBLEMS, labels, count)


def _of_places(seen: Observation) -> Iterator[Sample]:
    for place, space in seen.disks.items():
        of = (("place", place),)
        yield Sample("indexrelay_disk_free_ratio", of, space.free / max(space.total, 1))
        yield Sample("indexrelay_disk_free_bytes", of, space.free)
    if seen.backup_at is not None:
        at = seen.backup_at.timestamp()
        yield Sample("indexrelay_backup_last_success_timestamp_seconds", (), at)
    if seen.backup_due_at is not None:
        at = seen.backup_due_at.timestamp()
        yield Sample(BACKUP_DUE, (), at)


def page_of(seen: Observation) -> bytes:
    """The page ``/metrics``, in the text format of Prometheus."""
    return generate_latest(_Page(seen))


class _Page(Collector):
    """What the library writes a page of."""

    def __init__(self, seen: Observation) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Family]:
        """Yield each family, in the order of `METRICS`."""
        families = {name: _family(each) for name, each in METRICS.items()}
        ours = {"namespace": self._seen.namespace}
        for sample in samples_of(self._seen):
            labels = {**ours, **dict(sample.labels)}
            families[sample.name].add_sample(sample.name, labels, sample.value)
        durations = families["indexrelay_rebuild_duration_seconds"]
        rebuilds = self._seen.rebuilds
        bounds = (*map(str, DURATION_BUCKETS), "+Inf")
        for status, buckets in sorted(rebuilds.buckets.items()):
            of = {**ours, "status": status}
            for bound, count in zip(bounds, accumulate(buckets), strict=True):
                durations.add_sample(f"{durations.name}_bucket", {**of, "le": bound}, count)
            durations.add_sample(f"{durations.name}_count", of, sum(buckets))
            durations.add_sample(f"{durations.name}_sum", of, rebuilds.seconds[status])
        yield from families.values()


def _family(metric: Metric) -> Family:
    # The library's names of counters have no ending; that of the samples is what is read.
    return Family(metric.name.removesuffix("_total"), metric.text, metric.kind)
