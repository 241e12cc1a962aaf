"""How a command ends: its exit codes, its errors, and the sentence for each error.

An error of indexrelay contains what to do. An error of the network, the database or the operating
system gets a word for its origin, and advice. Any other error is a
fault of the program and keeps its traceback.
"""

from dataclasses import dataclass
from enum import IntEnum

from indexrelay.schemas.errors import IndexRelayError


class ExitCode(IntEnum):
    """What a command's exit code means to a script; 2 is a wrong call in every command line."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    """The command line or the settings are wrong; nothing was done."""
    PARTIAL = 3
    """Some of it: some components failed, or something is not well."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it: 128 + SIGINT."""
    UNREAD = 141
    """128 + SIGPIPE: who read the answer, such as ``head``, left before its end."""
    TERMINATED = 143
    """128 + SIGTERM, for a command that had not finished."""


class CommandError(IndexRelayError):
    """Raised when a command cannot do what it was asked; the message is what to do instead."""


class WrongCallError(CommandError):
    """Raised when a command is given what nobody could carry out; the message is what is wrong."""

    is_misuse = True


class CorpusError(IndexRelayError):
    """Raised when the demo's texts cannot be read or are too few; names how many are enough."""


class ProcessEndedError(IndexRelayError):
    """Raised when a child process ends that should have gone on; carries the end of its log."""

    def __init__(self, name: str, *, code: int, tail: str) -> None:
        end = f"; the end of its log:\n{tail}" if tail else ""
        super().__init__(f"{name} ended with exit code {code}{end}")
        self.name = name
        self.code = code


@dataclass(frozen=True)
class Explained:
    """An error, ready to be shown."""

    sentence: str
    exit_code: ExitCode = ExitCode.FAILURE
    advice: str | None = None
    """What to do, where the sentence does not contain it."""


def explain(error: BaseException) -> Explained | None:
    """The sentence for ``error``; ``None``: it is a fault of the program itself.

    The error types are imported here: ``--help`` needs none of them.
    """
    from redis.exceptions import RedisError
    from sqlalchemy.exc import SQLAlchemyError

    from indexrelay.health.advice import advice_for
    from indexrelay.schemas.errors import absence_of

    match error:
        case IndexRelayError():
            return Explained(str(error), ExitCode.USAGE if error.is_misuse else ExitCode.FAILURE)
        case RedisError():
            return Explained(f"Redis: {error}", advice=advice_for(error))
        case SQLAlchemyError():
            # Only the driver's own words: the statement and its values do not help here.
            words = getattr(error, "orig", None) or error
            return Explained(f"the catalog: {words}", advice=advice_for(error))
        case OSError():
            return Explained(str(error), advice=advice_for(error))
        case ModuleNotFoundError() if (missing := absence_of(error)) is not None:
            return Explained(str(missing))
        case _:
            return None
