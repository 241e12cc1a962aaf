"""Schedules: when each starts next, what came of the last start, and one more start by hand.

    GET  /schedules               every schedule that the settings declare
    POST /schedules/{name}/run    ask now for what it asks for

The console does it by the same functions.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from indexrelay.admin.access import PREFIX, Operator
from indexrelay.admin.document import Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.operations.rebuilds import ask_for_rebuild
from indexrelay.operations.schedules import (
    ScheduleReport,
    UnknownScheduleError,
    left_alone_by,
    run_request,
    schedule_reports,
)
from indexrelay.schemas.names import NAME_PATTERN, shown
from indexrelay.service.problems import RefusedError

ScheduleName = Annotated[str, Path(pattern=NAME_PATTERN)]


class ScheduleView(ScheduleReport):
    """One schedule, and what came of it."""

    name: str


class Schedules(Fact):
    """Every schedule that the settings declare."""

    schedules: tuple[ScheduleView, ...]


class ScheduleRun(BaseModel):
    """How to run it."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False
    """Also what is paused or failed too often, and even if more entries went than `max_shrink`."""
    reason: Annotated[str, Field(max_length=1000)] = ""


class Asked(Fact):
    """A rebuild that was asked for."""

    request_id: str
    components: tuple[str, ...]
    """What it asks for; empty: whatever is due."""
    left_alone: dict[str, str]
    """Components that it does not build, and why and until when."""


def schedule_routes(resources: AdminResources) -> APIRouter:
    """List them, and run one."""
    router = APIRouter()
    settings, catalog = resources.settings, resources.catalog

    @router.get("/schedules")
    def schedules() -> Schedules:
        """Each schedule: its next starts, what came of the last one, what is left alone."""
        reports = schedule_reports(settings, catalog, now=resources.clock.now())
        return Schedules(
            schedules=tuple(
                ScheduleView(
                    name=name,
                    **each.model_dump(exclude={"message", "left_alone"}),
                    message=None if each.message is None else shown(each.message),
                    left_alone={which: shown(why) for which, why in each.left_alone.items()},
                )
                for name, each in reports.items()
            )
        )

    @router.post(
        "/schedules/{name}/run",
        status_code=HTTPStatus.ACCEPTED,
        responses={404: {"description": "The settings declare no such schedule."}},
    )
    def run(
        name: ScheduleName,
        body: ScheduleRun,
        response: Response,
        caller: Operator,
    ) -> Asked:
        """Ask now for what a schedule asks for."""
        try:
            wanted = run_request(name, settings, force=body.force, reason=shown(body.reason, 1000))
        except UnknownScheduleError as error:
            raise RefusedError(404, str(error)) from error
        given, now = settings.schedules[name], resources.clock.now()
        alone = {} if body.force else left_alone_by(given, settings, catalog, now=now)
        request_id = ask_for_rebuild(
            wanted, producer=resources.producer, audit=resources.audit, who=caller.who
        )
        resources.state.wake()
        response.headers["Location"] = f"{PREFIX}/rebuilds/{request_id}"
        return Asked(
            request_id=request_id,
            components=tuple(wanted.components),
            left_alone={which: shown(why) for which, why in alone.items()},
        )

    return router
