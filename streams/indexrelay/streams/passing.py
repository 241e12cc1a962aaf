"""Which errors are worth trying again, in one place.

Redis says most of these as plain response errors, told apart by their first word only. redis-py
gives some of them a class of their own and strips the word; `refusal_code` puts both together.

A passing error goes away without anyone changing a line: the server restarts, loads its file, fails
over, is short of memory or disk for a while, or somebody deleted a stream. A wrong password, a
forbidden command or a key of another type stays, however often it is tried.
"""

import re
from typing import Final

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

from indexrelay.streams.errors import EXHAUSTED, BackendRefusedError

GONE_CODES: Final = frozenset({"NOGROUP", "UNBLOCKED"})
"""The stream or its group vanished, as Valkey and as Redis 7 say it under a blocked read."""

PASSING_CODES: Final = GONE_CODES | {
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


def refusal_code(error: ResponseError) -> str:
    """The word that a server's error begins with (``OOM``, ``NOGROUP``); ``ERR`` without one.

    ``EXHAUSTED`` is ours: a rebuilder sets such a stream aside, and adding works again.
    """
    if "exhausted the last possible ID" in str(error):
        return EXHAUSTED
    for known, code in _CODE_OF_CLASS.items():
        if isinstance(error, known):
            return code
    word = _CODE_IN_TEXT.search(str(error))
    return word[1] if word else "ERR"


def is_passing(error: BaseException) -> bool:
    """Whether the same call may work later, with nothing changed but time."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, BackendRefusedError):
        return error.code in PASSING_CODES
    return isinstance(error, ResponseError) and refusal_code(error) in PASSING_CODES
