"""What a reader publishes of itself in Redis, for how long that counts, and by which connection.

The presence key holds the whole current state under a TTL. It is renewed at a third of the TTL,
also while a long load keeps the reloading thread busy. A stream of reports carries the changes;
each label has a stream of its own. A reader can do without its connection: it is opened when it is
first needed, on the reloading thread, and while Redis is away the reader serves on and publishes
nothing.
"""

import contextlib
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from redis.exceptions import RedisError

from indexrelay.schemas.clock import Clock, SupervisedThread
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import (
    Event,
    ReaderState,
    ReleaseApplied,
    fitted_states,
)
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection, Keys, Presence, RedisUrlError, publish
from indexrelay.streams.errors import is_unanswered
from indexrelay.streams.server import embedded_url

log = get_logger(__name__)


class Link:
    """A reader's connection, if there is one; closes only what it opened.

    The one that was handed in is used as it is. Otherwise one is opened when it is first needed.
    Without a URL it is to the embedded server of the data folder, from when that is first found
    there; until then there is none, and the reader lives from the artifact store alone.
    """

    def __init__(self, settings: Settings, given: Connection | None) -> None:
        self._settings = settings
        self._given = given
        self._own: Connection | None = None
        self._unusable = False
        self._unreachable = LogOnce()

    @property
    def connection(self) -> Connection | None:
        """The connection; ``None``: no server is configured, and no embedded one was started."""
        if self._given is not None:
            return self._given
        if self._own is None and not self._unusable:
            url = self._settings.redis_url or self._embedded_url()
            if url is None:
                return None
            try:
                self._own = Connection.open(
                    url,
                    timeout_seconds=self._settings.redis.timeout_seconds,
                    block_seconds=self._settings.reader.block_seconds,
                )
            except RedisUrlError as error:
                self._unusable = True
                log.error("redis.url_unusable", error=str(error))  # noqa: TRY400 - the sentence is enough
        return self._own

    def _embedded_url(self) -> str | None:
        """The embedded server's; ``None``, and a line in the log once, where it cannot be seen."""
        url, failed = None, {}
        try:
            url = embedded_url(self._settings.data_dir)
        except OSError as error:
            failed = {"redis.unreachable": f"{type(error).__name__}: {error}"}
        for event, error_text in self._unreachable.new(failed).items():
            log.warning(
                event,
                error=error_text,
                consequence="releases are looked for every poll_seconds, and nobody sees "
                "that this reader is there",
                advice="let its user read that folder, or run a Redis and name it in redis.url",
            )
        return url

    def forget(self) -> None:
        """In a forked child: leave the parent's sockets to the parent, and open new ones."""
        self._own = None

    def close(self) -> None:
        """Close what was opened here; safe twice."""
        own, self._own = self._own, None
        if own is not None:
            own.close()


class Reporter:
    """Publishes the presence and the reports of one reader; safe to use from several threads."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        *,
        ttl_seconds: float,
        keep_reports_seconds: float,
        clock: Clock,
    ) -> None:
        self._link = link
        self._keys = keys
        self._ttl_seconds = ttl_seconds
        self._keep_reports_seconds = keep_reports_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._published = False
        self._failing = False
        self.silent = False
        """Whether the server did not answer when it was written to last; a refusal is an answer."""

    @property
    def renew_seconds(self) -> float:
        """How often the state has to be published: two may get lost before it counts as gone."""
        return self._ttl_seconds / 3

    def publish(self, state: Callable[[], ReaderState]) -> None:
        """Replace the state that others see, by what it is once it is this thread's turn."""
        with self._lock:
            self._publish(state())

    def report(self, applied: ReleaseApplied) -> None:
        """Add what became of a release to the reports."""
        event = Event.of(
            fitted_states(applied),
            source=f"/{self._keys.namespace}/readers/{applied.reader}",
            subject=str(applied.release),
            time=self._clock.now(),
        )
        connection = self._link.connection
        if connection is None:
            return
        try:
            publish(
                connection,
                self._keys.reports(applied.reader),
                event.to_bytes(),
                keep_seconds=self._keep_reports_seconds,
            )
        except RedisError as error:
            # Presence shows the same as soon as it can be published again.
            log.warning("report.not_published", release=applied.release, error=str(error))

    @contextlib.contextmanager
    def renewing(self, state: Callable[[], ReaderState]) -> Iterator[None]:
        """Publish the state again and again while the body runs; at once if it is the first."""
        done = threading.Event()
        # Not joined: it may hang in a stalled server, and a swap is not to wait for that. What is
        # published after the body comes later, since both take the same lock.
        SupervisedThread(
            lambda: self._renew_until(done, state), name="indexrelay-presence", wait=done.wait
        ).start()
        try:
            yield
        finally:
            done.set()

    def withdraw(self, member: str, *, answered: bool = True) -> None:
        """Be gone at once, instead of being missed after the TTL.

        Args:
            answered: whether the server answered when it was asked last. One that did not would
                keep the caller waiting once more, and the TTL does the same a little later.
        """
        with self._lock:
            published, self._published = self._published, False
            try_it = published and answered and not self.silent
            connection = self._link.connection if try_it else None
            if connection is None:
                return
            try:
                Presence(connection, self._keys, "reader").remove(member)
            except RedisError as error:
                log.debug("presence.not_withdrawn", reader=member, error=str(error))

    def _renew_until(self, done: threading.Event, state: Callable[[], ReaderState]) -> None:
        while not done.wait(self.renew_seconds if self._published else 0):
            with self._lock:
                if not done.is_set():
                    self._publish(state())

    def _publish(self, state: ReaderState) -> None:
        self._published = True
        connection = self._link.connection
        if connection is None:
            return
        shown = state.model_copy(update={"memory_bytes": resident_bytes()})
        raw = fitted_states(shown).model_dump_json().encode()
        try:
            Presence(connection, self._keys, "reader").publish(
                state.member, raw, ttl_seconds=self._ttl_seconds
            )
        except RedisError as error:
            self.silent = is_unanswered(error)
            if not self._failing:
                log.warning("presence.not_published", reader=state.reader, error=str(error))
            self._failing = True
        else:
            if self._failing:
                log.info("presence.published", reader=state.reader)
            self._failing = self.silent = False


def resident_bytes() -> int | None:
    """What this process has in memory, mapped files included, as proc(5) has it in ``statm``;
    ``None``: the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * resource.getpagesize()
