"""Errors as a person reads them: one sentence and an exit code, no traceback.

What indexrelay raises says by itself what to do. What the network, the database and the operating
system raise is given the one word that tells where it came from, and what to do. Anything else is a
fault of ours and keeps its traceback.
"""

from dataclasses import dataclass

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console.exits import ExitCode
from indexrelay.health.advice import advice_for
from indexrelay.reloaders.errors import OpenAddressError
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError
from indexrelay.schemas.extras import absence_of
from indexrelay.schemas.mistakes import SettingsError


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
