"""How a command ends: its exit codes, its errors, and the sentence for each error.

An error of indexrelay says by itself what to do. An error of the network, the database or the
operating system gets the one word that says where it came from, and advice. Any other error is a
fault of the program and keeps its traceback.
"""

from dataclasses import dataclass
from enum import IntEnum

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.advice import advice_for
from indexrelay.reloaders.errors import OpenAddressError
from indexrelay.schemas.errors import IndexRelayError, SettingsError, UnknownNameError, absence_of


class ExitCode(IntEnum):
    """One meaning for each; 2 is what every command line uses for a wrong call."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    """The command line or the settings are wrong; nothing was done."""
    PARTIAL = 3
    """It works, but not all of it: some components failed, or something is behind."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it: 128 + SIGINT."""
    UNREAD = 141
    """128 + SIGPIPE: who read the answer, such as ``head``, left before its end."""
    TERMINATED = 143
    """128 + SIGTERM, for a command that had not finished."""


class CorpusError(IndexRelayError):
    """Raised when the demo's text cannot be read or is too little; says what would be enough."""


class CommandError(IndexRelayError):
    """Raised when a command cannot do what it was asked; the message says what to do instead."""


class ProcessEndedError(IndexRelayError):
    """Raised when a child process ends that should have gone on; carries the end of its log."""

    def __init__(self, name: str, *, code: int, tail: str) -> None:
        said = f"; it last said:\n{tail}" if tail else ""
        super().__init__(f"{name} ended with exit code {code}{said}")
        self.name = name
        self.code = code


@dataclass(frozen=True)
class Explained:
    """An error, ready to be shown."""

    sentence: str
    exit_code: ExitCode
    advice: str | None = None
    """What to do, where the sentence does not say so itself."""


def explain(error: BaseException) -> Explained | None:
    """The sentence for ``error``; ``None``: it is a fault of the program itself."""
    match error:
        case SettingsError() | UnknownNameError() | OpenAddressError():
            return Explained(str(error), ExitCode.USAGE)
        case IndexRelayError():
            return Explained(str(error), ExitCode.FAILURE)
        case RedisError():
            return Explained(f"Redis: {error}", ExitCode.FAILURE, advice_for(error))
        case SQLAlchemyError():
            # Only the driver's own words: the statement and its values help nobody here.
            told = getattr(error, "orig", None) or error
            return Explained(f"the catalog: {told}", ExitCode.FAILURE, advice_for(error))
        case OSError():
            return Explained(str(error), ExitCode.FAILURE, advice_for(error))
        case ModuleNotFoundError() if (missing := absence_of(error)) is not None:
            return Explained(str(missing), ExitCode.FAILURE)
        case _:
            return None
