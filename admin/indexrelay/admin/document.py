"""The state document: everything that the page's first view and its tables show, at one look.

It is made from one `Observation` (the facts and the judge's verdict) and from what is remembered of
the looks before: since when something is not well, which readers were there, when a component was
last rebuilt. It says nothing that the judge does not say; it counts and lays out.

`last_rebuild_at` and `entries_at_rebuild` of a component are those of the newest version that any
kept release names, by the artifacts: Redis may be wiped, this process started again, or the
component rolled back, and they stay; a failed build changes neither.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from indexrelay.admin.sightings import LastRebuild, Sightings
from indexrelay.health.status import (
    Code,
    ComponentHealth,
    Decision,
    Problem,
    Severity,
    Verdict,
)
from indexrelay.operations.alerts import described
from indexrelay.operations.monitor import Look
from indexrelay.operations.observer import Observation, reader_condition
from indexrelay.schemas.gates import LATENCY, LATENCY_P99, RECALL
from indexrelay.schemas.messages import (
    ComponentState,
    LoadOutcome,
    ReaderState,
    RebuilderState,
    RebuildRequested,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.names import shortened
from indexrelay.schemas.progress import BuildStep
from indexrelay.schemas.versions import Release, VersionManifest, root_collections

SHORT: Final = 200
"""Characters of an id or a word that somebody else gave."""
MOST_READERS: Final = 1000
"""Readers that the document names; the rest is counted."""
MOST_CELLS: Final = 20_000
"""Components of readers that it names, all together."""
SENTENCE_CHARACTERS: Final = 1000
"""Of what is not well: a sentence may hold an error."""
ERROR_CHARACTERS: Final = 300
"""Of an error that a reader reports: what presence says may be anybody's."""

RebuildWord: TypeAlias = Literal["idle", "running", "complete", "failed"]
ReaderWord: TypeAlias = Literal["serving", "behind", "refused", "gone", "starting"]
ServedWord: TypeAlias = Literal["serving", "behind", "refused", "missing", "gone"]


class Fact(BaseModel):
    """Part of an answer; frozen."""

    model_config = ConfigDict(frozen=True)


class ProblemState(Fact):
    """What is not well, in the judge's words, and what to do."""

    code: Code
    severity: Severity
    subject: str | None
    what: str
    advice: str
    asked: bool
    """Whether a person asked for it, or it follows from that alone."""
    since: datetime
    """Since when, as far as that is known; else when it was seen first."""
    at_least: bool
    """Whether it may have begun before ``since``: it was so when this process looked first, or when
    it could look again."""


class AlertState(Fact):
    """An alert that fires."""

    name: str
    severity: Severity
    since: datetime
    at_least: bool = False
    """As of a problem."""
    sentence: str
    advice: str
    labels: dict[str, str]


class CanaryState(Fact):
    """Who tries a release first."""

    readers: tuple[str, ...]
    since: datetime
    components: tuple[str, ...]
    """What they serve otherwise than the others."""


class ReleaseState(Fact):
    """The newest intact release."""

    number: int
    at: datetime
    by: str
    reason: str
    canary: CanaryState | None


class RebuildState(Fact):
    """The rebuild that runs, or the last one."""

    state: RebuildWord
    """``idle``: there was none yet."""
    id: str | None
    """Of the request that it answers; null: it came from a batch, or is not known."""
    started_at: datetime | None
    finished_at: datetime | None
    last_rebuild_at: datetime | None
    """When a component was last rebuilt successfully."""
    entries_at_rebuild: int | None
    """Of the collections, as of their components' last rebuilds."""
    message: str | None
    error: str | None


class DriftState(Fact):
    """How far a collection has moved since what is released of it."""

    changed_entries: int
    """Written or deleted since, each counted once."""
    changed_ratio: float
    """Their share of all entries; more than 1 where more were deleted than there are."""
    centroid_shift: float | None
    """How far the mean of the vectors that changed lies from that of the released ones, as a share
    of the spread of these, as the check ``centroid_shift`` of a build has it; of a sample of each.
    Null: it is not known, as where no vector index of it is released."""
    at: datetime


class CollectionState(Fact):
    """One collection."""

    name: str
    source: str | None
    generation: int
    entries: int | None
    unreadable: str | None
    conflict: str | None
    drift: DriftState | None
    """Null: nothing is released of it, or it is not known yet."""


class CoverState(Fact):
    """How far a component is with a collection."""

    covers: int
    current: int
    behind: int
    """Generations; of a collection that was created again all of them."""


class BuildingState(Fact):
    """A build that runs."""

    step: BuildStep
    share: float | None
    """Of the step, from 0 to 1; null: its kind does not say."""
    started_at: datetime | None
    elapsed_seconds: float | None
    rebuilder: str


class DecisionState(Fact):
    """What a person, or a rebuilder after refusals, decided."""

    reason: str
    since: datetime
    automatic: bool


class TombstoneState(Fact):
    """Rows of the base that are deleted or replaced."""

    rows: int
    share: float
    limit: float


class ComponentView(Fact):
    """One component: what is released of it, against what is declared and committed."""

    name: str
    kind: str
    group: str | None
    condition: str
    sentence: str
    """The judge's, of what is not well with it; else that it is current."""
    collections: dict[str, CoverState]
    entries: int
    bytes: int
    tombstones: TombstoneState | None
    tombstones_ratio: float | None
    recall: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    version: str | None
    held: DecisionState | None
    paused: DecisionState | None
    last_rebuild_at: datetime | None
    entries_at_rebuild: int | None
    failures: int
    failing_since: datetime | None
    failed_at: datetime | None
    retry_at: datetime | None
    error: str | None
    building: BuildingState | None
    improving: bool
    freshness_seconds: float | None


class ServedState(Fact):
    """One component in one reader."""

    state: ServedWord
    version: str | None
    wanted: str | None
    error: str | None


class ReaderView(Fact):
    """One reader process."""

    id: str
    label: str
    host: str
    pid: int
    address: str | None
    state: ReaderWord
    ready: bool
    release: int
    started_at: datetime
    last_seen_at: datetime
    memory_bytes: int | None
    components: dict[str, ServedState]
    """Of those that the settings declare or the release names."""


class ReadersState(Fact):
    """The readers, and how many serve what they should."""

    live: int
    converged: int
    """Of those that are live: they serve the newest release as it is for them."""
    items: tuple[ReaderView, ...]
    left_out: int


class RebuilderView(Fact):
    """One rebuilder process."""

    id: str
    label: str
    host: str
    pid: int
    started_at: datetime
    last_seen_at: datetime
    building: tuple[str, ...]
    improving: tuple[str, ...]


class State(Fact):
    """Everything, at one look."""

    number: int
    at: datetime
    namespace: str
    status: Literal["healthy", "warning", "critical"]
    sentence: str
    problems: tuple[ProblemState, ...]
    notes: tuple[str, ...]
    release: ReleaseState | None
    freshness_seconds: float | None
    rebuild: RebuildState
    collections: tuple[CollectionState, ...]
    components: tuple[ComponentView, ...]
    readers: ReadersState
    rebuilders: tuple[RebuilderView, ...]
    alerts: tuple[AlertState, ...]


def state_of(
    look: Look,
    sightings: Sightings,
    *,
    number: int,
    requests: Sequence[RebuildRequested] = (),
    drift: Mapping[str, DriftState],
    own: Sequence[Problem] = (),
) -> State:
    """The document.

    Args:
        look: at everything.
        sightings: of the looks before; this one is added.
        number: of the document.
        requests: those that wait for an answer, oldest first.
        drift: of each collection, as far as it is known.
        own: problems of the admin page's process itself.
    """
    seen, verdict = look.seen, look.seen.verdict
    if own:
        problems_of_all = (*verdict.problems, *own)
        verdict = verdict.model_copy(update={"well": False, "problems": problems_of_all})
    rebuilds = sightings.rebuilds.of(seen.facts.release, seen.facts.versions)
    problems = sorted(
        zip(verdict.problems, sightings.since(verdict.problems, seen), strict=True),
        key=lambda each: list(Severity)[::-1].index(each[0].severity),
    )
    components = tuple(_components(seen, rebuilds))
    return State(
        number=number,
        at=seen.at,
        namespace=seen.namespace,
        status=_status(verdict),
        sentence=verdict.sentence,
        problems=tuple(
            ProblemState(
                code=each.code,
                severity=each.severity,
                subject=each.subject,
                what=shortened(each.what, SENTENCE_CHARACTERS),
                advice=each.advice,
                asked=each.asked,
                since=since.at,
                at_least=since.at_least,
            )
            for each, since in problems
        ),
        notes=verdict.notes,
        release=_release(seen.facts.release),
        freshness_seconds=max(seen.freshness.values(), default=None),
        rebuild=_rebuild(seen, sightings, requests, rebuilds),
        collections=tuple(
            CollectionState(
                name=name,
                source=health.source,
                generation=health.generation,
                entries=health.entries,
                unreadable=health.unreadable,
                conflict=health.conflict,
                drift=drift.get(name),
            )
            for name, health in verdict.collections.items()
        ),
        components=components,
        readers=_readers(seen, sightings),
        rebuilders=tuple(_rebuilders(verdict.rebuilders)),
        alerts=tuple(_alerts(look)),
    )


def _status(verdict: Verdict) -> Literal["healthy", "warning", "critical"]:
    severities = {problem.severity for problem in verdict.problems}
    if Severity.CRITICAL in severities:
        return "critical"
    return "warning" if Severity.WARNING in severities else "healthy"


def _release(release: Release | None) -> ReleaseState | None:
    if release is None:
        return None
    canary = release.canary
    return ReleaseState(
        number=release.number,
        at=release.created_at,
        by=release.by,
        reason=release.reason,
        canary=None
        if canary is None
        else CanaryState(
            readers=canary.readers, since=canary.since, components=tuple(sorted(release.tried))
        ),
    )


def _rebuild(
    seen: Observation,
    sightings: Sightings,
    requests: Sequence[RebuildRequested],
    rebuilds: Mapping[str, LastRebuild],
) -> RebuildState:
    totals: dict[str, int] = {}
    for name, rebuilt in rebuilds.items():
        for root in _roots(name, seen):
            totals[root] = max(totals.get(root, 0), rebuilt.entries)
    at = max((each.at for each in rebuilds.values()), default=None)
    entries = sum(totals.values()) if rebuilds else None
    rebuilders = seen.facts.known_rebuilders.values()
    last = sightings.last_result(seen)
    if requests or any(state.building for state in rebuilders):
        begun = [each.started_at for state in rebuilders for each in state.progress.values()]
        return RebuildState(
            state="running",
            id=requests[0].request_id if requests else None,
            started_at=min(begun, default=None),
            finished_at=None,
            last_rebuild_at=at,
            entries_at_rebuild=entries,
            message=None,
            error=None,
        )
    failed = max(seen.facts.attempts.values(), key=lambda each: each.failed_at, default=None)
    if last is not None and (at is None or last.finished_at >= at):
        error = None if last.status is RebuildStatus.SUCCESS else _error_of(last)
        return RebuildState(
            state="complete" if error is None else "failed",
            id=last.request_ids[0] if last.request_ids else None,
            started_at=last.started_at,
            finished_at=last.finished_at,
            last_rebuild_at=at,
            entries_at_rebuild=entries,
            message=last.message,
            error=error,
        )
    # Results are in Redis; where they are lost, the artifacts and the catalog say as much.
    newer = failed is not None and (at is None or failed.failed_at > at)
    return RebuildState(
        state="failed" if newer else "idle" if at is None else "complete",
        id=None,
        started_at=None,
        finished_at=failed.failed_at if newer and failed is not None else at,
        last_rebuild_at=at,
        entries_at_rebuild=entries,
        message=None,
        error=f"{failed.component}: {failed.error}" if newer and failed is not None else None,
    )


def _roots(name: str, seen: Observation) -> set[str]:
    definitions = seen.facts.definitions
    return set(root_collections(name, definitions)) if name in definitions else set()


def _error_of(result: RebuildResult) -> str:
    """Why a rebuild did not succeed: what its components say, or its message."""
    errors = [
        f"{name}: {each.error}"
        for name, each in result.components.items()
        if each.error and name in result.indexes_failed
    ]
    return "; ".join(errors[:3]) or result.message


def _components(seen: Observation, rebuilds: Mapping[str, LastRebuild]) -> Iterator[ComponentView]:
    whats: dict[str, list[str]] = {}
    for problem in seen.verdict.problems:
        if problem.subject is not None:
            whats.setdefault(problem.subject, []).append(problem.what)
    for name, health in seen.verdict.components.items():
        definition = seen.facts.definitions.get(name)
        manifest = seen.facts.versions.get(name)
        rebuilt = rebuilds.get(name)
        found = health.tombstones
        yield ComponentView(
            name=name,
            kind=health.kind,
            group=None if definition is None else definition.group,
            condition=str(health.condition),
            sentence=shortened("; ".join(whats.get(name, ())), SENTENCE_CHARACTERS)
            or f"{name} is {health.condition}",
            collections=_covers(name, health, seen),
            entries=health.entries,
            bytes=health.bytes,
            tombstones=None
            if found is None
            else TombstoneState(rows=found.rows, share=found.share, limit=found.limit),
            tombstones_ratio=None if found is None else found.share,
            recall=_measured(manifest, RECALL),
            latency_p50_ms=_measured(manifest, LATENCY),
            latency_p99_ms=_measured(manifest, LATENCY_P99),
            version=health.version,
            held=_decision(health.held),
            paused=_decision(health.paused),
            last_rebuild_at=None if rebuilt is None else rebuilt.at,
            entries_at_rebuild=None if rebuilt is None else rebuilt.entries,
            failures=health.failures,
            failing_since=health.failing_since,
            failed_at=health.failed_at,
            retry_at=health.retry_at,
            error=health.error,
            building=_building(name, seen),
            improving=health.improvement is not None and bool(health.improvement.building),
            freshness_seconds=seen.freshness.get(name),
        )


def _covers(name: str, health: ComponentHealth, seen: Observation) -> dict[str, CoverState]:
    collections = seen.verdict.collections
    return {
        root: CoverState(
            covers=health.covers.get(root, 0),
            current=collections[root].generation if root in collections else 0,
            behind=health.behind.get(root, 0),
        )
        for root in sorted({*health.covers, *_roots(name, seen)})
    }


def _decision(decided: Decision | None) -> DecisionState | None:
    if decided is None:
        return None
    return DecisionState(reason=decided.reason, since=decided.since, automatic=decided.automatic)


def _measured(manifest: VersionManifest | None, check: str) -> float | None:
    """What the gates measured; of a component of several parts the first of them."""
    for each in () if manifest is None else manifest.checks:
        if each.name.rpartition(".")[2] == check and each.measured is not None:
            return each.measured
    return None


def _building(name: str, seen: Observation) -> BuildingState | None:
    for member, state in seen.facts.known_rebuilders.items():
        if name not in state.building:
            continue
        progress = state.progress.get(name)
        if progress is None:  # it is about to begin, or the rebuilder is of an earlier version
            return BuildingState(
                step=BuildStep.WAITING,
                share=None,
                started_at=None,
                elapsed_seconds=None,
                rebuilder=member,
            )
        return BuildingState(
            step=progress.step,
            share=progress.share,
            started_at=progress.started_at,
            elapsed_seconds=max((seen.at - progress.started_at).total_seconds(), 0.0),
            rebuilder=member,
        )
    return None


def _readers(seen: Observation, sightings: Sightings) -> ReadersState:
    live, release = seen.facts.known_readers, seen.facts.release
    known = {*seen.facts.definitions, *(() if release is None else release.components)}
    views = [
        _reader(member, state, release, known, word=_word(member, state, seen))
        for member, state in live.items()
    ]
    gone = [
        _reader(member, state, release, known, word="gone")
        for member, state in sightings.gone(live, seen.at).items()
    ]
    views.sort(key=lambda each: (each.label, each.id))  # those that are live come first
    most = min(MOST_READERS, MOST_CELLS // max(len(known), 1))
    shown = [*views, *gone][:most]
    return ReadersState(
        live=len(live),
        converged=sum(view.state == "serving" for view in views),
        items=tuple(sorted(shown, key=lambda each: (each.label, each.id))),
        left_out=len(views) + len(gone) - len(shown),
    )


def _word(member: str, state: ReaderState, seen: Observation) -> ReaderWord:
    """The observer's word for it, in the page's words: one that came just now has no release."""
    condition = reader_condition(member, state, seen.facts)
    return "starting" if condition == "behind" and not state.release else _WORDS[condition]


_WORDS: Final[Mapping[str, ReaderWord]] = {
    "silent": "gone",
    "refusing": "refused",
    "behind": "behind",
    "serving": "serving",
    "not_ready": "starting",
}


def _reader(
    member: str,
    state: ReaderState,
    release: Release | None,
    known: AbstractSet[str],
    *,
    word: ReaderWord,
) -> ReaderView:
    gone = word == "gone"
    wanted = {} if release is None else release.for_reader(state.label).components
    served = {
        name: _served(component, wanted.get(name), gone=gone)
        for name, component in state.components.items()
        if name in known
    }
    return ReaderView(
        id=member,
        label=state.label,
        host=state.host,
        pid=state.pid,
        address=state.address,
        state=word,
        ready=state.ready and not gone,
        release=state.release,
        started_at=state.started_at,
        last_seen_at=state.updated_at,
        memory_bytes=state.memory_bytes,
        components=served,
    )


def _served(component: ComponentState, wanted: str | None, *, gone: bool) -> ServedState:
    word: ServedWord
    if gone:
        word = "gone"
    elif component.outcome is LoadOutcome.FAILED:
        word = "refused"
    elif component.version is None:
        word = "missing"
    else:
        word = "serving" if wanted in (None, component.version) else "behind"
    return ServedState(
        state=word,
        version=component.version,
        wanted=wanted,
        error=component.error and shortened(component.error, ERROR_CHARACTERS),
    )


def _rebuilders(states: Mapping[str, RebuilderState]) -> Iterator[RebuilderView]:
    for member, state in states.items():
        yield RebuilderView(
            id=member,
            label=state.label,
            host=state.host,
            pid=state.pid,
            started_at=state.started_at,
            last_seen_at=state.updated_at,
            building=state.building,
            improving=state.improving,
        )


def _alerts(look: Look) -> Iterator[AlertState]:
    for alert in look.evaluation.firing:
        sentence, advice = described(alert, look.seen.verdict.problems)
        yield AlertState(
            name=alert.rule.name,
            severity=alert.rule.severity,
            since=datetime.fromtimestamp(alert.since, UTC),
            at_least=alert.at_least,
            sentence=sentence,
            advice=advice,
            labels=dict(alert.labels),
        )
