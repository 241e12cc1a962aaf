"""What can go wrong for an analysis job, and what it can do about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion
from indexrelay.schemas.messages import ComponentFailure, LoadOutcome
from indexrelay.storage.catalog import Commit

_SHOWN = 5
"""How many ids or readers a message names; more would bury the sentence."""


class UndeclaredCollectionError(UnknownNameError):
    """Raised when a job names a collection that the settings do not declare."""

    def __init__(self, collection: str, known: Iterable[str]) -> None:
        super().__init__(
            f"the settings declare no collection {collection!r}{suggestion(collection, known)}; "
            f"add a table [collections.{collection}] with its dimension"
        )
        self.collection = collection


class UndeclaredComponentError(UnknownNameError):
    """Raised when a rebuild is requested of a component that the settings do not declare."""

    def __init__(self, component: str, known: Iterable[str]) -> None:
        super().__init__(
            f"the settings declare no component {component!r}{suggestion(component, known)}"
        )
        self.component = component


class NoRunningServerError(IndexRelayError):
    """Raised when no Redis URL is set and the embedded server of the data folder does not run."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"no server runs in {data_dir}: give the URL of another in redis.url "
            f"(INDEXRELAY_REDIS__URL), or start one: {commands.UP}"
        )
        self.data_dir = data_dir


class WrongSourceError(IndexRelayError):
    """Raised when entries are handed over for a collection that reads them elsewhere, or when
    `batch_completed` is called for one whose entries the catalog keeps."""

    def __init__(self, collection: str, source: str) -> None:
        advice = (
            "commit its entries with batch()"
            if source == "catalog"
            else "write them there, then call batch_completed()"
        )
        super().__init__(f"the entries of {collection!r} come from its {source}: {advice}")
        self.collection = collection
        self.source = source


class NotCommittedError(IndexRelayError):
    """Raised when the commit of a batch is asked for that has none."""

    def __init__(self, collection: str, reason: str) -> None:
        super().__init__(f"batch for {collection!r} has no commit: {reason}")
        self.collection = collection
        self.reason = reason


class BackPressureError(IndexRelayError):
    """Raised when batches were committed and their events could not be added: slow down.

    The commits stand, and rebuilders find them without the events. The same ``batch_id`` again
    commits nothing twice.
    """

    def __init__(self, commits: Sequence[Commit], reason: str) -> None:
        commit = commits[-1]
        if len(commits) == 1:
            what = (
                f"generation {commit.generation} of {commit.collection!r} is committed and will be "
                "found, but its event was not added"
            )
        else:
            what = (
                f"{len(commits)} batches, the last of them generation {commit.generation} of "
                f"{commit.collection!r}, are committed and will be found, but not all of their "
                "events were added"
            )
        super().__init__(f"{what}: {reason}")
        self.commits = tuple(commits)
        self.commit = commit
        """The last of them; of a single batch, its own."""
        self.reason = reason


class EventRefusedError(BackPressureError):
    """Raised when Redis refuses the event of a batch that was committed; its answer is chained."""


class BacklogFullError(BackPressureError):
    """Raised when more than ``max_backlog`` events wait for a rebuilder; the batch is committed."""

    def __init__(self, commits: Sequence[Commit], max_backlog: int) -> None:
        super().__init__(
            commits,
            f"more than {max_backlog:,} events wait for a rebuilder; commit larger batches, raise "
            f"producer.max_backlog, or see that one runs and keeps up: {commands.STATUS}",
        )
        self.max_backlog = max_backlog


class GroupFullError(IndexRelayError):
    """Raised when as many batches as may wait for the next transaction do so; nothing is written.
    Hand it over again in a moment."""

    def __init__(self, max_waiting: int, *, closed: bool) -> None:
        """``closed``: nothing is taken any more."""
        why = "no more is taken" if closed else f"{max_waiting} batches wait for their commit"
        super().__init__(f"{why}; nothing was written, and the same again may be in a moment")
        self.max_waiting = max_waiting
        self.closed = closed


class BatchClosedError(IndexRelayError):
    """Raised when a batch is changed, or entered again, after its ``with`` block ended."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"the batch for {collection!r} has ended; open another with producer.batch()"
        )
        self.collection = collection


@dataclass(frozen=True, kw_only=True)
class Behind:
    """One reader process that does not serve a commit yet, and what it serves."""

    reader: str
    """Its id."""
    process: str | None = None
    """Its ``HOST:PID``, since several processes may have one id; ``None``: no one process."""
    component: str | None = None
    """``None``: the reader serves nothing of the collection, or is not there."""
    generation: int | None = None
    """What it serves of the collection; ``None``: nothing, or another epoch's."""
    outcome: LoadOutcome | None = None
    error: str | None = None

    def __str__(self) -> str:
        who = self.reader if self.process is None else f"{self.reader} ({self.process})"
        if self.component is None:
            return f"{who}: {self.error or 'serves nothing of it'}"
        served = "nothing" if self.generation is None else f"generation {self.generation}"
        why = f" ({self.error})" if self.error else ""
        return f"{who}: {self.component} at {served}{why}"


class NotServedError(IndexRelayError):
    """Raised when readers do not serve a commit in time, or when a component of it failed.

    The commit itself stands in every case: the pipeline keeps trying, and waiting again is safe.
    """

    def __init__(
        self,
        *,
        collection: str,
        generation: int,
        seconds: float,
        behind: Sequence[Behind],
        failures: Mapping[str, ComponentFailure],
        kept_back: Mapping[str, str],
        other_settings: Sequence[str] = (),
        reason: str | None = None,
    ) -> None:
        parts = [
            reason,
            *(f"component {name} failed: {failure.error}" for name, failure in failures.items()),
            *(f"component {name} is {why}" for name, why in kept_back.items()),
            _listed(other_settings, "; ") if other_settings else None,
            _listed(map(str, behind), ", ") if behind else None,
        ]
        super().__init__(
            f"generation {generation} of {collection!r} is committed, but not served after "
            f"{seconds:.1f} s: {'; '.join(part for part in parts if part)}; waiting again is safe, "
            f"and what is wrong says: {commands.STATUS}"
        )
        self.collection = collection
        self.generation = generation
        self.seconds = seconds
        self.behind = tuple(behind)
        self.failures = dict(failures)
        self.kept_back = dict(kept_back)
        self.other_settings = tuple(other_settings)
        self.reason = reason


def _listed(items: Iterable[str], separator: str) -> str:
    """The first few, and how many more there are."""
    listed = list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return separator.join(listed[:_SHOWN]) + more
