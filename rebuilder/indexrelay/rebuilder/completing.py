"""What follows a pass: commit the release, announce it, say what came of it.

Each step stands by itself. Versions that were built stay built if the release cannot be committed;
a release stands if it cannot be announced; and the result says which of the three happened.
"""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.groups import GroupWait
from indexrelay.rebuilder.adopting import forgive
from indexrelay.rebuilder.announcing import AnnounceError, Announcer
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.rebuilder.releasing import Publication, Publisher
from indexrelay.rebuilder.reporting import newly_covered, not_announced, not_released, summarise
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import BuildOutcome, ComponentResult, RebuildResult, RebuildStatus
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)
_LEVELS: Mapping[RebuildStatus, str] = {
    RebuildStatus.SUCCESS: "info",
    RebuildStatus.PARTIAL_SUCCESS: "warning",
    RebuildStatus.FAILURE: "error",
}


class Completer:
    """Turns the results of passes into releases and messages."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        publisher: Publisher,
        announcer: Announcer,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._publisher = publisher
        self._announcer = announcer
        self._clock = clock

    def complete(
        self, order: PassOrder, results: Mapping[str, ComponentResult], *, last: bool
    ) -> RebuildResult:
        """Commit, announce, report; never raises for what Redis, store or catalog refuse.

        Args:
            last: nothing more comes of this pass, so its requests are answered.
        """
        facts = order.facts
        publication, problem = self._commit(order, results)
        release = publication.release
        for name in sorted(publication.kept):
            forgive(name, self._catalog)
        kept = {name: _explained(wait, results) for name, wait in publication.waiting.items()}
        others = {name: wait.sentence for name, wait in order.waiting.items() if last}
        released = {name: result for name, result in results.items() if name not in kept}
        result = summarise(
            results,
            facts=facts,
            refused=order.refused if last else {},
            waiting=others | kept,
            release=release,
            batch_ids=self._batch_ids(order, released) if problem is None else [],
            request_ids=_request_ids(order) if last else [],
            woken_at=order.woken_at,
            finished_at=self._clock.now(),
        )
        if problem is not None:
            result = not_released(result, problem)
        try:
            if release is None:
                self._announcer.report(result)
            else:
                self._announcer.announce(release, result)
        except AnnounceError as error:
            if release is not None:
                result = not_announced(result, error)
            _log.error("result.not_announced", error=str(error))
        getattr(_log, _LEVELS[result.status])(
            "rebuild.finished",
            status=str(result.status),
            message=result.message,
            release=result.release,
            rebuilt=list(result.indexes_rebuilt),
            failed=list(result.indexes_failed),
        )
        return result

    def _batch_ids(self, order: PassOrder, results: Mapping[str, ComponentResult]) -> list[str]:
        """The batches newly covered; none where the catalog cannot say: readers come first."""
        try:
            return newly_covered(results, order.facts, self._catalog)
        except Exception as error:  # noqa: BLE001 - whatever the database says
            _log.error("batches.unknown", error=str(error))
            return []

    def _commit(
        self, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> tuple[Publication, Exception | None]:
        """The new release, if there is one, and what kept it from being committed."""
        try:
            built = {
                name: self._store.version(name, result.version)
                for name, result in results.items()
                if result.outcome is BuildOutcome.REBUILT and result.version is not None
            }
            if not built:
                return Publication(), None
            publication = self._publisher.publish(
                built,
                definitions=order.facts.definitions,
                anyway=order.facts.requested | set(order.facts.damaged) | set(order.facts.outdated),
                reason=f"rebuilt {', '.join(sorted(built))}",
            )
        except (OSError, ArtifactError) as error:
            return Publication(), error
        if publication.release is not None:
            self._note(publication.release.number)
        return publication, None

    def _note(self, number: int) -> None:
        """Let the catalog know of a release; if that fails, the next comparison does it."""
        try:
            self._catalog.release_record.note(number)
        except SQLAlchemyError as error:
            _log.warning("release.not_noted", release=number, error=str(error))


def _explained(wait: GroupWait, results: Mapping[str, ComponentResult]) -> str:
    """For whom a group waits, with what came of those in this pass."""
    said = {
        name: f"{'failed' if result.outcome is BuildOutcome.FAILED else 'was skipped'}: "
        f"{result.error}"
        for name, result in results.items()
        if name in wait.held_back_by and result.outcome is not BuildOutcome.REBUILT
    }
    return replace(wait, held_back_by={**wait.held_back_by, **said}).sentence


def _request_ids(order: PassOrder) -> list[str]:
    return [row.event_id for row in order.rows if row.requested]
