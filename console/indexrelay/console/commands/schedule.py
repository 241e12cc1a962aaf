"""``indexrelay schedule``: what is rebuilt by the clock: a list, or one of them at once."""

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import RenderableType
from rich.text import Text

from indexrelay.console.commands import Config, Json, Reason, alone, schedule_names
from indexrelay.console.commands.rebuild import RebuildRequest, answer_request
from indexrelay.console.commands.status import NONE
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, whole
from indexrelay.console.terminal import adapted, advice_line, note, print_json, stdout
from indexrelay.health.due import left_alone
from indexrelay.health.facts import Facts
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import UnknownNameError
from indexrelay.schemas.schedules import ScheduleSettings
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog, ScheduleState

app = typer.Typer(add_completion=False)
_NEXT: Final = 3


class UnknownScheduleError(UnknownNameError):
    """Raised when a schedule is named that the settings do not declare."""

    def __init__(self, name: str, declared: Mapping[str, Any]) -> None:
        there = f"there is {', '.join(sorted(declared))}" if declared else "none is declared"
        super().__init__(f"no schedule {name!r}; {there}")
        self.name = name


class Start(BaseModel):
    """One slot that comes."""

    model_config = ConfigDict(frozen=True)

    slot: datetime
    """The moment that the cron line names."""
    start: datetime
    """When it starts: moved by its jitter and out of quiet hours."""


class ScheduleReport(BaseModel):
    """One schedule, and what came of it."""

    model_config = ConfigDict(frozen=True)

    cron: str
    timezone: str
    components: tuple[str, ...]
    """What it asks for; empty: whatever is due."""
    next: tuple[Start, ...]
    watched: bool
    """Whether an operator has looked at it, with this cron line and time zone."""
    overdue_since: datetime | None = None
    """When it should have started; ``None``: it is on time."""
    slot: datetime | None = None
    """The newest one that asked for a rebuild."""
    fired_at: datetime | None = None
    request_id: str | None = None
    outcome: str | None = None
    """``SUCCESS``, ``PARTIAL_SUCCESS``, ``FAILURE``; ``waiting``; ``nothing was due``; ``None``: it
    is not known any more, or there is none."""
    message: str | None = None
    missed: datetime | None = None
    """The newest slot that was missed, and not made up for."""
    left_alone: dict[str, str] = {}
    """Components that it would not build now, and why and until when."""


@app.callback(invoke_without_command=True)
def schedule(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each schedule; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_schedules(config=config, json=json)


@app.command("list")
def list_schedules(
    count: Annotated[
        int, typer.Option("--next", min=1, max=1000, help="How many of the next starts.")
    ] = _NEXT,
    config: Config = None,
    json: Json = False,
) -> None:
    """Each schedule: its next starts, and what came of the last one; exits 3 if one is overdue."""
    with Installation.at(config) as installation:
        reports = schedule_reports(
            installation.settings,
            installation.catalog,
            now=SystemClock().now(),
            count=count,
        )
    if json:
        print_json(
            {"schedules": {name: each.model_dump(mode="json") for name, each in reports.items()}}
        )
    elif not reports:
        note("the settings declare no schedule; one is a table [schedules.NAME]")
    else:
        stdout().print(schedules_page(reports))
        for name, each in reports.items():
            if not each.watched or each.overdue_since is not None:
                stdout().print(Text(f"{name}: {adapted(unwatched(each))}"))
            print_left_alone(each.left_alone)
    late = any(not each.watched or each.overdue_since is not None for each in reports.values())
    raise typer.Exit(ExitCode.PARTIAL if late else ExitCode.SUCCESS)


@app.command()
def run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SCHEDULE",
            help="As schedule list shows it.",
            autocompletion=schedule_names,
        ),
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also what is paused or failed too often, and even if more entries went than "
            "max_shrink allows.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait at most."),
    ] = 3600.0,
    reason: Reason = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Ask now for what a schedule asks for; exits 3 when some of it failed."""
    with Installation.at(config) as installation:
        declared = installation.settings.schedules
        if name not in declared:
            raise UnknownScheduleError(name, declared)
        given = declared[name]
        wanted = RebuildRequest(
            components=given.targets(installation.settings.components),
            full=given.full,
            force=force,
            failure_cooldown_seconds=None if force else given.failure_cooldown_seconds,
            reason=reason or f"schedule {name}, by hand",
        )
        if not force and not json:
            alone = left_alone_by(given, installation.settings, installation.catalog)
            print_left_alone(alone)
            if alone:
                anyway = commands.run_schedule(name, force=True)
                stdout().print(advice_line(f"all the same: {anyway}"))
        code = answer_request(
            installation, wanted, timeout_seconds=timeout if wait else None, json=json
        )
    raise typer.Exit(code)


def schedule_reports(
    settings: Settings, catalog: Catalog, *, now: datetime, count: int = _NEXT
) -> dict[str, ScheduleReport]:
    """Each declared schedule.

    Raises:
        MissingExtraError: cronsim is not installed.
    """
    states = catalog.schedules.all()
    return {
        name: _report(
            name, each, settings, states.get(name), catalog, now=now, count=count
        ).model_copy(update={"left_alone": left_alone_by(each, settings, catalog, now=now)})
        for name, each in settings.schedules.items()
    }


def left_alone_by(
    given: ScheduleSettings, settings: Settings, catalog: Catalog, *, now: datetime | None = None
) -> dict[str, str]:
    """What a schedule names and would not have built now, and why and until when."""
    now = now or SystemClock().now()
    facts = Facts(
        definitions=settings.components,
        sources={},
        release=None,
        versions={},
        attempts=catalog.attempts.all(),
        paused=catalog.attempts.paused(),
        scheduled=dict.fromkeys(given.targets(settings.components), given.failure_cooldown_seconds),
        since=now,
        now=now,
        rebuilder=settings.rebuilder,
    )
    return left_alone(facts, facts.retry_policy)


def print_left_alone(alone: Mapping[str, str]) -> None:
    """A line for each."""
    for name, why in alone.items():
        stdout().print(Text(f"{name} is left alone: {adapted(why)}"), soft_wrap=True)


def _report(
    name: str,
    given: ScheduleSettings,
    settings: Settings,
    state: ScheduleState | None,
    catalog: Catalog,
    *,
    now: datetime,
    count: int,
) -> ScheduleReport:
    watched = state is not None and state.definition == given.definition
    after = state.decided if state is not None and watched else now
    starts = (
        Start(slot=slot, start=start)
        for slot, start in given.upcoming(name, after=after)
        if start > now
    )
    report = ScheduleReport(
        cron=given.cron,
        timezone=given.timezone,
        components=given.targets(settings.components),
        next=tuple(islice(starts, count)),
        watched=watched,
    )
    if state is None:
        return report
    answer = None if state.request is None else catalog.inbox.answer(state.request)
    result = None if answer is None else answer.result
    outcome = None
    if answer is not None and result is None:
        outcome = "nothing was due" if answer.finished else "waiting"
    overdue = (now - state.next_at).total_seconds() > given.late_seconds
    return report.model_copy(
        update={
            "slot": state.slot,
            "fired_at": state.fired_at,
            "request_id": state.request,
            "outcome": outcome if result is None else str(result.status),
            "message": None if result is None else result.message,
            "missed": state.missed,
            "overdue_since": state.next_at if watched and overdue else None,
        }
    )


def schedules_page(reports: Mapping[str, ScheduleReport]) -> RenderableType:
    """The schedules as a table; times are those of each one's own time zone."""
    sheet = Sheet(
        "Schedules",
        flowing("schedule"),
        whole("cron"),
        flowing("rebuilds"),
        whole("next"),
        whole("last"),
        flowing("outcome"),
    )
    for name, each in reports.items():
        zone = ZoneInfo(each.timezone)
        missed = f"{_shown(each.missed, zone)} was missed; " if each.missed is not None else ""
        sheet.add(
            name,
            f"{each.cron}\n{each.timezone}",
            ", ".join(each.components) or "whatever is due",
            "\n".join(_shown(start.start, zone) for start in each.next),
            NONE if each.slot is None else _shown(each.slot, zone),
            missed + (each.outcome or NONE) + (f": {each.message}" if each.message else ""),
        )
    return sheet


def unwatched(report: ScheduleReport) -> str:
    """Why it does not start, and what to do about it."""
    if report.overdue_since is None:
        return f"no operator has looked at it yet; start one: {commands.OPERATOR}"
    return (
        f"it should have started at {report.overdue_since:%Y-%m-%d %H:%M} UTC; no operator runs, "
        f"start one: {commands.OPERATOR}"
    )


def _shown(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%a %Y-%m-%d %H:%M %z}"
