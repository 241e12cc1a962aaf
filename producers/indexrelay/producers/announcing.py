"""The event of a batch that was committed: added, or the job is told why it was not.

A server that does not answer is an outage: it is logged, and the reconcile loop finds the commit.
One that refuses, and rebuilders that do not follow, are for the job to hear: it should slow down.
"""

from indexrelay.producers.errors import BacklogFullError, EventRefusedError
from indexrelay.producers.signals import Signals
from indexrelay.schemas.events import BatchCompleted
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Commit
from indexrelay.streams.errors import BackendRefusedError

log = get_logger(__name__)


def announce(
    commit: Commit, *, signals: Signals, max_backlog: int | None, traceparent: str | None
) -> bool:
    """Add the event; whether it went out.

    Raises:
        BackPressureError: it was not added, and the commit stands.
    """
    failpoint("producer.after_commit")
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
        raise BacklogFullError(commit, max_backlog)
    try:
        return signals.emit(
            BatchCompleted(
                collection=commit.collection,
                epoch=commit.epoch,
                batch_id=commit.batch_id,
                generation=commit.generation,
                upserts=commit.upserts,
                deletes=commit.deletes,
            ),
            subject=commit.collection,
            traceparent=traceparent,
            refusal_raises=True,
        )
    except BackendRefusedError as error:
        raise EventRefusedError(commit, str(error)) from error
