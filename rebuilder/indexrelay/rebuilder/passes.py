"""One pass: build what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter

import structlog
from pydantic import SecretStr

from indexrelay.rebuilder.due import Facts, inputs_digest, targets_of
from indexrelay.rebuilder.errors import BuildCancelledError, BuildError
from indexrelay.rebuilder.ordering import parents_of
from indexrelay.rebuilder.requests import BuildRequest
from indexrelay.rebuilder.runners import BuildRunner
from indexrelay.rebuilder.workdirs import Workdirs
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog, InboxRow

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    force: AbstractSet[str] = frozenset()
    """Those that may lose more entries than ``max_shrink`` allows."""
    rows: Sequence[InboxRow] = ()
    """The events and requests that this pass answers."""
    woken_at: datetime | None = None
    """When the first of the signals that led to it was seen."""


class PassRunner:
    """Runs passes; several at a time if need be, never the same component in two."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        runner: BuildRunner,
        executor: Executor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._runner = runner
        self._executor = executor
        self.workdirs = Workdirs(settings.artifacts_dir / "work")

    def run(self, order: PassOrder) -> dict[str, ComponentResult]:
        """Build everything in ``order``; each component's result.

        Raises:
            BuildCancelledError: the rebuilder stops; nothing of this pass is to be released.
        """
        definitions = order.facts.definitions
        due = set(order.reasons)
        sorter = TopologicalSorter(
            {name: due.intersection(parents_of(definitions[name], definitions)) for name in due}
        )
        sorter.prepare()
        results: dict[str, ComponentResult] = {}
        running: dict[Future[ComponentResult], str] = {}
        while sorter.is_active():
            for name in sorted(sorter.get_ready()):
                running[self._submit(name, order, results)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                results[name] = future.result()
                sorter.done(name)
        return results

    def _submit(
        self, name: str, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> Future[ComponentResult]:
        failed = [
            parent
            for parent in parents_of(order.facts.definitions[name], order.facts.definitions)
            if parent in results and results[parent].outcome is not BuildOutcome.REBUILT
        ]
        if failed:
            done: Future[ComponentResult] = Future()
            done.set_result(self._skipped(name, order.facts, failed[0]))
            return done
        return self._executor.submit(partial(self._build, name, order, dict(results)))

    def _skipped(self, name: str, facts: Facts, parent: str) -> ComponentResult:
        served = facts.versions.get(name)
        _log.warning("component.skipped", component=name, parent=parent)
        return ComponentResult(
            outcome=BuildOutcome.SKIPPED,
            version=served.id if served is not None else None,
            covers=served.covers if served is not None else {},
            entries=served.entries if served is not None else 0,
            error=f"{parent}, which it is made from, was not rebuilt",
        )

    def _build(
        self, name: str, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> ComponentResult:
        facts = order.facts
        definition = facts.definitions[name]
        _log.info("component.building", component=name, reason=order.reasons[name])
        defaults = self._settings.rebuilder
        parents = {
            parent: _version_of(parent, facts, results)
            for parent in parents_of(definition, facts.definitions)
        }
        try:
            with self.workdirs.new() as workdir:
                result = self._runner.run(
                    BuildRequest(
                        component=name,
                        definition=definition,
                        collections={
                            source: self._settings.collections[source]
                            for source in definition.inputs
                            if source not in facts.definitions
                        },
                        parents=parents,
                        previous=facts.versions[name].id if name in facts.versions else None,
                        catalog_url=SecretStr(self._settings.catalog_url),
                        artifacts_dir=self._settings.artifacts_dir,
                        workdir=workdir,
                        threads=defaults.build_threads,
                        force=name in order.force,
                    ),
                    timeout_seconds=definition.build_timeout_seconds
                    or defaults.build_timeout_seconds,
                    memory_bytes=definition.build_memory_bytes or defaults.build_memory_bytes,
                    progress=partial(_log_progress, name),
                )
        except BuildCancelledError:
            raise
        except (BuildError, OSError) as error:
            result = ComponentResult(outcome=BuildOutcome.FAILED, error=str(error))
        return self._remembered(name, result, facts, parents)

    def _remembered(
        self, name: str, result: ComponentResult, facts: Facts, parents: Mapping[str, str]
    ) -> ComponentResult:
        """Write the outcome down, so that a restart does not forget how often it failed."""
        if result.outcome is BuildOutcome.REBUILT:
            self._catalog.attempts.succeeded(name)
            _log.info(
                "component.rebuilt",
                component=name,
                version=result.version,
                entries=result.entries,
                seconds=round(result.seconds, 3),
            )
            return result
        attempt = self._catalog.attempts.failed(
            name,
            error=result.error or "unknown",
            inputs=inputs_digest(facts.definitions[name], parents),
            targets=targets_of(name, facts),
        )
        _log.error(
            "component.failed", component=name, error=result.error, failures=attempt.failures
        )
        served = facts.versions.get(name)
        return result.model_copy(
            update={
                "version": served.id if served is not None else None,
                "covers": served.covers if served is not None else {},
                "entries": served.entries if served is not None else 0,
            }
        )


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
