"""What to do about errors that are not ours: Redis's, the database's, the operating system's.

Our own errors say it in their sentence. These were written for people who program against a
library, so each gets the command or the setting that an operator of indexrelay has.
"""

import sys
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisAwayError
from redis.exceptions import TimeoutError as RedisSilentError

from indexrelay.schemas import commands
from indexrelay.schemas.diagnostics import advice_on
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.streams.errors import WrongTypeError, refusal_code

START_A_REBUILDER: Final = (
    f"start a rebuilder, {commands.REBUILDER}, or build here: {commands.rebuild(here=True)}"
)
"""Where no rebuilder runs."""
_REDIS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The first that fits: several of these are kinds of a lost connection.
    (
        AuthenticationError,
        "give a user and a password that it knows: redis.url = redis://USER:PASSWORD@HOST:PORT/DB",
    ),
    (NoPermissionError, "allow the command in the server's ACL; deploy/redis/users.acl has it all"),
    (BusyLoadingError, "it reads its file and answers in a moment: try again"),
    (OutOfMemoryError, "it is at its memory limit: let consumers drain, or raise maxmemory"),
    (ReadOnlyError, "this one is a replica: give the URL of the primary"),
    (MaxConnectionsError, "end clients that are not needed, or raise maxclients"),
    (
        WrongTypeError,
        f"its key is set aside, and nothing is lost by it, with: {commands.RECONCILE}",
    ),
    (
        RedisSilentError,
        "see what keeps it busy, or give it more time: redis.timeout_seconds",
    ),
    (
        RedisAwayError,
        f"correct redis.url, or start it; one for this machine comes with: {commands.UP}",
    ),
)
_DATABASE: Final[tuple[tuple[str, str], ...]] = (
    ("unable to open database file", "see that the folder of catalog.url is there and writable"),
    (
        "database is locked",
        "another process holds a transaction open: wait for it, or end it, and try again",
    ),
    ("disk is full", "make room on the disk of the catalog; it goes on by itself then"),
    ("no space left", "make room on the disk of the catalog; it goes on by itself then"),
    (
        "not a database",
        "catalog.url names a file of another kind: name another, or bring back the catalog's own",
    ),
    ("malformed", "the catalog's file is corrupt: bring it back from a backup"),
    ("readonly database", "let this process's user write to the catalog's file and its folder"),
    ("password", "correct the user and the password in catalog.url"),
    ("authentication failed", "correct the user and the password in catalog.url"),
    ("does not exist", "make that database or user, or correct catalog.url"),
    ("permission denied", "grant this user what it needs in the catalog's schema"),
    ("too many clients", "end clients that are not needed, or raise max_connections"),
    ("connection", "start the database, or correct catalog.url"),
    ("could not translate host", "correct the host in catalog.url"),
    ("failed to resolve host", "correct the host in catalog.url"),
)


def advice_for(error: BaseException) -> str | None:
    """What to do about it; ``None``: its own sentence says it, or it is unknown."""
    match error:
        case IndexRelayError():
            return None
        case ResponseError() if refusal_code(error) == "BUSY":
            return f"a script runs there and does not end; end it: {commands.REPAIR_REDIS}"
        case RedisError():
            return next((advice for kind, advice in _REDIS if isinstance(error, kind)), None)
        case _ if _is_of_a_database(error):
            sentence = str(getattr(error, "orig", None) or error).lower()
            return next((advice for words, advice in _DATABASE if words in sentence), None)
        case OSError():
            return advice_on(error.errno)
        case _:
            return None


def _is_of_a_database(error: BaseException) -> bool:
    """Whether it is one of SQLAlchemy's, which a reader never imports."""
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    return sqlalchemy is not None and isinstance(error, sqlalchemy.SQLAlchemyError)


def advised(error: BaseException) -> str:
    """Its sentence and, after a semicolon, the advice."""
    advice = advice_for(error)
    return str(error) if advice is None else f"{str(error).rstrip('.')}; {advice}"
