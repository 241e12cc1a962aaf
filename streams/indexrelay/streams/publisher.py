"""Adds events to streams, and announces a release.

An event is a plain XADD of one field. There are no dedupe markers: an event only says "look now",
the inbox drops repeats by the event's id, and a marker per event would cost a tenth of the rate. So
a publish whose reply was lost may be repeated freely.

A release is announced by one script, which adds the reload message and the result, then sets the
number. What holds, however often and by whomever an announcement is repeated:

- the release number in Redis never falls, as long as Redis keeps it;
- a number is set after its reload message is in the stream, and a number that is not greater than
  the current one adds no reload message: no release is announced twice, or after a newer one;
- a result with the same bytes is added once. The mark of that lives for a day; each result has
  its own, because the result of a rebuild whose release was overtaken still has to reach people.

If it fails the release stands, since it was committed in the artifacts before: announce it again.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hiredis import pack_command
from redis import Redis
from redis.exceptions import ResponseError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import FIELD, MAX_EVENT_BYTES
from indexrelay.streams.connection import Connection, portions, reads_of, writes_to
from indexrelay.streams.errors import BackendRefusedError, MessageTooLargeError
from indexrelay.streams.keys import Keys

Packed = bytes
"""A command in the server's protocol."""


def packed(*words: bytes) -> Packed:
    """One command of these words."""
    command: bytes = pack_command(words)  # type: ignore[arg-type] # its stub says one word
    return command


def round_trip(client: Redis, commands: Iterable[Packed]) -> list[Any]:
    """Send the commands; returns their replies in the same order, a refusal as one of them.

    redis-py's own pipeline looks at every command and every reply several times, which costs more
    than packing and parsing do (5.7 µs against 1.6 µs a command). Here commands are packed already,
    go out as one text, and their replies are returned as they are; sockets, time-outs, health
    checks and pools stay redis-py's. It is not a transaction, and nothing is sent twice.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: the server did not answer;
            any of them may have been done.
    """
    together = list(commands)
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(together)])
        return [_reply(connection) for _ in together]
    except BaseException:
        # A reply that was not read would be taken for that of the next command.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refusal:
        return refusal


MOST_EVENTS: Final = 1000
"""Events in one round trip: beyond this it is no faster."""


def publish(
    connection: Connection,
    key: str,
    raw: bytes,
    *,
    keep_seconds: float | None = None,
    keep_entries: int | None = None,
) -> bytes:
    """Add one event; returns its entry id.

    Args:
        keep_seconds: the stream ends so long after its last event; ``None``: never.
        keep_entries: it is cut to about so many; ``None``: not at all.

    Raises:
        MessageTooLargeError: it has more than `MAX_EVENT_BYTES`.
        BackendRefusedError: the server refused it (out of memory, a replica, forbidden).
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: it did not answer; the
            event may have arrived or not.
    """
    check_size(key, raw)
    name = key.encode()
    cut = () if keep_entries is None else (b"MAXLEN", b"~", b"%d" % keep_entries)
    commands = [packed(b"XADD", name, *cut, b"*", FIELD, raw)]
    if keep_seconds is not None:
        commands.append(packed(b"PEXPIRE", name, b"%d" % round(keep_seconds * 1000)))
    replies = round_trip(connection.commands, commands)
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise BackendRefusedError.of(key, reply) from reply
    entry_id: bytes = replies[0]
    return entry_id


def publish_many(connection: Connection, key: str, raws: Sequence[bytes]) -> list[bytes]:
    """Add events in as few round trips as is sensible, in this order; returns their entry ids.

    Not a transaction: when one is refused, others may stand.

    Raises:
        MessageTooLargeError, BackendRefusedError, redis.exceptions.ConnectionError,
            redis.exceptions.TimeoutError: as `publish`; nothing is added where one is too large.
    """
    name = key.encode()
    for raw in raws:
        check_size(key, raw)
    entry_ids: list[bytes] = []
    for some in portions(raws, map(len, raws), most=MOST_EVENTS):
        commands = [packed(b"XADD", name, b"*", FIELD, raw) for raw in some]
        for reply in round_trip(connection.commands, commands):
            if isinstance(reply, ResponseError):
                raise BackendRefusedError.of(key, reply) from reply
            entry_ids.append(reply)
    return entry_ids


CHANGES_BYTES: Final = 16 * 1024 * 1024
"""Of a stream of changes: seconds of busy writing. A reader that was away for longer looks into the
catalog."""
_MOST_CHANGES: Final = 10_000
CHANGES_SECONDS: Final = 3600.0
"""A stream of changes ends so long after its last message."""


def publish_changes(connection: Connection, key: str, raw: bytes) -> None:
    """`publish` to a stream of changes, which is cut to what readers may still want."""
    most = min(_MOST_CHANGES, CHANGES_BYTES // len(raw))
    publish(connection, key, raw, keep_seconds=CHANGES_SECONDS, keep_entries=most)


def check_size(key: str, raw: bytes) -> None:
    """Refuse an event that its readers would refuse.

    Raises:
        MessageTooLargeError: it has more than `MAX_EVENT_BYTES`.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise MessageTooLargeError(key, len(raw), MAX_EVENT_BYTES)


MARK_SECONDS: Final = 86_400
"""Far longer than one announcement is repeated."""

_log = get_logger(__name__)


def announce(
    connection: Connection,
    keys: Keys,
    *,
    number: int,
    release_event: bytes,
    result_event: bytes | None,
) -> bool:
    """Announce release ``number``.

    Args:
        result_event: the result of the rebuild; ``None``: it was announced before.

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
    with writes_to(keys.release):
        became = connection.script("announce")(
            keys=[keys.reloads, keys.results, mark, keys.release],
            args=[number, release_event, result, FIELD, MARK_SECONDS * 1000],
        )
    return bool(became)


def current_release(connection: Connection, keys: Keys) -> int:
    """The number of the newest announced release; 0: none.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    with reads_of(keys.release):
        value = connection.commands.get(keys.release)
    if value is None:
        return 0
    try:
        return int(value)
    except ValueError:
        # These bytes are not ours: to the next announcement they are 0 as well, and are replaced.
        _log.warning("release.number_unreadable", key=keys.release)
        return 0
