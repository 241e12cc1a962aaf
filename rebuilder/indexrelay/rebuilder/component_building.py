"""One component's turn in a pass: build it within its limits, and write down how it went."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from pydantic import SecretStr

from indexrelay.health.dependencies import parents_of
from indexrelay.health.due import inputs_digest, parent_inputs, targets_of
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.errors import BuildCancelledError, BuildDiedError, BuildError
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.rebuilder.requests import BuildRequest
from indexrelay.rebuilder.runners import BuildRunner, BuildSession
from indexrelay.rebuilder.workdirs import Workdirs
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.origin import told
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.passing import may_pass

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
        say = _log.debug if failed is not None and failed.passing else _log.info
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
                passing=may_pass(error, memory=False)
                or (isinstance(error, BuildDiedError) and error.passing),
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
                    passing=result.passing,
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
