"""``indexrelay schedule``: what is rebuilt by the clock: a list, or one of them at once."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import RenderableType
from rich.text import Text

from indexrelay.console.commands import Config, Json, Reason, alone, schedule_names
from indexrelay.console.commands.rebuild import answer_request
from indexrelay.console.commands.status import NONE
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, whole
from indexrelay.console.terminal import adapted, advice_line, note, print_json, stdout
from indexrelay.console.watch import Watch, show_again
from indexrelay.operations.schedules import (
    ScheduleReport,
    left_alone_by,
    run_request,
    schedule_reports,
)
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock

app = typer.Typer(add_completion=False)
_NEXT: Final = 3


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
    watch: Watch = False,
) -> None:
    """Each schedule: its next starts, and what came of the last one; exits 3 if one is overdue."""
    with Installation.at(config) as installation:

        def looked() -> Mapping[str, ScheduleReport]:
            settings, catalog = installation.settings, installation.catalog
            return schedule_reports(settings, catalog, now=SystemClock().now(), count=count)

        if watch:
            show_again(lambda: schedules_page(looked()), json=json)
        reports = looked()
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
        settings = installation.settings
        wanted = run_request(name, settings, force=force, reason=reason)
        if not force and not json:
            alone = left_alone_by(settings.schedules[name], settings, installation.catalog)
            print_left_alone(alone)
            if alone:
                anyway = commands.run_schedule(name, force=True)
                stdout().print(advice_line(f"all the same: {anyway}"))
        code = answer_request(
            installation, wanted, timeout_seconds=timeout if wait else None, json=json
        )
    raise typer.Exit(code)


def print_left_alone(alone: Mapping[str, str]) -> None:
    """A line for each."""
    for name, why in alone.items():
        stdout().print(Text(f"{name} is left alone: {adapted(why)}"), soft_wrap=True)


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
