"""One log line when reading begins to fail, one when it works again, none in between."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.refusing import naming

_log = get_logger(__name__)


class Outage:
    """Watches the reads of one stream; used by the one thread that reads it."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._lasting = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a read: what it raises goes on to the caller, who backs off."""
        try:
            with naming(self._key):
                yield
        except RedisError as error:
            if not self._lasting:
                # redis-py's errors name the address, never the password.
                _log.warning("stream.unreadable", key=self._key, error=str(error))
            self._lasting = True
            raise
        if self._lasting:
            _log.info("stream.readable", key=self._key)
        self._lasting = False
