"""What follows a pass: commit the release, announce it, and report the result.

Versions that were built stay built if the release cannot be committed, and a release stays if it
cannot be announced. The result names the step that failed, in the words that operators know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.due import GroupWait
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.passes import PassOrder, clear_failures
from indexrelay.rebuilder.publisher import Announcer, Publication, Publisher
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildOutcome, ComponentResult, RebuildResult, RebuildStatus
from indexrelay.schemas.names import MAX_MESSAGE, shortened
from indexrelay.schemas.versions import in_order
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)
_LEVELS: Final[Mapping[RebuildStatus, str]] = {
    RebuildStatus.SUCCESS: "info",
    RebuildStatus.PARTIAL_SUCCESS: "warning",
    RebuildStatus.FAILURE: "error",
}
_NOTHING: Final = "Nothing was due"
MOST_BATCHES: Final = 1000
"""Batch ids of one collection that a result names at most: a message is no archive."""


class Completer:
    """Turns the results of passes into releases and messages."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        publisher: Publisher,
        announcer: Announcer,
        audit: AuditLog,
        by: str,
        clock: Clock,
    ) -> None:
        """``by``: who releases, for the audit log."""
        self._catalog = catalog
        self._store = store
        self._publisher = publisher
        self._announcer = announcer
        self._audit = audit
        self._by = by
        self._clock = clock

    def complete(
        self, order: PassOrder, results: Mapping[str, ComponentResult], *, last: bool
    ) -> RebuildResult:
        """Commit, announce, report; never raises for what Redis, store or catalog refuse.

        Args:
            last: nothing more comes of this pass, so its requests are answered.
        """
        publication, problem = self._commit(order, results)
        release = publication.release
        for name in sorted(publication.kept):
            clear_failures(name, self._catalog)
        kept = {name: _explained(wait, results) for name, wait in publication.waiting.items()}
        waiting = {name: wait.sentence for name, wait in order.waiting.items() if last} | kept
        refused = order.refused if last else {}
        released = {name: result for name, result in results.items() if name not in kept}
        names = [name for name in in_order(order.facts.definitions) if name in results]
        rebuilt = _with(results, names, BuildOutcome.REBUILT)
        failed = _with(results, names, BuildOutcome.FAILED)
        if problem is None:
            status, message = _verdict(rebuilt, failed, refused, waiting)
        else:
            status = RebuildStatus.FAILURE
            message = f"{len(rebuilt)} index(es) rebuilt but not released: {problem}"
        result = RebuildResult(
            status=status,
            message=message,
            indexes_rebuilt=tuple(rebuilt),
            indexes_failed=tuple(failed),
            components={name: results[name] for name in names},
            release=release.number if release is not None else None,
            waiting=waiting,
            batch_ids=tuple(self._batch_ids(order.facts, released) if problem is None else ()),
            request_ids=tuple(row.event_id for row in order.rows if last and row.requested),
            woken_at=order.woken_at,
            started_at=order.facts.now,
            finished_at=self._clock.now(),
        )
        if release is not None:
            self._audit.record(
                AuditAction.RELEASED,
                who=self._by,
                subject=f"release {release.number}",
                components=list(rebuilt),
                requests=list(result.request_ids),
            )
        try:
            if release is None:
                self._announcer.report(result, traceparent=order.traceparent)
            else:
                self._announcer.announce(release, result, traceparent=order.traceparent)
        except RedisError as error:
            _log.error("result.not_announced", error=str(error))
            if release is not None:
                result = _not_announced(result, error)
        getattr(_log, _LEVELS[result.status])(
            "rebuild.finished",
            status=str(result.status),
            message=result.message,
            release=result.release,
            rebuilt=list(result.indexes_rebuilt),
            failed=list(result.indexes_failed),
        )
        return result

    def _commit(
        self, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> tuple[Publication, Exception | None]:
        """The new release, if there is one, and the error that kept it from being committed."""
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
                anyway=order.facts.requested
                | {*order.facts.corrupt, *order.facts.outdated, *order.facts.improved},
                reason=f"rebuilt {', '.join(sorted(built))}",
            )
        except (OSError, ArtifactError) as error:
            return Publication(), error
        if publication.release is not None:
            number = publication.release.number
            try:
                self._catalog.release_record.note(number)
            except SQLAlchemyError as error:  # the next comparison does it
                _log.warning("release.not_noted", release=number, error=str(error))
        return publication, None

    def _batch_ids(self, facts: Facts, results: Mapping[str, ComponentResult]) -> list[str]:
        """The batches that the rebuilt components cover and the versions before them did not.

        At most the newest `MOST_BATCHES` of each collection: a component that is built for the
        first time covers all there ever were. None where the catalog cannot be read: the release
        is announced all the same.
        """
        spans: dict[str, tuple[int, int]] = {}
        for name, result in results.items():
            if result.outcome is BuildOutcome.REBUILT:
                for collection, upto in result.covers.items():
                    after = _covered_before(name, collection, facts)
                    low, high = spans.get(collection, (after, upto))
                    spans[collection] = (min(low, after), max(high, upto))
        try:
            return [
                batch_id
                for collection, (after, upto) in sorted(spans.items())
                for batch_id in self._catalog.entries.batch_ids(
                    collection, after=max(after, upto - MOST_BATCHES), upto=upto
                )
            ]
        except Exception as error:  # noqa: BLE001 - whatever the database raises
            _log.error("batches.unknown", error=str(error))
            return []


def answer_of(parts: Sequence[RebuildResult]) -> RebuildResult:
    """The result of a whole pass, whose releases were several.

    Args:
        parts: the result of each, in their order; at least one.
    """
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return last
    rebuilt = [name for each in parts for name in each.indexes_rebuilt]
    failed = [name for each in parts for name in each.indexes_failed]
    status, message = _outcome(rebuilt, failed)
    others = [
        each.message  # what was refused, waits, or could not be released or announced
        for each in parts
        if each.status is not RebuildStatus.SUCCESS
        and each.message != _outcome(each.indexes_rebuilt, each.indexes_failed)[1]
    ]
    if others and status is RebuildStatus.SUCCESS:
        status = RebuildStatus.PARTIAL_SUCCESS
    return RebuildResult(
        status=status,
        message=shortened("; ".join([message, *others]), MAX_MESSAGE),
        indexes_rebuilt=tuple(rebuilt),
        indexes_failed=tuple(failed),
        components={name: found for each in parts for name, found in each.components.items()},
        release=max((each.release for each in parts if each.release is not None), default=None),
        waiting={name: why for each in parts for name, why in each.waiting.items()},
        batch_ids=tuple(dict.fromkeys(batch for each in parts for batch in each.batch_ids)),
        request_ids=last.request_ids,
        woken_at=first.woken_at,
        started_at=first.started_at,
        finished_at=last.finished_at,
    )


def _covered_before(name: str, collection: str, facts: Facts) -> int:
    """What the released version covers of a collection, in the collection's present epoch."""
    before, source = facts.versions.get(name), facts.sources.get(collection)
    if before is None or source is None or before.epochs.get(collection) != source.epoch:
        return 0
    return before.covers.get(collection, 0)


def _explained(wait: GroupWait, results: Mapping[str, ComponentResult]) -> str:
    """The members for which a group waits, with the results of those in this pass."""
    outcomes = {
        name: f"{'failed' if result.outcome is BuildOutcome.FAILED else 'was skipped'}: "
        f"{result.error}"
        for name, result in results.items()
        if name in wait.held_back_by and result.outcome is not BuildOutcome.REBUILT
    }
    return replace(wait, held_back_by={**wait.held_back_by, **outcomes}).sentence


def _with(
    results: Mapping[str, ComponentResult], names: Iterable[str], outcome: BuildOutcome
) -> list[str]:
    return [name for name in names if results[name].outcome is outcome]


def _not_announced(result: RebuildResult, error: Exception) -> RebuildResult:
    """The same result, when the release is committed and no message could be sent."""
    return result.model_copy(
        update={
            "status": RebuildStatus.PARTIAL_SUCCESS,
            "message": shortened(
                f"{len(result.indexes_rebuilt)} index(es) rebuilt "
                f"but reload notification failed: {error}",
                MAX_MESSAGE,
            ),
        }
    )


def _verdict(
    rebuilt: Sequence[str],
    failed: Sequence[str],
    refused: Mapping[str, str],
    waiting: Mapping[str, str],
) -> tuple[RebuildStatus, str]:
    """Status and message of a pass; a request that was refused, or a group that waits, is never
    a whole success.

    Args:
        refused: what was asked for by name and could not be built, with the reason.
        waiting: what waits for another member of its group, for whom and why.
    """
    status, message = _outcome(rebuilt, failed)
    if refused:
        reasons = "; ".join(f"{name} was not built: {reason}" for name, reason in refused.items())
        if rebuilt or failed:
            message = f"{message}; {reasons}"
            if status is RebuildStatus.SUCCESS:
                status = RebuildStatus.PARTIAL_SUCCESS
        else:
            status, message = RebuildStatus.FAILURE, reasons
    sentences = [each for each in dict.fromkeys(waiting.values()) if each not in refused.values()]
    if sentences:
        if status is RebuildStatus.SUCCESS:
            status = RebuildStatus.PARTIAL_SUCCESS
        before = "Nothing was built: " if message == _NOTHING else f"{message}; "
        message = before + "; ".join(sentences)
    return status, message


def _outcome(rebuilt: Sequence[str], failed: Sequence[str]) -> tuple[RebuildStatus, str]:
    if failed and not rebuilt:
        return RebuildStatus.FAILURE, "All index rebuilds failed"
    if failed:
        of_all = f"{len(rebuilt)} of {len(rebuilt) + len(failed)} index(es)"
        message = f"Rebuilt {of_all}; failed: {', '.join(failed)}"
        return RebuildStatus.PARTIAL_SUCCESS, message
    if rebuilt:
        return RebuildStatus.SUCCESS, f"Successfully rebuilt {len(rebuilt)} index(es)"
    return RebuildStatus.SUCCESS, _NOTHING
