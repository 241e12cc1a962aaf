"""Tells readers that there is a release, and everyone what came of a rebuild.

A release stands from the moment its file exists; announcing it only saves readers the wait for
their next poll. One that could not be announced is announced by the reconcile loop. A result that
could not be told is in the log and in this rebuilder's presence, and nowhere else.
"""

from redis.exceptions import RedisError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.events import Event, EventData, RebuildFinished, ReleasePublished
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.message_size import fitted_result
from indexrelay.schemas.results import RebuildResult
from indexrelay.schemas.versions import Release
from indexrelay.streams import (
    BackendRefusedError,
    Connection,
    Keys,
    announce,
    current_release,
    publish,
)

_log = get_logger(__name__)

AnnounceError = (RedisError, BackendRefusedError)
"""What `Announcer` raises when Redis is away or refuses."""


class Announcer:
    """Speaks for one rebuilder."""

    def __init__(self, connection: Connection, keys: Keys, *, source: str, clock: Clock) -> None:
        self._connection = connection
        self._keys = keys
        self._source = source
        self._clock = clock

    def announce(self, release: Release, result: RebuildResult | None) -> None:
        """Reload message, result (if this is the first time) and release key, in one script.

        Raises:
            redis.exceptions.RedisError, BackendRefusedError: nobody was told; the release stands.
        """
        failpoint("announce.before")
        announce(
            self._connection,
            self._keys,
            number=release.number,
            release_event=self._event(_published(release)),
            result_event=None if result is None else self._event(_finished(result)),
        )
        failpoint("announce.after")
        _log.info("release.published", release=release.number)

    def report(self, result: RebuildResult) -> None:
        """A result without a release.

        Raises:
            redis.exceptions.RedisError, BackendRefusedError: nobody was told.
        """
        publish(self._connection, self._keys.results, self._event(_finished(result)))

    def is_behind(self, release: Release) -> bool:
        """Whether Redis knows less than the store: after a failed announcement, or emptied."""
        return current_release(self._connection, self._keys) < release.number

    def _event(self, data: EventData) -> bytes:
        return Event.of(data, source=self._source, time=self._clock.now()).to_bytes()


def _published(release: Release) -> ReleasePublished:
    return ReleasePublished(
        release=release.number, digest=release.digest, components=release.components
    )


def _finished(result: RebuildResult) -> RebuildFinished:
    return RebuildFinished.model_validate(fitted_result(result).model_dump())
