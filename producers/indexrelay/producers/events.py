"""What a job adds in Redis: the events of committed batches, and of requests.

The connection is opened when it is first needed and again after it was lost, so that a job can
start, and commit, while Redis is away. An event carries no truth: one that cannot be added is
logged, and the rebuilder's reconcile loop finds the commit in the catalog. A server that refuses,
and a backlog that is too long, are errors for the job: it should slow down.

Validating an envelope costs ten times what validating its data costs, and a job sends nearly the
same one each time. So the first event of each type and subject is validated whole, and its text
serves the later ones.
"""

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pydantic_core import to_json
from redis.exceptions import RedisError

from indexrelay.producers.errors import BacklogFullError, EventRefusedError, NoRunningServerError
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BatchCompleted, Event, EventData
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Commit
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.keys import REBUILDERS_GROUP, Keys
from indexrelay.streams.publisher import publish_many
from indexrelay.streams.retention import backlog
from indexrelay.streams.server import embedded_url

_log = get_logger(__name__)


class EventDraft(NamedTuple):
    """The content of one event."""

    data: EventData
    subject: str
    event_id: str | None = None
    """Makes it a repeat of a row that is in the inbox already; ``None``: drawn."""
    traceparent: str | None = None


class EventSender:
    """Adds a job's events to the stream; safe to use from several threads."""

    def __init__(self, settings: Settings, *, connection: "JobConnection", clock: Clock) -> None:
        self._key = Keys(settings.namespace).events
        self._connection = connection
        self._clock = clock
        self._envelopes = Envelopes(f"indexrelay/producer/{socket.gethostname()}")
        self._backlog = BacklogGauge(
            self._key, max_backlog=settings.producer.max_backlog, clock=clock
        )

    def announce(self, commits: Sequence[Commit], traceparents: Sequence[str | None]) -> bool:
        """Add the event of each commit, all in one round trip; whether they were added.

        Raises:
            BackPressureError: they were not added, and the commits stand.
        """
        for commit in commits:
            _log.info(
                "batch.committed",
                collection=commit.collection,
                batch_id=commit.batch_id,
                generation=commit.generation,
                upserts=commit.upserts,
                deletes=commit.deletes,
                repeated=commit.repeated,
            )
        most = self._backlog.max_backlog
        if most is not None and self._backlog.is_full(self._connection):
            raise BacklogFullError(commits, most)
        drafts = [
            EventDraft(_completed(commit), commit.collection, traceparent=traceparent)
            for commit, traceparent in zip(commits, traceparents, strict=True)
        ]
        try:
            return self.send(drafts)
        except BackendRefusedError as error:
            raise EventRefusedError(commits, str(error)) from error

    def send(self, drafts: Sequence[EventDraft]) -> bool:
        """Add events in this order, in as few round trips as is sensible; whether all were added.

        Where they were not, a warning is logged.

        Raises:
            BackendRefusedError: the server is there, and refused them.
        """
        raws = list(self._envelopes.write(drafts, self._clock.now()))
        failpoint("producer.before_emit")
        try:
            publish_many(self._connection.get(), self._key, raws)
        except (RedisError, IndexRelayError, OSError) as error:
            _log.warning(
                "event.not_added",
                type=drafts[0].data.TYPE,
                subject=drafts[0].subject,
                events=len(drafts),
                error=str(error),
                consequence="nothing is lost: the reconcile loop finds it in the catalog",
            )
            if isinstance(error, BackendRefusedError):
                raise
            return False
        failpoint("producer.after_emit")
        return True


class JobConnection:
    """A job's connection to Redis; safe to use from several threads.

    Opened when it is first needed, so that a job can start, and commit, while Redis is away.
    """

    def __init__(self, settings: Settings, given: Connection | None = None) -> None:
        """``given`` is used instead of one of its own, and stays the caller's to close."""
        self._settings = settings
        self._given = given
        self._opened: Connection | None = None
        self._opening = threading.Lock()

    def get(self) -> Connection:
        """The connection; raises as `open_connection` does."""
        if self._given is not None:
            return self._given
        with self._opening:
            if self._opened is None:
                self._opened = open_connection(self._settings)
            return self._opened

    def close(self) -> None:
        """Close what was opened here; safe twice."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(RedisError, OSError):  # the server may be gone already
                opened.close()


def open_connection(settings: Settings, *, warn: bool = True) -> Connection:
    """Open a connection by the URL in the settings, else to the embedded server that runs already.

    A job never starts a server: it would end with the job, and others may use it by then. The one
    to use is that of ``indexrelay up`` or of a rebuilder, in the same data folder. A server that is
    away is noticed at its first use.

    Args:
        settings: the installation.
        warn: log at once that a server is set up in a way that loses data; a command shows it in
            its answer instead.

    Raises:
        NoRunningServerError: no URL is given, and no embedded server was started there.
        RedisUrlError: the URL cannot be read.
    """
    url = settings.redis_url or embedded_url(settings.data_dir)
    if url is None:
        raise NoRunningServerError(settings.data_dir)
    return Connection.open(url, timeout_seconds=settings.redis.timeout_seconds, warn=warn)


_ID_BYTES: Final = 16
_MOST_SHARED: Final = 1000
"""A job has a few collections; one with more validates some envelopes again."""


class Envelopes:
    """Writes the events of one source; safe to use from several threads."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._shared: dict[tuple[str, str], bytes] = {}
        """By type and subject: the text that their envelopes share."""

    def write(self, drafts: Sequence[EventDraft], time: datetime) -> Iterator[bytes]:
        """The bytes of each event, as `Event.to_bytes` gives them but for the order of names."""
        ids = secrets.token_hex(_ID_BYTES * len(drafts)).encode()
        moment = to_json(time)
        for number, draft in enumerate(drafts):
            if draft.event_id is not None or draft.traceparent is not None:
                yield self._event(draft, time).to_bytes()
                continue
            shared = self._shared.get((draft.data.TYPE, draft.subject)) or self._share(draft, time)
            drawn = ids[2 * _ID_BYTES * number : 2 * _ID_BYTES * (number + 1)]
            data = to_json(draft.data)
            yield b'%b,"time":%b,"id":"%b","data":%b}' % (shared, moment, drawn, data)

    def _event(self, draft: EventDraft, time: datetime) -> Event:
        return Event.of(
            draft.data,
            source=self._source,
            time=time,
            id=draft.event_id,
            subject=draft.subject,
            traceparent=draft.traceparent,
        )

    def _share(self, draft: EventDraft, time: datetime) -> bytes:
        """Validate a whole event, and keep the text that the next ones of its kind share."""
        event = self._event(draft, time)
        shared = to_json(event, exclude={"id", "time", "data"}, exclude_none=True)[:-1]
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()
        self._shared[draft.data.TYPE, draft.subject] = shared
        return shared


_HOLDS_SECONDS: Final = 1.0
"""How long one look holds: it takes a round trip, and of a long stream more."""


class BacklogGauge:
    """Whether the rebuilders keep up with the events; safe to use from several threads."""

    def __init__(self, key: str, *, max_backlog: int | None, clock: Clock) -> None:
        self.max_backlog = max_backlog
        """``None``: any number of events may wait."""
        self._key = key
        self._clock = clock
        self._look_at = clock.monotonic()
        self._full = False
        self._looking = threading.Lock()

    def is_full(self, connection: JobConnection) -> bool:
        """Whether more than ``max_backlog`` events wait for a rebuilder.

        Where that cannot be found out it is not: adding the event meets the same error.
        """
        with self._looking:
            now = self._clock.monotonic()
            if self.max_backlog is not None and now >= self._look_at:
                self._look_at = now + _HOLDS_SECONDS
                self._full = self._waiting(connection, self.max_backlog) > self.max_backlog
            return self._full

    def _waiting(self, connection: JobConnection, most: int) -> int:
        try:
            return backlog(connection.get(), self._key, REBUILDERS_GROUP, most=most)
        except (RedisError, IndexRelayError, OSError) as error:
            _log.debug("backlog.unknown", error=str(error))
            return 0


def _completed(commit: Commit) -> BatchCompleted:
    return BatchCompleted(
        collection=commit.collection,
        epoch=commit.epoch,
        batch_id=commit.batch_id,
        generation=commit.generation,
        upserts=commit.upserts,
        deletes=commit.deletes,
    )
