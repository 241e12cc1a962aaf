"""How long a batch took to be served, and how much of that was the pipeline's own.

Own is what is neither the quiet wait (asked for by ``quiet_seconds``) nor build and verification:
events, bookkeeping, leases, the start of the child processes, release, reload and report. Builds
run side by side, so it is the union of their times that is taken off, not the sum.
"""

from collections.abc import Iterable

from indexrelay.schemas.results import RebuildResult


def own_share(event_to_served: float, results: Iterable[RebuildResult]) -> float:
    """Seconds of one batch that were the pipeline's own.

    Args:
        event_to_served: seconds from the event to the last reader.
        results: the rebuilds that covered the batch.
    """
    spent = []
    for result in results:
        if result.woken_at is not None:
            spent.append((result.woken_at.timestamp(), result.started_at.timestamp()))
        for component in result.components.values():
            if component.started_at is not None:
                start = component.started_at.timestamp()
                spent.append((start, start + component.seconds))
    return max(0.0, event_to_served - covered_seconds(spent))


def covered_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
