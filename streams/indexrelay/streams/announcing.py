"""Announcing a release: one script adds the reload message and the result, then sets the number.

What holds, however often and by whomever an announcement is repeated:

- the release number in Redis never falls, as long as Redis keeps it;
- a number is set after its reload message is in the stream, and a number that is not greater than
  the current one adds no reload message: no release is told twice, and none is told after a newer;
- a result with the same bytes is added once. The mark that says so lives for a day; each result has
  its own, because the result of a rebuild whose release was overtaken still has to reach people.

If it fails the release stands, since it was committed in the artifacts before: announce it again.
"""

import hashlib
from typing import Final

from indexrelay.schemas.events import FIELD
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.publishing import check_size
from indexrelay.streams.refusing import naming, refusals_of

MARK_SECONDS: Final = 86_400
"""Far longer than anyone goes on repeating one announcement."""

_log = get_logger(__name__)


def announce(
    connection: Connection,
    keys: Keys,
    *,
    number: int,
    release_event: bytes,
    result_event: bytes | None,
) -> bool:
    """Tell everyone that release ``number`` is there.

    Args:
        result_event: what came of the rebuild; ``None``: there is nothing new to say about it.

    Returns:
        True: it became the current release by this call. False: it, or a newer one, already was.

    Raises:
        ValueError: ``number`` is not positive.
        MessageTooLargeError: one of the two has more than `MAX_EVENT_BYTES`.
        BackendRefusedError: the server refused it, and nothing was written.
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: it did not answer; the
            announcement may have been made or not. Repeat it.
    """
    if number < 1:
        raise ValueError(f"release {number}: releases are numbered from 1")
    result = result_event or b""
    check_size(keys.reloads, release_event)
    check_size(keys.results, result)
    mark = keys.announced(hashlib.sha256(result).hexdigest())
    with refusals_of(keys.release):
        became = connection.script("announce")(
            keys=[keys.reloads, keys.results, mark, keys.release],
            args=[number, release_event, result, FIELD, MARK_SECONDS * 1000],
        )
    return bool(became)


def current_release(connection: Connection, keys: Keys) -> int:
    """The number of the newest announced release; 0: none.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    with naming(keys.release):
        value = connection.commands.get(keys.release)
    if value is None:
        return 0
    try:
        return int(value)
    except ValueError:
        # Somebody else's bytes. The next announcement takes them for 0 as well, and replaces them.
        _log.warning("release.number_unreadable", key=keys.release)
        return 0
