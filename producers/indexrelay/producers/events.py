"""What a job says in Redis: the events of committed batches, and requests.

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
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pydantic_core import to_json
from redis.exceptions import RedisError

from indexrelay.producers.errors import BacklogFullError, EventRefusedError, NoRunningServerError
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    BatchCompleted,
    Event,
    EventData,
    ReaderState,
    RebuilderState,
    Role,
)
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Commit
from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import backlog
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.keys import REBUILDERS_GROUP, Keys
from indexrelay.streams.presence import Presence, Roster, StateT, members_of
from indexrelay.streams.publisher import publish_many
from indexrelay.streams.server import embedded_url


def open_connection(settings: Settings, *, warn: bool = True) -> Connection:
    """Open a connection as the settings say; a server that is away is met at its first use.

    Args:
        settings: the installation.
        warn: log it at once; a command says it in its answer.

    Raises:
        NoRunningServerError: no URL is given, and no embedded server was started there.
        RedisUrlError: the URL cannot be read.
    """
    url = settings.redis_url or embedded_url(settings.data_dir)
    if url is None:
        raise NoRunningServerError(settings.data_dir)
    return Connection.open(url, timeout_seconds=settings.redis.timeout_seconds, warn=warn)


_ID_BYTES: Final = 16
_MOST_KINDS: Final = 1000
"""A job has a few collections; whoever has more than this pays for some envelopes again."""


class EventDraft(NamedTuple):
    """What one event is to say."""

    data: EventData
    subject: str
    event_id: str | None = None
    """Makes it a repeat of a row that is in the inbox already; ``None``: drawn."""
    traceparent: str | None = None


class Envelopes:
    """Writes the events of one source; safe to use from several threads."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._shared: dict[tuple[str, str], bytes] = {}

    def written(self, said: Sequence[EventDraft], time: datetime) -> Iterator[bytes]:
        """The bytes of each event, as `Event.to_bytes` gives them but for the order of names."""
        ids = secrets.token_hex(_ID_BYTES * len(said)).encode()
        moment = to_json(time)
        for number, each in enumerate(said):
            if each.event_id is not None or each.traceparent is not None:
                yield self._event(each, time).to_bytes()
                continue
            shared = self._shared.get((each.data.TYPE, each.subject)) or self._share(each, time)
            drawn = ids[2 * _ID_BYTES * number : 2 * _ID_BYTES * (number + 1)]
            data = to_json(each.data)
            yield b'%b,"time":%b,"id":"%b","data":%b}' % (shared, moment, drawn, data)

    def _event(self, said: EventDraft, time: datetime) -> Event:
        return Event.of(
            said.data,
            source=self._source,
            time=time,
            id=said.event_id,
            subject=said.subject,
            traceparent=said.traceparent,
        )

    def _share(self, said: EventDraft, time: datetime) -> bytes:
        """Validate a whole event, and keep the text of what the next ones of its kind share."""
        event = self._event(said, time)
        shared = to_json(event, exclude={"id", "time", "data"}, exclude_none=True)[:-1]
        if len(self._shared) >= _MOST_KINDS:
            self._shared.clear()
        self._shared[said.data.TYPE, said.subject] = shared
        return shared


log = get_logger(__name__)
_HOLDS_SECONDS = 1.0


class BacklogGauge:
    """Watches one events stream; safe to use from several threads."""

    def __init__(self, key: str, *, max_backlog: int | None, clock: Clock) -> None:
        self._key = key
        self._max_backlog = max_backlog
        self._clock = clock
        self._look_at = clock.monotonic()
        self._over = False
        self._looking = threading.Lock()

    def is_full(self, connection: Connection) -> bool:
        """Whether more than ``max_backlog`` events wait for a rebuilder."""
        if self._max_backlog is None:
            return False
        with self._looking:
            now = self._clock.monotonic()
            if now >= self._look_at:
                self._look_at = now + _HOLDS_SECONDS
                self._over = self._look(connection, self._max_backlog)
            return self._over

    def _look(self, connection: Connection, most: int) -> bool:
        try:
            return backlog(connection, self._key, REBUILDERS_GROUP, most=most) > most
        except RedisError as error:
            log.debug("backlog.unknown", error=str(error))
            return False


_ROSTER_SECONDS = 0.5
"""How long it is taken that the same processes are there."""


class Signals:
    """A job's side of Redis; safe to use from several threads."""

    def __init__(
        self,
        *,
        keys: Keys,
        clock: Clock,
        source: str,
        connect: Callable[[], Connection],
        connection: Connection | None = None,
        max_backlog: int | None = None,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._envelopes = Envelopes(source)
        self._connect = connect
        self._given = connection
        self._opened: Connection | None = None
        self._opening = threading.Lock()
        self._rosters: dict[Role, tuple[float, Roster]] = {}
        """Who was there, and when that was."""
        self._gauge = BacklogGauge(keys.events, max_backlog=max_backlog, clock=clock)

    def emit(
        self,
        data: EventData,
        *,
        subject: str,
        event_id: str | None = None,
        traceparent: str | None = None,
        refusal_raises: bool = False,
    ) -> bool:
        """Add an event to the events stream; ``False``, and a warning, when that cannot be done.

        ``event_id`` makes it a repeat of a row that is in the inbox already; ``None``: drawn.

        Raises:
            BackendRefusedError: with ``refusal_raises``: the server is there, and said no.
        """
        said = EventDraft(data, subject, event_id, traceparent)
        return self.emit_many([said], refusal_raises=refusal_raises)

    def emit_many(self, said: Sequence[EventDraft], *, refusal_raises: bool = False) -> bool:
        """The same for several events, in this order, in as few round trips as is sensible.

        ``False``: not all of them were added, and perhaps none.
        """
        raws = list(self._envelopes.written(said, self._clock.now()))
        failpoint("producer.before_emit")
        try:
            publish_many(self.connection, self._keys.events, raws)
        except (RedisError, IndexRelayError, OSError) as error:
            log.warning(
                "event.not_emitted",
                type=said[0].data.TYPE,
                subject=said[0].subject,
                events=len(said),
                error=str(error),
                consequence="nothing is lost: the reconcile loop finds it in the catalog",
            )
            if refusal_raises and isinstance(error, BackendRefusedError):
                raise
            return False
        failpoint("producer.after_emit")
        return True

    def backlog_is_full(self) -> bool:
        """Whether more events than ``max_backlog`` wait; no, where that cannot be said."""
        try:
            connection = self.connection
        except (RedisError, IndexRelayError, OSError):
            return False  # adding the event says the same aloud
        return self._gauge.is_full(connection)

    def readers(self, *, known: bool = False) -> list[ReaderState]:
        """What every live reader process says of itself; one of another major version is left out.

        Args:
            known: one that came within the last half second may be missing. For whoever looks
                again and again: finding everyone costs more than reading what they say.

        Raises:
            RedisError, IndexRelayError, OSError: presence cannot be read.
        """
        return self._present(ReaderState, known=known)

    def rebuilders(self, *, known: bool = False) -> list[RebuilderState]:
        """What every live rebuilder process says of itself; as `readers`."""
        return self._present(RebuilderState, known=known)

    def _present(self, model: type[StateT], *, known: bool) -> list[StateT]:
        connection, now = self.connection, self._clock.monotonic()
        at, roster = self._rosters.get(model.ROLE, (now, None))
        if roster is None or not known or now - at >= _ROSTER_SECONDS:
            roster = Presence(connection, self._keys, model.ROLE).members()
            self._rosters[model.ROLE] = now, roster
        members = members_of(connection, self._keys, model, roster=roster)
        return list(members.known.values())

    @property
    def connection(self) -> Connection:
        """The connection that was given, or the one that is opened now."""
        if self._given is not None:
            return self._given
        with self._opening:
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    def close(self) -> None:
        """Close what was opened here; a connection that was given stays open."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            # The server may be gone already; there is nothing left to tell it.
            with contextlib.suppress(RedisError, OSError):
                opened.close()


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
                EventDraft(_completed(commit), commit.collection, traceparent=traceparent)
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
