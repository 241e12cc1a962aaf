"""What a reader says of itself, and for how long that counts.

Its presence key holds its whole current state under a TTL, and is renewed at a third of it, also
while a long load keeps the reloading thread busy. A stream of reports carries the changes, one for
each label, so that a reader writes in no place where another one does. Both are for others: when
Redis is away the reader serves on and says nothing.
"""

import contextlib
import threading
from collections.abc import Iterator

from redis.exceptions import RedisError

from indexrelay.reloaders.connecting import Link, is_silence
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.events import Event, ReleaseApplied
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.message_size import fitted_reader, fitted_report
from indexrelay.schemas.results import ReaderState
from indexrelay.schemas.supervised_thread import SupervisedThread
from indexrelay.streams import BackendRefusedError, Keys, Presence, publish

log = get_logger(__name__)


class Reporter:
    """Speaks for one reader; safe to use from several threads."""

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
        self._speaking = threading.Lock()
        self._said = False
        self._unheard = False
        self.silent = False
        """Whether the server did not answer when it was told last; a refusal is an answer."""

    @property
    def renew_seconds(self) -> float:
        """How often the state has to be said again: two may get lost before it counts as gone."""
        return self._ttl_seconds / 3

    def say(self, state: ReaderState) -> None:
        """Replace the state that others see."""
        with self._speaking:
            self._publish(state)

    def tell(self, applied: ReleaseApplied) -> None:
        """Add what became of a release to the reports."""
        event = Event.of(
            fitted_report(applied),
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
        except (RedisError, BackendRefusedError) as error:
            # Presence says the same as soon as it can be said again.
            log.warning("report.not_published", release=applied.release, error=str(error))

    @contextlib.contextmanager
    def renewing(self, state: ReaderState) -> Iterator[None]:
        """Say ``state`` again and again while the body takes long; at once if it is the first."""
        done = threading.Event()
        # Not joined: it may hang in a stalled server, and a swap is not to wait for that. What is
        # said after the body is said later, since both take the same lock.
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
            answered: whether the server answered whoever asked it last. One that did not would keep
                us waiting once more, and the TTL does the same a little later.
        """
        with self._speaking:
            said, self._said = self._said, False
            told = said and answered and not self.silent
            connection = self._link.connection if told else None
            if connection is None:
                return
            try:
                Presence(connection, self._keys, "reader").remove(member)
            except (RedisError, BackendRefusedError) as error:
                log.debug("presence.not_withdrawn", reader=member, error=str(error))

    def _renew_until(self, done: threading.Event, state: ReaderState) -> None:
        while not done.wait(self.renew_seconds if self._said else 0):
            with self._speaking:
                if not done.is_set():
                    self._publish(state.model_copy(update={"updated_at": self._clock.now()}))

    def _publish(self, state: ReaderState) -> None:
        self._said = True
        connection = self._link.connection
        if connection is None:
            return
        raw = fitted_reader(state).model_dump_json().encode()
        try:
            Presence(connection, self._keys, "reader").publish(
                state.member, raw, ttl_seconds=self._ttl_seconds
            )
        except (RedisError, BackendRefusedError) as error:
            self.silent = is_silence(error)
            if not self._unheard:
                log.warning("presence.not_published", reader=state.reader, error=str(error))
            self._unheard = True
        else:
            if self._unheard:
                log.info("presence.published", reader=state.reader)
            self._unheard = self.silent = False
