"""The embedded server, kept alive for as long as a role or ``indexrelay up`` runs.

Everything survives a server that is away, but nothing new is built without it, and on one machine
nobody else would start it again. So it is asked once a second. One that refuses, or is silent for
a while, is stopped, for it may still run, cut off from a folder that somebody removed; then it is
started anew. Where that fails, the pause before the next attempt doubles.
"""

from contextlib import closing
from pathlib import Path
from typing import Self

from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import TimeoutError as NoAnswerError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.connection import Connection
from indexrelay.streams.server import EmbeddedServer

log = get_logger(__name__)

LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 2.0
"""How long one answer may take; a stop must not wait much longer for it."""
SILENT_LOOKS = 5
"""A server that is only busy, or a machine that was asleep, is not to be punished for it."""


class KeptServer:
    """Starts the server of ``data_dir``, or finds the running one, and looks after it."""

    def __init__(self, data_dir: Path, *, clock: Clock) -> None:
        self._server = EmbeddedServer(data_dir)
        self._clock = clock
        self._url = ""
        self._next_look = 0.0
        self._failures = 0
        self._silent = 0

    def start(self) -> str:
        """Start it; returns its URL.

        Raises:
            NoServerError, ServerStartError: there is none, or it does not come up.
        """
        self._url = self._server.start()
        self._next_look = self._clock.monotonic() + LOOK_SECONDS
        return self._url

    def look(self) -> None:
        """Start it again if it does not answer; call it about once a second, or more often."""
        if self._clock.monotonic() < self._next_look:
            return
        if not self._answers():
            self._restart()
        pause = min(LOOK_SECONDS * 2**self._failures, LONGEST_PAUSE_SECONDS)
        self._next_look = self._clock.monotonic() + pause

    def stop(self) -> None:
        """Stop it if this process started it; safe twice and before `start`."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        with closing(Connection.open(self._url, timeout_seconds=PATIENCE_SECONDS)) as connection:
            try:
                connection.commands.ping()
            except BusyLoadingError:
                return True  # it reads its file, and will answer
            except NoAnswerError:
                self._silent += 1
                return self._silent < SILENT_LOOKS
            except RedisError:
                return False
        self._silent = 0
        return True

    def _restart(self) -> None:
        log.warning("server.away")
        self._silent = 0
        try:
            self._server.stop()
            self._url = self._server.start()
        except (IndexRelayError, OSError) as error:
            self._failures += 1
            log.warning("server.not_restarted", error=str(error))
        else:
            self._failures = 0
            log.info("server.restarted")
