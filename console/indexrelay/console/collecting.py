"""One installation as a command sees it now: the judge's verdict, and who is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from indexrelay.console.installation import Installation
from indexrelay.health.advice import advised
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.health.verdict import Verdict
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.streams.announcing import current_release
from indexrelay.streams.presence import StateT, present


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What Redis says; ``error`` when it says nothing."""

    announced: int | None = None
    readers: Mapping[str, ReaderState] = field(default_factory=dict)
    """Each live process by its member id."""
    rebuilders: Mapping[str, RebuilderState] = field(default_factory=dict)
    error: str | None = None
    """With what to do about it."""


def survey_of(installation: Installation) -> Survey:
    """What looks at an installation; whatever it looks at is opened then."""
    return Survey(
        installation.settings,
        catalog=lambda: installation.catalog,
        store=lambda: installation.store,
        connection=lambda: installation.connection,
        clock=SystemClock(),
    )


def verdict_of(installation: Installation) -> Verdict:
    """Look at everything once, and judge; what cannot be read is among the problems."""
    return judge(survey_of(installation).whole())


def signals_of(installation: Installation) -> Signals:
    """The announced release and everyone's presence."""
    try:
        connection, keys = installation.connection, installation.keys
        return Signals(
            announced=current_release(connection, keys),
            readers=_readable(present(connection, keys, "reader", ReaderState)),
            rebuilders=_readable(present(connection, keys, "rebuilder", RebuilderState)),
        )
    except (RedisError, IndexRelayError, OSError) as error:
        return Signals(error=advised(error))


def _readable(states: Mapping[str, StateT | None]) -> dict[str, StateT]:
    """Without the processes of another major version; the judge tells of these."""
    return {member: state for member, state in states.items() if state is not None}
