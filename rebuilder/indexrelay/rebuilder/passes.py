"""One pass: builds what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass. Nor do finished components wait
for a slow one without end: after ``release_after_seconds`` they are released, and the rest of the
pass follows in a release of its own. The members of a group wait for each other, however long that
takes, since no release has one without the others.

A version that was built, checked and stored, and never released, is used again where it is what a
build would make now. A rebuilder that dies between its builds and its release leaves such versions,
and so does a release that could not be written, or a group that waits for another member.

A file that a component's key names is read when a rebuilder starts, and kept: it may be changed any
time after that, by somebody who is not done yet. Each build gets a copy in its work folder, so it
never sees half a change. As with every other key, the next start takes a changed file up.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from pydantic import SecretStr

from indexrelay.components.errors import KindNotFoundError
from indexrelay.components.kind import Goal
from indexrelay.components.registry import kind_class
from indexrelay.health.due import GroupWait, inputs_digest, keeps_back, parent_inputs, targets_of
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.builds import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildRequest,
    BuildRunner,
    BuildSession,
)
from indexrelay.rebuilder.builds.memory import MemoryBudget, estimated_memory
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.files import make_private_folder
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildMode, BuildOutcome, ComponentResult
from indexrelay.schemas.parameter_files import files_in, moved_to
from indexrelay.schemas.progress import BuildProgress, BuildStep
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.versions import (
    Definitions,
    VersionManifest,
    mates_of,
    moving_with,
    parents_of,
)
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog, InboxRow
from indexrelay.storage.errors import is_transient


class Workdirs:
    """Makes work folders below one folder, and removes them.

    It is on the artifacts' file system, so that a file is moved by renaming it. The name of a work
    folder says which process it belongs to; what a killed rebuilder left is removed by the next one
    on the same host.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._host = socket.gethostname().replace("~", "-")

    @contextmanager
    def new(self) -> Iterator[Path]:
        """An empty folder, for as long as the ``with`` lasts."""
        folder = self._root / f"{self._host}~{os.getpid()}~{secrets.token_hex(8)}"
        make_private_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_stale(self) -> None:
        """Remove what dead processes of this host left."""
        for folder in self._root.glob(f"{self._host}~*~*"):
            pid = folder.name.split("~")[1]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)


class KeptFiles:
    """The content of all files of some components; safe to use from several threads."""

    def __init__(self, definitions: Mapping[str, ComponentDefinition]) -> None:
        """Read everything.

        Raises:
            FileChangedError: a file is not what it was when the settings were read.
        """
        self._contents = {
            file.sha256: file.read()
            for definition in definitions.values()
            for file in files_in(definition.parameters).values()
        }

    @contextmanager
    def laid_out(
        self,
        definition: ComponentDefinition,
        new_folder: Callable[[], AbstractContextManager[Path]],
    ) -> Iterator[ComponentDefinition]:
        """The definition with copies of its files in a folder, for as long as the ``with`` lasts.

        Args:
            new_folder: makes an empty folder, and removes it; called where there are files.
        """
        files = files_in(definition.parameters) if definition.names_files else {}
        if not files:
            yield definition
            return
        with new_folder() as folder:
            paths = {key: folder / key for key in files}
            for key, path in paths.items():
                path.write_bytes(self._contents[files[key].sha256])
            parameters = moved_to(definition.parameters, paths)
            yield definition.model_copy(update={"parameters": parameters})


_log = get_logger(__name__)
_NEWEST: Final = 5
"""How many of a component's versions are looked at: an unreleased one is among the last."""

P = ParamSpec("P")
T = TypeVar("T")
Turn = tuple[str, ...]
"""Components that are built one after another, in this order, from the same snapshots."""


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    turns: Mapping[Turn, AbstractSet[Turn]]
    """The same components; for each turn: those that are built before it."""
    not_reused: AbstractSet[str] = frozenset()
    """Those of which no version that was built earlier is used."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """What has something new to contain, and waits for another member of its group."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What was asked for by name and cannot be built, with the reason."""
    force: AbstractSet[str] = frozenset()
    """Those that may lose more entries than ``max_shrink`` allows."""
    full: AbstractSet[str] = frozenset()
    """Those to build from scratch."""
    quick: bool = False
    """Whether what is ready soonest will do, since it is improved later."""
    rows: Sequence[InboxRow] = ()
    """The events and requests that this pass answers."""
    woken_at: datetime | None = None
    """When the first of the signals that led to it was seen."""
    traceparent: str | None = None
    """The trace context of the pass, which its messages carry; ``None``: it is not traced."""


def run_pass(
    order: PassOrder,
    builder: "ComponentBuilder",
    *,
    executor: Executor,
    release_after_seconds: float,
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
    sorter = TopologicalSorter(order.turns)
    sorter.prepare()
    results: dict[str, ComponentResult] = {}
    fresh: dict[str, ComponentResult] = {}
    release_at: float | None = None
    running: dict[Future[dict[str, ComponentResult]], Turn] = {}
    try:
        while sorter.is_active():
            for turn in sorted(sorter.get_ready(), key=lambda turn: _rank(turn, definitions)):
                running[_begin(turn, order, results, builder, executor)] = turn
            timeout = None if release_at is None else max(0.0, release_at - time.monotonic())
            done = wait(running, timeout=timeout, return_when=FIRST_COMPLETED).done
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


def _rank(turn: Turn, definitions: Definitions) -> tuple[int, bool, str, Turn]:
    """By priority, that of a group being its greatest.

    Members of a group begin side by side, so that a commit rarely comes between them.
    """
    group = next((definitions[name].group for name in turn if definitions[name].group), None)
    mates = {mate for name in turn for mate in (name, *mates_of(name, definitions))}
    priority = max(definitions[name].priority for name in mates)
    return -priority, group is None, group or "", turn


def _ready(
    fresh: Mapping[str, ComponentResult], unfinished: AbstractSet[str], definitions: Definitions
) -> dict[str, ComponentResult]:
    """Those results that need not wait for what is not finished."""
    bound = moving_with(unfinished, definitions)
    return {name: result for name, result in fresh.items() if name not in bound}


def _begin(
    turn: Turn,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: "ComponentBuilder",
    executor: Executor,
) -> Future[dict[str, ComponentResult]]:
    """Build them in the background, unless none of them could be released."""
    if any(_why_not(name, order, results) is None for name in turn):
        return executor.submit(_build, turn, order, dict(results), builder)
    skipped: Future[dict[str, ComponentResult]] = Future()
    skipped.set_result(_build(turn, order, results, builder))
    return skipped


def _build(
    turn: Turn,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: "ComponentBuilder",
) -> dict[str, ComponentResult]:
    """Build them one after another; what could not be released by now is skipped."""
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
    """Why a build could not be released, by the results of others so far; ``None``: it could."""
    definitions = order.facts.definitions
    stayed = {
        each for each, result in results.items() if result.outcome is not BuildOutcome.REBUILT
    }
    for parent in parents_of(definitions[name], definitions):
        if parent in stayed:
            return f"{parent}, which it is made from, was not rebuilt"
    for mate in mates_of(name, definitions):
        if mate in stayed and would_keep_back(mate, name, order.facts, order.reasons):
            group = definitions[name].group
            return f"{mate}, for which group {group} waits, was not rebuilt"
    return None


def would_keep_back(mate: str, name: str, facts: Facts, reasons: Mapping[str, str]) -> bool:
    """Whether a build of ``name`` could not be released if ``mate`` of its group stayed."""
    others = {each: why for each, why in reasons.items() if each != mate}
    return keeps_back(mate, name, facts, others)


class ProgressBoard:
    """How far each build is; safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, BuildProgress] = {}
        self.has_news = False
        """Whether something was noted since this was set to ``False``."""

    def note(self, component: str, step: BuildStep, share: float | None = None) -> None:
        """It is so far; a share that is none is left out."""
        known = self._known.get(component)
        self._known[component] = BuildProgress(
            step=step,
            share=share if share is not None and 0 <= share <= 1 else None,
            started_at=self._clock.now() if known is None else known.started_at,
        )
        self.has_news = True

    def forget(self, components: Iterable[str]) -> None:
        """These are not built any more."""
        for name in components:
            self._known.pop(name, None)

    def of(self, components: Iterable[str]) -> dict[str, BuildProgress]:
        """How far these are, as far as they have begun."""
        known = dict(self._known)
        return {name: known[name] for name in components if name in known}


class ComponentBuilder:
    """Builds single components for passes; safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        runner: BuildRunner,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._runner = runner
        self._clock = clock
        self._catalog_url = SecretStr(settings.catalog_url)
        self.workdirs = Workdirs(settings.artifacts_dir / "work")
        self._files = KeptFiles(settings.components)
        self.memory = MemoryBudget(settings.rebuilder.max_memory_bytes)
        self.progress = ProgressBoard(clock)
        self.given_up: set[str] = set()
        """Better versions that were built and cannot be released."""

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """Where these are built, in this order, from the same snapshots; any may be left out."""
        return self._runner.session(components)

    def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
        """Leave ``name`` as it is; ``because``: a sentence."""
        _log.warning("component.skipped", component=name, because=because)
        return ComponentResult(outcome=BuildOutcome.SKIPPED, error=because, **_served(name, facts))

    def build(
        self,
        name: str,
        order: PassOrder,
        results: Mapping[str, ComponentResult],
        session: BuildSession,
    ) -> ComponentResult:
        """Build ``name``, or use a version that was built earlier and never released.

        Args:
            results: those of the pass so far. Its parents are the versions that they got in this
                pass or have in the release.

        Raises:
            BuildCancelledError: the rebuilder stops.
        """
        parents = _parents(name, order.facts, results)
        try:
            reused = self._reused(name, order, parents)
        except (ArtifactError, OSError) as error:
            # The build meets the same store, and fails with the same error.
            _log.debug("component.not_reused", component=name, error=str(error))
            reused = None
        if reused is not None:
            return reused
        if name in order.facts.improved and name not in order.full:
            taken_up = self._taken_up(name, order, parents, session)
            if taken_up is not None:
                return taken_up
        result = self._built(name, order, parents, session, _goal(name, order))
        if result.outcome is BuildOutcome.REBUILT:
            self.progress.note(name, BuildStep.RELEASING)
            clear_failures(name, self._catalog)
            _log.info(
                "component.rebuilt",
                component=name,
                version=result.version,
                entries=result.entries,
                seconds=round(result.seconds, 3),
            )
            self._log_failed_gates(name, result)
            return result
        failures = self._count_failure(name, result, order.facts, parents)
        _log.error("component.failed", component=name, error=result.error, failures=failures)
        return result.model_copy(update=_served(name, order.facts))

    def _log_failed_gates(self, name: str, result: ComponentResult) -> None:
        """Warn of gates that only the incremental build failed: each batch costs a full one then.

        The child process that built it has no log of its own.
        """
        if result.version is None or result.mode is not BuildMode.FULL:
            return
        try:
            build = self._store.version(name, result.version).details.get("build")
        except (ArtifactError, OSError) as error:  # the release meets the same store
            _log.debug("version.not_read", component=name, error=str(error))
            return
        if isinstance(build, dict) and build.get("failed_gates"):
            _log.warning(
                "component.built_in_full",
                component=name,
                gates=build["failed_gates"],
                reason=build.get("reason"),
            )

    def _reused(
        self, name: str, order: PassOrder, parents: Mapping[str, str]
    ) -> ComponentResult | None:
        """A version in the store that is what a build would make now.

        None is reused that somebody asked to have built, that its kind makes in another way since,
        that a release ever named (people may have rolled it back), or whose files do not pass their
        checks now; nor where a commit came between the builds of a group, since one may come again
        between this look and the builds of the others.
        """
        facts = order.facts
        asked = facts.requested | order.force | order.full | order.not_reused
        if name in asked or name in facts.corrupt or name in facts.outdated:
            return None
        started_at, started = self._clock.now(), self._clock.monotonic()
        for version_id in self._store.newest_versions(name, most=_NEWEST):
            manifest = self._store.version(name, version_id)
            if not _is_current(manifest, name, facts, parents):
                continue
            if self._store.was_released(name, version_id):
                continue
            self._store.open_version(name, version_id)
            clear_failures(name, self._catalog)
            _log.info("component.reused", component=name, version=version_id)
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

    def improve(self, name: str, facts: Facts, reason: str) -> ComponentResult:
        """Build the best version of ``name`` behind the one that serves.

        It stays in the store; a pass releases it.

        Raises:
            BuildCancelledError: the rebuilder stops.
        """
        order = PassOrder(facts=facts, reasons={name: reason}, turns={})
        parents = _parents(name, facts, {})
        try:
            with self.session([name]) as session:
                return self._built(name, order, parents, session, Goal.IMPROVEMENT)
        finally:
            self.progress.forget([name])

    def _taken_up(
        self, name: str, order: PassOrder, parents: Mapping[str, str], session: BuildSession
    ) -> ComponentResult | None:
        """The better version that was built of it, continued by what it does not contain yet.

        ``None``: it cannot be, and the version that serves is to be continued instead.
        """
        facts, version_id = order.facts, order.facts.improved[name]
        result = self._built(name, order, parents, session, Goal.CATCH_UP)
        if result.outcome is BuildOutcome.REBUILT:
            clear_failures(name, self._catalog)
            _log.info("component.improved", component=name, version=result.version)
            return result
        self.improvement_failed(name, facts, result, version=version_id)
        served = facts.versions[name]
        if name not in facts.requested and _is_current(served, name, facts, parents):
            return self.skip(name, facts, f"its improvement failed: {result.error}")
        return None

    def improvement_failed(
        self, name: str, facts: Facts, result: ComponentResult, *, version: str | None = None
    ) -> None:
        """Record that an improvement failed, which changes nothing of what serves.

        Args:
            version: the better version that could not be taken up; unless the cause was transient,
                it is not tried again.
        """
        if version is not None and not result.transient:
            self.given_up.add(version)
        try:
            failures: int | None = self._catalog.improvements.failed(
                name,
                error=result.error or "unknown",
                inputs=facts.definitions[name].digest,
                targets=targets_of(name, facts),
                transient=result.transient,
            ).failures
        except Exception as error:  # noqa: BLE001 - whatever the database raises
            _log.error("attempt.not_recorded", component=name, error=str(error))
            failures = None
        _log.warning(
            "component.not_improved", component=name, error=result.error, failures=failures
        )

    def _built(
        self,
        name: str,
        order: PassOrder,
        parents: Mapping[str, str],
        session: BuildSession,
        goal: Goal,
    ) -> ComponentResult:
        definition, defaults = order.facts.definitions[name], self._settings.rebuilder
        failed = order.facts.attempts.get(name)
        # A transient failure is retried with every batch: one line per failure is enough.
        log = _log.debug if failed is not None and failed.transient else _log.info
        log("component.building", component=name, reason=order.reasons[name])
        self.progress.note(name, BuildStep.WAITING)
        try:
            with (
                self._room_for(name, order.facts),
                self.workdirs.new() as workdir,
                self._files.laid_out(definition, self.workdirs.new) as laid_out,
            ):
                return session.run(
                    self._request(name, order, parents, workdir, laid_out, goal),
                    timeout_seconds=definition.build_timeout_seconds
                    or defaults.build_timeout_seconds,
                    memory_bytes=definition.build_memory_bytes or defaults.build_memory_bytes,
                    progress=partial(self.progress.note, name),
                )
        except BuildCancelledError:
            raise
        except (BuildError, OSError) as error:
            return ComponentResult(
                outcome=BuildOutcome.FAILED,
                error=str(error),
                transient=is_transient(error, memory=False)
                or (isinstance(error, BuildDiedError) and error.transient),
            )
        except Exception as error:  # noqa: BLE001 - the component fails, its pass goes on
            _log.exception("component.not_built", component=name)
            return ComponentResult(outcome=BuildOutcome.FAILED, error=describe_error(error))

    def _room_for(self, name: str, facts: Facts) -> AbstractContextManager[None]:
        """Memory for a build, for the length of a ``with``; raises what `MemoryBudget` does."""
        limits = self._settings.rebuilder
        if limits.max_memory_bytes is None:
            return nullcontext()
        return self.memory.reserved(estimated_memory(name, facts, limits))

    def _request(
        self,
        name: str,
        order: PassOrder,
        parents: Mapping[str, str],
        workdir: Path,
        definition: ComponentDefinition,
        goal: Goal,
    ) -> BuildRequest:
        facts, settings = order.facts, self._settings
        return BuildRequest(
            component=name,
            definition=definition,
            collections={
                source: settings.collections[source]
                for source in definition.inputs
                if source not in facts.definitions
            },
            parents=dict(parents),
            previous=facts.served_version(name),
            catalog_url=self._catalog_url,
            artifacts_dir=settings.artifacts_dir,
            artifacts_group_readable=settings.artifacts.group_readable,
            artifacts_marks=settings.marks_dir,
            workdir=workdir,
            threads=settings.rebuilder.build_threads,
            force=name in order.force,
            full=name in order.full,
            goal=goal,
            improvement=facts.improved[name] if goal is Goal.CATCH_UP else None,
        )

    def _count_failure(
        self, name: str, result: ComponentResult, facts: Facts, parents: Mapping[str, str]
    ) -> int | None:
        """Record the failure, so that a restart does not forget it; how many in a row.

        ``None``: the catalog cannot be written, which does not change the result.
        """
        released = {} if facts.release is None else facts.release.components
        try:
            return self._catalog.attempts.failed(
                name,
                error=result.error or "unknown",
                inputs=inputs_digest(
                    facts.definitions[name],
                    parent_inputs(name, facts.definitions, {**released, **parents}),
                ),
                targets=targets_of(name, facts),
                transient=result.transient,
            ).failures
        except Exception as error:  # noqa: BLE001 - whatever the database raises
            _log.error("attempt.not_recorded", component=name, error=str(error))
            return None


def clear_failures(name: str, catalog: Catalog) -> None:
    """Forget earlier failures, as after a build; a catalog that cannot be written is logged."""
    try:
        catalog.attempts.succeeded(name)
    except Exception as error:  # noqa: BLE001 - whatever the database raises
        _log.error("attempt.not_recorded", component=name, error=str(error))


def _served(name: str, facts: Facts) -> dict[str, Any]:
    """The version that is served now, as fields of a result that changes nothing."""
    served = facts.versions.get(name)
    return {
        "version": facts.served_version(name),
        "covers": served.covers if served is not None else {},
        "entries": served.entries if served is not None else 0,
    }


def _parents(name: str, facts: Facts, results: Mapping[str, ComponentResult]) -> dict[str, str]:
    """The versions to build from: those of this pass, else the released ones."""
    built = {each: result.version for each, result in results.items() if result.version is not None}
    released = facts.release.components if facts.release is not None else {}
    versions = {**released, **built}  # not due without a parent: see `find_due`
    return {
        parent: versions[parent]
        for parent in parents_of(facts.definitions[name], facts.definitions)
    }


def _is_current(
    manifest: VersionManifest, name: str, facts: Facts, parents: Mapping[str, str]
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


def _goal(name: str, order: PassOrder) -> Goal:
    """What a build in a pass is to make; who asks for a full build gets the best there is."""
    if not order.quick or name in order.full:
        return Goal.BEST
    try:
        kind = kind_class(order.facts.definitions[name].kind)
    except KindNotFoundError:  # its build fails with that error
        return Goal.BEST
    return Goal.QUICK if kind.has_quick_versions else Goal.BEST


class SerialExecutor(Executor):
    """An executor that is done when `submit` returns: a pass without threads."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call ``fn`` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future holds it, as any executor's does
            future.set_exception(error)
        return future
