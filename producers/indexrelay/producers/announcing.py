"""The events of batches that were committed: added, or the job is told why they were not.

A server that does not answer is an outage: it is logged, and the reconcile loop finds the commits.
One that refuses, and rebuilders that do not follow, are for the job to hear: it should slow down.
"""

from collections.abc import Sequence

from indexrelay.producers.enveloping import Said
from indexrelay.producers.errors import BacklogFullError, EventRefusedError
from indexrelay.producers.signals import Signals
from indexrelay.schemas.events import BatchCompleted
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Commit
from indexrelay.streams.errors import BackendRefusedError

log = get_logger(__name__)


def announce(
    commits: Sequence[Commit],
    traceparents: Sequence[str | None],
    *,
    signals: Signals,
    max_backlog: int | None,
) -> bool:
    """Add the event of each commit, all in one round trip; whether they went out.

    Raises:
        BackPressureError: they were not added, and the commits stand.
    """
    failpoint("producer.after_commit")
    for commit in commits:
        log.info(
            "batch.committed",
            collection=commit.collection,
            batch_id=commit.batch_id,
            generation=commit.generation,
            upserts=commit.upserts,
            deletes=commit.deletes,
            repeated=commit.repeated,
        )
    if max_backlog is not None and signals.backlog_is_full():
        raise BacklogFullError(commits, max_backlog)
    try:
        return signals.emit_many(
            [
                Said(_completed(commit), commit.collection, traceparent=traceparent)
                for commit, traceparent in zip(commits, traceparents, strict=True)
            ],
            refusal_raises=True,
        )
    except BackendRefusedError as error:
        raise EventRefusedError(commits, str(error)) from error


def _completed(commit: Commit) -> BatchCompleted:
    return BatchCompleted(
        collection=commit.collection,
        epoch=commit.epoch,
        batch_id=commit.batch_id,
        generation=commit.generation,
        upserts=commit.upserts,
        deletes=commit.deletes,
    )
