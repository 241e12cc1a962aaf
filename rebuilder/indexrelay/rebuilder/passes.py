"""One pass: builds what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass. Nor do finished components wait
for a slow one without end: after ``release_after_seconds`` they are released, and the rest of the
pass follows in a release of its own. The members of a group wait for each other, however long that
takes, since no release has one without the others. A member whose last build failed is built before
those that could not be released without it, so that nothing is built in vain again and again.

Members of a group that have to cover the same generation, and would not if they were built side by
side, form a unit: they are built one after another from the same snapshots.

A version that was built, checked and stored, and never released, is used again where it is what a
build would make now. A rebuilder that dies between its builds and its release leaves such versions,
and so does a release that could not be written.
"""

import time
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter
from typing import Final, Protocol, TypeVar

from pydantic import SecretStr

from indexrelay.health.due import GroupWait, inputs_digest, keeps_back, parent_inputs, targets_of
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.builds import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildRequest,
)
from indexrelay.rebuilder.builds.job import Workdirs
from indexrelay.rebuilder.builds.runner import BuildRunner, BuildSession
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import told
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import CatalogSource, Settings
from indexrelay.schemas.versions import (
    Definitions,
    VersionManifest,
    ancestors_of,
    groups_of,
    mates_of,
    moving_with,
    parents_of,
)
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog, InboxRow
from indexrelay.storage.errors import is_transient

Unit = frozenset[str]
"""Components that are built together; one by itself, as a rule."""
NodeT = TypeVar("NodeT", bound=Hashable)
Order = Mapping[NodeT, AbstractSet[NodeT]]
"""For each component, or unit: those that are to be built before it."""


def find_together(
    due: AbstractSet[str], facts: Facts, *, workers: int, torn: AbstractSet[str]
) -> tuple[Unit, ...]:
    """The units of two components or more.

    Args:
        due: what the pass builds.
        workers: how many builds may begin at a time.
        torn: the groups whose members were built at different moments the last time.
    """
    order = parents_first(due, facts)
    units = {name: frozenset({name}) for name in order}
    grouped = {
        group: _moving(due, members, facts)
        for group, members in groups_of(facts.definitions).items()
    }
    at_once = {name for names in grouped.values() for name in names if not order[name]}
    for group, names in grouped.items():
        for collection, readers in _readers(names, facts).items():
            if len(readers) > 1 and (
                group in torn
                or len(at_once) > workers
                or any(order[name] for name in readers)  # begins when what it is made from ended
                or not _keeps_its_generations(collection, facts)
            ):
                _join(readers, units)
    _join_circles(units, order)
    return tuple(unit for unit in dict.fromkeys(units.values()) if len(unit) > 1)


def parents_first(due: AbstractSet[str], facts: Facts) -> dict[str, set[str]]:
    """For each component that is due: those of its parents that are."""
    return {
        name: {
            each for each in parents_of(facts.definitions[name], facts.definitions) if each in due
        }
        for name in sorted(due)
    }


def units_first(units: Iterable[Unit], order: Order[str]) -> dict[Unit, set[Unit]]:
    """The same order between units."""
    unit_of = {name: unit for unit in units for name in unit}
    return {
        unit: {unit_of[earlier] for name in unit for earlier in order[name]} - {unit}
        for unit in dict.fromkeys(unit_of.values())
    }


def reached(node: NodeT, order: Order[NodeT]) -> set[NodeT]:
    """All that is to be built before ``node``, and itself."""
    found: set[NodeT] = set()
    more = {node}
    while more:
        found |= more
        more = set().union(*(order[each] for each in more)) - found
    return found


def in_turn(unit: Unit, order: Order[str], *, last: AbstractSet[str]) -> tuple[str, ...]:
    """The components of a unit in the order in which they are built.

    Args:
        last: those that nobody has to wait for and that may take the snapshots with them.
    """
    sorter = TopologicalSorter({name: order[name] & unit for name in sorted(unit)})
    sorter.prepare()
    ready: set[str] = set()
    found: list[str] = []
    while sorter.is_active():
        ready.update(sorter.get_ready())
        found.append(min(ready, key=lambda name: (name in last, name)))
        ready.remove(found[-1])
        sorter.done(found[-1])
    return tuple(found)


def _moving(due: AbstractSet[str], members: Iterable[str], facts: Facts) -> set[str]:
    """The members of a group that are due, and what of their ancestors is."""
    mine = {name for name in members if name in due}
    return mine.union(*(due & set(ancestors_of(name, facts.definitions)) for name in mine))


def _readers(names: Iterable[str], facts: Facts) -> dict[str, list[str]]:
    """By collection: those that read it themselves."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        for source in facts.definitions[name].inputs:
            if source not in facts.definitions:
                found.setdefault(source, []).append(name)
    return found


def _keeps_its_generations(collection: str, facts: Facts) -> bool:
    """Whether two snapshots of one generation of it hold the same."""
    settings = facts.collections.get(collection)
    return settings is None or isinstance(settings.source, CatalogSource)


def _join(names: Sequence[str], units: dict[str, Unit]) -> None:
    joined = frozenset[str]().union(*(units[name] for name in names))
    for name in joined:
        units[name] = joined


def _join_circles(units: dict[str, Unit], order: Order[str]) -> None:
    """What would have to be built before a unit and after it belongs to it."""
    while True:
        between = units_first(units.values(), order)
        before = {unit: reached(unit, between) for unit in between}
        circle = next(
            (
                [*unit, *other]
                for unit, earlier in before.items()
                for other in earlier
                if other != unit and unit in before[other]
            ),
            None,
        )
        if circle is None:
            return
        _join(circle, units)


Turn = tuple[str, ...]
"""The components of a unit, in the order in which they are built."""


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    together: Sequence[Unit] = ()
    """Those that are built one after another from the same snapshots; others by themselves."""
    afresh: AbstractSet[str] = frozenset()
    """Those of which no version that was built earlier is taken up."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """What has something new to contain, and waits for another member of its group."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What was asked for by name and cannot be built, with the reason."""
    force: AbstractSet[str] = frozenset()
    """Those that may lose more entries than ``max_shrink`` allows."""
    full: AbstractSet[str] = frozenset()
    """Those to build from scratch."""
    rows: Sequence[InboxRow] = ()
    """The events and requests that this pass answers."""
    woken_at: datetime | None = None
    """When the first of the signals that led to it was seen."""


class Builder(Protocol):
    """Builds, or leaves, the components of a pass."""

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """Where these are built, in this order, from the same snapshots; any may be left out."""
        ...

    def build(
        self,
        name: str,
        order: PassOrder,
        results: Mapping[str, ComponentResult],
        session: BuildSession,
    ) -> ComponentResult:
        """Build ``name``; ``results`` are those of the pass so far."""
        ...

    def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
        """Leave ``name`` as it is; ``because``: a sentence."""
        ...


def run_pass(
    order: PassOrder, builder: Builder, *, executor: Executor, release_after_seconds: float
) -> Generator[dict[str, ComponentResult], None, None]:
    """Build everything in ``order``; the results, as they are to be released together.

    Yields once when all is done; and before that whenever results that may be released without the
    rest have waited for it for ``release_after_seconds``.

    However it ends, no build of it runs on: others may take its components then.

    Raises:
        BuildCancelledError: the rebuilder stops; what was not yielded is not to be released.
    """
    definitions = order.facts.definitions
    due = set(order.reasons)
    turns = _turns(order)
    sorter = TopologicalSorter({turn: turns[turn] for turn in turns})
    sorter.prepare()
    results: dict[str, ComponentResult] = {}
    fresh: dict[str, ComponentResult] = {}
    release_at: float | None = None
    running: dict[Future[dict[str, ComponentResult]], Turn] = {}
    try:
        while sorter.is_active():
            for turn in sorted(sorter.get_ready(), key=lambda turn: _rank(turn, definitions)):
                running[_begin(turn, order, results, builder, executor)] = turn
            patience = None if release_at is None else max(0.0, release_at - time.monotonic())
            done = wait(running, timeout=patience, return_when=FIRST_COMPLETED).done
            if release_at is not None and time.monotonic() >= release_at:
                ready = _ready(fresh, due - results.keys(), definitions)
                yield ready
                fresh = {name: fresh[name] for name in fresh.keys() - ready.keys()}
                release_at = None
            for future in done:
                turn = running.pop(future)
                built = future.result()
                results |= built
                fresh |= built
                sorter.done(turn)
            if release_at is None and _ready(fresh, due - results.keys(), definitions):
                release_at = time.monotonic() + release_after_seconds
        yield fresh
    finally:
        wait(running)


def _rank(turn: Turn, definitions: Definitions) -> tuple[bool, str, Turn]:
    """Members of a group begin side by side, so that hardly ever a commit comes between them."""
    group = next((definitions[name].group for name in turn if definitions[name].group), None)
    return group is None, group or "", turn


def _turns(order: PassOrder) -> dict[Turn, set[Turn]]:
    """What the pass builds, unit by unit; for each: those that are to be built before it."""
    facts = order.facts
    due = set(order.reasons)
    inside = parents_first(due, facts)
    unit_of = {name: frozenset({name}) for name in inside}
    unit_of |= {name: unit for unit in order.together for name in unit}
    between = units_first(unit_of.values(), inside)
    waited_for: set[str] = set()
    for name in inside:
        for mate in due.intersection(mates_of(name, facts.definitions), facts.attempts):
            if not _would_keep_back(mate, name, order):
                continue
            mine, theirs = unit_of[name], unit_of[mate]
            # Two that failed would wait for each other, and so would a parent for its child.
            if mine != theirs and mine not in reached(theirs, between):
                between[mine].add(theirs)
            elif mine == theirs and name not in reached(mate, inside):
                inside[name].add(mate)
            waited_for.add(mate)
    last = facts.attempts.keys() - waited_for
    turns = {unit: in_turn(unit, inside, last=last) for unit in between}
    return {turns[unit]: {turns[earlier] for earlier in before} for unit, before in between.items()}


def _ready(
    fresh: Mapping[str, ComponentResult], unfinished: AbstractSet[str], definitions: Definitions
) -> dict[str, ComponentResult]:
    """Those results that need not wait for what is not finished."""
    bound = moving_with(unfinished, definitions)
    return {name: result for name, result in fresh.items() if name not in bound}


def _would_keep_back(mate: str, name: str, order: PassOrder) -> bool:
    """Whether a build of ``name`` would be in vain if ``mate`` stayed where it is."""
    reasons = {each: why for each, why in order.reasons.items() if each != mate}
    return keeps_back(mate, name, order.facts, reasons)


def _begin(
    turn: Turn,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: Builder,
    executor: Executor,
) -> Future[dict[str, ComponentResult]]:
    """Build them in the background, unless that would be in vain."""
    if any(_why_not(name, order, results) is None for name in turn):
        return executor.submit(_build, turn, order, dict(results), builder)
    skipped: Future[dict[str, ComponentResult]] = Future()
    skipped.set_result(_build(turn, order, results, builder))
    return skipped


def _build(
    turn: Turn, order: PassOrder, results: Mapping[str, ComponentResult], builder: Builder
) -> dict[str, ComponentResult]:
    """Build them one after another; what would be in vain by now is left."""
    built: dict[str, ComponentResult] = {}
    with builder.session(turn) as session:
        for name in turn:
            known = {**results, **built}
            because = _why_not(name, order, known)
            built[name] = (
                builder.build(name, order, known, session)
                if because is None
                else builder.skip(name, order.facts, because)
            )
    return built


def _why_not(name: str, order: PassOrder, results: Mapping[str, ComponentResult]) -> str | None:
    """Why a build would be in vain, by what came of others in this pass; ``None``: it would not."""
    definitions = order.facts.definitions
    stayed = {
        each for each, result in results.items() if result.outcome is not BuildOutcome.REBUILT
    }
    for parent in parents_of(definitions[name], definitions):
        if parent in stayed:
            return f"{parent}, which it is made from, was not rebuilt"
    for mate in mates_of(name, definitions):
        if mate in stayed and _would_keep_back(mate, name, order):
            group = definitions[name].group
            return f"{mate}, for which group {group} waits, was not rebuilt"
    return None


_log = get_logger(__name__)


class ComponentBuilder:
    """Builds single components for passes; safe to use from several threads."""

    def __init__(self, settings: Settings, *, catalog: Catalog, runner: BuildRunner) -> None:
        self._settings = settings
        self._catalog = catalog
        self._runner = runner
        self.workdirs = Workdirs(settings.artifacts_dir / "work")

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """Where these are built, in this order, from the same snapshots."""
        return self._runner.session(components)

    def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
        """Leave it as it is; ``because``: a sentence."""
        served = facts.versions.get(name)
        _log.warning("component.skipped", component=name, because=because)
        return ComponentResult(
            outcome=BuildOutcome.SKIPPED,
            version=facts.served_version(name),
            covers=served.covers if served is not None else {},
            entries=served.entries if served is not None else 0,
            error=because,
        )

    def build(
        self,
        name: str,
        order: PassOrder,
        results: Mapping[str, ComponentResult],
        session: BuildSession,
    ) -> ComponentResult:
        """Build it, from the versions that its parents got in this pass or have in the release.

        Raises:
            BuildCancelledError: the rebuilder stops.
        """
        facts = order.facts
        definition = facts.definitions[name]
        failed = facts.attempts.get(name)
        # What fails for a cause outside is tried with every batch: that it fails is news enough.
        say = _log.debug if failed is not None and failed.transient else _log.info
        say("component.building", component=name, reason=order.reasons[name])
        defaults = self._settings.rebuilder
        parents = {
            parent: _version_of(parent, facts, results)
            for parent in parents_of(definition, facts.definitions)
        }
        try:
            with self.workdirs.new() as workdir:
                result = session.run(
                    BuildRequest(
                        component=name,
                        definition=definition,
                        collections={
                            source: self._settings.collections[source]
                            for source in definition.inputs
                            if source not in facts.definitions
                        },
                        parents=parents,
                        previous=facts.served_version(name),
                        catalog_url=SecretStr(self._settings.catalog_url),
                        artifacts_dir=self._settings.artifacts_dir,
                        artifacts_group_readable=self._settings.artifacts.group_readable,
                        artifacts_marks=self._settings.marks_dir,
                        workdir=workdir,
                        threads=defaults.build_threads,
                        force=name in order.force,
                        full=name in order.full,
                    ),
                    timeout_seconds=definition.build_timeout_seconds
                    or defaults.build_timeout_seconds,
                    memory_bytes=definition.build_memory_bytes or defaults.build_memory_bytes,
                    progress=partial(_log_progress, name),
                )
        except BuildCancelledError:
            raise
        except (BuildError, OSError) as error:
            result = ComponentResult(
                outcome=BuildOutcome.FAILED,
                error=str(error),
                transient=is_transient(error, memory=False)
                or (isinstance(error, BuildDiedError) and error.transient),
            )
        except Exception as error:  # noqa: BLE001 - the component fails, its pass goes on
            _log.exception("component.not_built", component=name)
            result = ComponentResult(outcome=BuildOutcome.FAILED, error=told(error))
        self._remember(name, result, facts, parents)
        if result.outcome is BuildOutcome.REBUILT:
            _log.info(
                "component.rebuilt",
                component=name,
                version=result.version,
                entries=result.entries,
                seconds=round(result.seconds, 3),
            )
            return result
        served = facts.versions.get(name)
        return result.model_copy(
            update={
                "version": facts.served_version(name),
                "covers": served.covers if served is not None else {},
                "entries": served.entries if served is not None else 0,
            }
        )

    def _remember(
        self, name: str, result: ComponentResult, facts: Facts, parents: Mapping[str, str]
    ) -> None:
        """Write the outcome down, so that a restart does not forget how often it failed.

        A catalog that cannot take it does not change what was built.
        """
        failures: int | None = None
        try:
            if result.outcome is BuildOutcome.REBUILT:
                self._catalog.attempts.succeeded(name)
            else:
                released = {} if facts.release is None else facts.release.components
                failures = self._catalog.attempts.failed(
                    name,
                    error=result.error or "unknown",
                    inputs=inputs_digest(
                        facts.definitions[name],
                        parent_inputs(name, facts.definitions, {**released, **parents}),
                    ),
                    targets=targets_of(name, facts),
                    transient=result.transient,
                ).failures
        except Exception as error:  # noqa: BLE001 - whatever the database says
            _log.error("attempt.not_recorded", component=name, error=str(error))
        if result.outcome is not BuildOutcome.REBUILT:
            _log.error("component.failed", component=name, error=result.error, failures=failures)


def _log_progress(component: str, share: float) -> None:
    _log.debug("component.progress", component=component, share=round(share, 3))


def _version_of(parent: str, facts: Facts, results: Mapping[str, ComponentResult]) -> str:
    """The parent's version to build from: the one of this pass, else the released one."""
    built = results.get(parent)
    if built is not None and built.version is not None:
        return built.version
    if facts.release is None:  # not due without a parent: see `find_due`
        raise LookupError(f"{parent} has no version")
    return facts.release.components[parent]


_NEWEST: Final = 5
"""How many of a component's versions are looked at: what a crash left is among the last."""


class Adopter:
    """A `Builder` that builds only what is not there already; safe to use from several threads."""

    def __init__(
        self, builder: Builder, *, store: ArtifactStore, catalog: Catalog, clock: Clock
    ) -> None:
        self._builder = builder
        self._store = store
        self._catalog = catalog
        self._clock = clock

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """As the builder does."""
        return self._builder.session(components)

    def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
        """As the builder does."""
        return self._builder.skip(name, facts, because)

    def build(
        self,
        name: str,
        order: PassOrder,
        results: Mapping[str, ComponentResult],
        session: BuildSession,
    ) -> ComponentResult:
        """Adopt ``name``, or build it.

        Raises:
            BuildCancelledError: the rebuilder stops.
        """
        try:
            adopted = self._adopted(name, order, results)
        except (ArtifactError, OSError) as error:
            # The build meets the same store, and says what there is to say.
            _log.debug("component.not_adopted", component=name, error=str(error))
            adopted = None
        return adopted or self._builder.build(name, order, results, session)

    def _adopted(
        self, name: str, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> ComponentResult | None:
        facts = order.facts
        asked = facts.requested | order.force | order.full | order.afresh
        if name in asked or name in facts.damaged or name in facts.outdated:
            return None
        started_at, started = self._clock.now(), self._clock.monotonic()
        parents = _parents(name, facts, results)
        for version_id in self._store.newest_versions(name, most=_NEWEST):
            manifest = self._store.version(name, version_id)
            if not _is_current(manifest, name, facts, parents):
                continue
            if self._store.was_released(name, version_id):
                continue
            self._store.open_version(name, version_id)
            forgive(name, self._catalog)
            _log.info("component.adopted", component=name, version=version_id)
            return ComponentResult(
                outcome=BuildOutcome.REBUILT,
                version=version_id,
                covers=manifest.covers,
                entries=manifest.entries,
                bytes=manifest.size,
                started_at=started_at,
                seconds=self._clock.monotonic() - started,
                build_seconds=manifest.build_seconds,
                verify_seconds=manifest.verify_seconds,
                checks=manifest.checks,
            )
        return None


def forgive(name: str, catalog: Catalog) -> None:
    """Forget earlier failures, as after a build; a catalog that cannot costs no release."""
    try:
        catalog.attempts.succeeded(name)
    except Exception as error:  # noqa: BLE001 - whatever the database says
        _log.error("attempt.not_recorded", component=name, error=str(error))


def _parents(
    name: str, facts: Facts, results: Mapping[str, ComponentResult]
) -> dict[str, str | None]:
    """The versions that it would be built from: those of this pass, else the released ones."""
    released = facts.release.components if facts.release is not None else {}
    return {
        parent: results[parent].version if parent in results else released.get(parent)
        for parent in parents_of(facts.definitions[name], facts.definitions)
    }


def _is_current(
    manifest: VersionManifest, name: str, facts: Facts, parents: Mapping[str, str | None]
) -> bool:
    """Whether a build would make just this now."""
    definition = facts.definitions[name]
    sources = [source for source in definition.inputs if source not in facts.definitions]
    return (
        manifest.definition == definition.digest
        and manifest.parents == parents
        and all(
            source in facts.sources
            and manifest.covers.get(source) == facts.sources[source].generation
            and manifest.epochs.get(source) == facts.sources[source].epoch
            and facts.sources[source].knows(manifest, source)
            for source in sources
        )
    )
