"""One repair of Redis by hand: look, do it if that is meant, and look again."""

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict
from redis.exceptions import NoPermissionError, RedisError

from indexrelay.producers.reaching import reach
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Settings
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError, UnkillableScriptError
from indexrelay.streams.keys import Keys
from indexrelay.streams.repair import Action, Repair, Step

_MOST_ROUNDS: Final = 3
"""Looks: behind a script that was ended there may be more, and somebody may go on spoiling."""


class RepairNotAllowedError(IndexRelayError):
    """Raised when the user of Redis may not look at, or do, what a repair takes."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"the user of Redis may not repair it: {error}; give the URL of one who may, such as "
            "`operator` of deploy/redis/users.acl, as INDEXRELAY_REDIS__OPERATOR_URL"
        )


class RepairStep(BaseModel):
    """One thing that was wrong."""

    model_config = ConfigDict(frozen=True)

    action: Action
    what: str
    how: str
    """What is to be done about it."""
    done: bool = False
    said: str = ""
    """What was done, or why it could not be."""


class Repaired(BaseModel):
    """What came of it."""

    model_config = ConfigDict(frozen=True)

    steps: tuple[RepairStep, ...]
    only_looked: bool

    @property
    def well(self) -> bool:
        """Whether nothing is left to be done."""
        return all(step.done for step in self.steps)


def repair_redis(settings: Settings, *, do: bool) -> Repaired:
    """Look at the server, and with ``do`` repair what is found.

    Raises:
        RepairNotAllowedError: its user may not.
        NoRunningServerError, RedisUrlError, redis.exceptions.RedisError: it cannot be reached.
    """
    with _connection(settings) as connection:
        repair = Repair(
            connection,
            Keys(settings.namespace),
            settings.rebuilder,
            components=settings.components,
        )
        try:
            return Repaired(steps=tuple(_steps(repair, do=do)), only_looked=not do)
        except NoPermissionError as error:
            raise RepairNotAllowedError(error) from error


def _connection(settings: Settings) -> Connection:
    operator_url = settings.redis.operator_url
    if operator_url is None:
        return reach(settings, warn=False)
    return Connection.open(
        operator_url.get_secret_value(),
        timeout_seconds=settings.redis.timeout_seconds,
        warn=False,
    )


def _steps(repair: Repair, *, do: bool) -> Iterator[RepairStep]:
    for _ in range(_MOST_ROUNDS):
        found = repair.look()
        if not do:
            yield from (_shown(step) for step in found)
            return
        results = [_carried_out(repair, step) for step in found]
        yield from results
        if not found or not all(step.done for step in results):
            return
    yield from (_shown(step) for step in repair.look())


def _shown(step: Step) -> RepairStep:
    return RepairStep(action=step.action, what=step.what, how=step.how)


def _carried_out(repair: Repair, step: Step) -> RepairStep:
    shown = _shown(step)
    try:
        said = repair.carry_out(step)
    except NoPermissionError:
        raise
    except (RedisError, BackendRefusedError, UnkillableScriptError) as error:
        if isinstance(error, BackendRefusedError) and error.code == "NOPERM":
            raise RepairNotAllowedError(error) from error
        return shown.model_copy(update={"said": str(error)})
    return shown.model_copy(update={"done": True, "said": said})
