"""Takes up what was built, checked and stored, and never released, instead of building it again.

A rebuilder that dies between its builds and its release leaves whole versions behind, and so does a
release that could not be written. Where one of them is what a build would make now (the same
definition, the same parents, the same generation of every collection), it is the result of this
build. A build of hours is not repeated because its last millisecond went wrong, and a member of a
group that had to wait for another is not built again when that one is ready.

Nothing is adopted that somebody asked to have built, that its kind makes otherwise since, that a
release ever named (people may have gone back from it), or whose files do not pass their checks now;
nor where a commit came between the builds of a group, since one may come again between this look
and the builds of the others.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

from indexrelay.health.dependencies import parents_of
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.passes import Builder, PassOrder
from indexrelay.rebuilder.runners import BuildSession
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog

_NEWEST: Final = 5
"""How many of a component's versions are looked at: what a crash left is among the last."""
_log = get_logger(__name__)


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
