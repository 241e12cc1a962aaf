"""What a pass has to say for itself: one result, in the words that operators know."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from indexrelay.health.dependencies import in_order
from indexrelay.health.facts import Facts
from indexrelay.schemas.limits import MAX_MESSAGE, shortened
from indexrelay.schemas.results import (
    BuildOutcome,
    ComponentResult,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.versions import Release
from indexrelay.storage.catalog import Catalog

_NOTHING = "Nothing was due"
MOST_BATCHES = 1000
"""Batch ids of one collection that a result names at most: a message is no archive."""


def summarise(
    results: Mapping[str, ComponentResult],
    *,
    facts: Facts,
    refused: Mapping[str, str],
    waiting: Mapping[str, str],
    release: Release | None,
    batch_ids: Sequence[str],
    request_ids: Sequence[str],
    woken_at: datetime | None,
    finished_at: datetime,
) -> RebuildResult:
    """The result of one pass, with its components in the order of their dependencies.

    Args:
        refused: what was asked for by name and could not be built, with the reason.
        waiting: what waits for another member of its group, for whom and why.
    """
    order = [name for name in in_order(facts.definitions) if name in results]
    rebuilt = _with(results, order, BuildOutcome.REBUILT)
    failed = _with(results, order, BuildOutcome.FAILED)
    status, message = _with_waiting(*_verdict(rebuilt, failed, refused), refused, waiting)
    return RebuildResult(
        status=status,
        message=message,
        indexes_rebuilt=tuple(rebuilt),
        indexes_failed=tuple(failed),
        components={name: results[name] for name in order},
        release=release.number if release is not None else None,
        waiting=dict(waiting),
        batch_ids=tuple(batch_ids),
        request_ids=tuple(request_ids),
        woken_at=woken_at,
        started_at=facts.now,
        finished_at=finished_at,
    )


def not_announced(result: RebuildResult, error: Exception) -> RebuildResult:
    """The same result, when the release stands but the readers were not told."""
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


def not_released(result: RebuildResult, error: Exception) -> RebuildResult:
    """The same result, when the versions were built but no release could be committed."""
    return result.model_copy(
        update={
            "status": RebuildStatus.FAILURE,
            "message": shortened(
                f"{len(result.indexes_rebuilt)} index(es) rebuilt but not released: {error}",
                MAX_MESSAGE,
            ),
        }
    )


def newly_covered(
    results: Mapping[str, ComponentResult], facts: Facts, catalog: Catalog
) -> list[str]:
    """The batches that the rebuilt components cover and the versions before them did not.

    At most the newest `MOST_BATCHES` of each collection: a component that is built for the first
    time covers all there ever were.
    """
    spans: dict[str, tuple[int, int]] = {}
    for name, result in results.items():
        if result.outcome is BuildOutcome.REBUILT:
            for collection, upto in result.covers.items():
                after = _covered_before(name, collection, facts)
                low, high = spans.get(collection, (after, upto))
                spans[collection] = (min(low, after), max(high, upto))
    return [
        batch_id
        for collection, (after, upto) in sorted(spans.items())
        for batch_id in catalog.entries.batch_ids(
            collection, after=max(after, upto - MOST_BATCHES), upto=upto
        )
    ]


def _covered_before(name: str, collection: str, facts: Facts) -> int:
    """What the released version covers of a collection, in the collection's present epoch."""
    before, source = facts.versions.get(name), facts.sources.get(collection)
    if before is None or source is None or before.epochs.get(collection) != source.epoch:
        return 0
    return before.covers.get(collection, 0)


def _with(
    results: Mapping[str, ComponentResult], order: Iterable[str], outcome: BuildOutcome
) -> list[str]:
    return [name for name in order if results[name].outcome is outcome]


def _verdict(
    rebuilt: Sequence[str], failed: Sequence[str], refused: Mapping[str, str]
) -> tuple[RebuildStatus, str]:
    status, message = _outcome(rebuilt, failed)
    if not refused:
        return status, message
    reasons = "; ".join(f"{name} was not built: {reason}" for name, reason in refused.items())
    if not rebuilt and not failed:
        return RebuildStatus.FAILURE, reasons
    if status is RebuildStatus.SUCCESS:
        status = RebuildStatus.PARTIAL_SUCCESS
    return status, f"{message}; {reasons}"


def _with_waiting(
    status: RebuildStatus,
    message: str,
    refused: Mapping[str, str],
    waiting: Mapping[str, str],
) -> tuple[RebuildStatus, str]:
    """The verdict, and every group that waits: one of these is never all is well."""
    sentences = [each for each in dict.fromkeys(waiting.values()) if each not in refused.values()]
    if not sentences:
        return status, message
    if status is RebuildStatus.SUCCESS:
        status = RebuildStatus.PARTIAL_SUCCESS
    said = "; ".join(sentences)
    return status, f"Nothing was built: {said}" if message == _NOTHING else f"{message}; {said}"


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
