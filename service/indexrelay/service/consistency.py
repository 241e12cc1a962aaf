"""What a request asks of freshness, and where it waits for that.

A request says it in its body, in its address where the body is vectors, or with the header
``Indexrelay-Session`` alone. Whoever says nothing waits for nothing. Who waits has no thread of the
searches, so that searches go on; only so many wait at a time, and not for long.
"""

import asyncio
import contextlib

from starlette.requests import Request

from indexrelay.components.errors import InvalidQueryError
from indexrelay.reloaders.consistency import Consistency, FreshWait
from indexrelay.schemas.session import HEADER, SessionToken, SessionTokenError
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.bodies import FreshnessOptions
from indexrelay.service.limits import Room


def consistency_of(given: FreshnessOptions, request: Request) -> Consistency | None:
    """What a request asks; ``None``: nothing.

    The session of the header counts where the request names no other level.

    Raises:
        InvalidQueryError: what it says does not go together, or is no session token.
    """
    level = given.consistency
    token = _session(given.session, request.headers.getlist(HEADER))
    if given.max_lag_seconds is not None and level in (None, "bounded"):
        level = "bounded"
    elif given.max_lag_seconds is not None or level == "bounded":
        raise InvalidQueryError("max_lag_seconds goes with the consistency bounded, and it with it")
    if given.session is not None and level not in (None, "session"):
        raise InvalidQueryError(f"session: with the consistency {level} there is none")
    if level in (None, "session"):
        if token is not None:
            return Consistency.session(token)
        if level is not None:
            raise InvalidQueryError(
                f"session: the consistency session takes one, here or as the header {HEADER}"
            )
        return None
    if level == "strong":
        return Consistency.strong()
    return None if level == "eventual" else Consistency.bounded(given.max_lag_seconds or 0.0)


def _session(in_body: str | None, in_header: list[str]) -> SessionToken | None:
    texts = [("session", in_body)] if in_body is not None else []
    texts += [(f"the header {HEADER}", text) for text in in_header]
    tokens = []
    for where, text in texts:
        try:
            tokens.append(SessionToken.from_text(text))
        except SessionTokenError as error:
            raise InvalidQueryError(f"{where}: {error}") from error
    return SessionToken().merge(*tokens) if tokens else None


class WaitingRoom:
    """Where requests wait until the reader is as fresh as they asked; for one event loop."""

    def __init__(self, settings: HttpSettings) -> None:
        self._seconds = settings.fresh_seconds
        what = "requests{} that wait until it is fresh enough"
        self._room = Room(settings.max_waiting_reads, settings, what)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._room)

    async def wait(self, wait: FreshWait, *, caller: str | None) -> None:
        """Return once a wait is settled well.

        Raises:
            OverloadedError: too many wait already.
            NotFreshError: the time is over, or to wait is no use.
            ReloaderStoppedError: the reader was stopped meanwhile.
        """
        with self._room.place(caller):
            await settled_within(wait, self._seconds)


async def settled_within(wait: FreshWait, seconds: float) -> None:
    """Return once a wait is settled well; on an event loop, without a thread.

    Raises:
        NotFreshError: the time is over, or to wait is no use.
        ReloaderStoppedError: the reader was stopped meanwhile.
    """
    loop = asyncio.get_running_loop()
    settled = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits there
            loop.call_soon_threadsafe(settled.set)

    wait.when_settled(wake)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await settled.wait()
    wait.result()
