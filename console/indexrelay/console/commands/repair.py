"""``indexrelay reconcile`` and ``indexrelay repair``: what a person repairs by hand.

*Reconcile* compares everything once, as a rebuilder does every half minute, and repairs what needs
no build: the release, its announcement, the consumer group, a lease without an end. *Repair redis*
looks for what is corrupt in Redis, shows what it would do, does it with ``--yes``, and looks again.
Both end with what is still not well.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict
from redis.exceptions import NoPermissionError, RedisError
from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console.commands import Config, Json
from indexrelay.console.commands.status import verdict_lines
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.console.terminal import advice_line, print_json, stdout, visible
from indexrelay.health.status import Code, Verdict
from indexrelay.producers.events import open_connection
from indexrelay.rebuilder.reconciler import Finding, Reconciler, RepairOutcome
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Settings
from indexrelay.streams import ConsumerGroup
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError, UnkillableScriptError
from indexrelay.streams.keys import REBUILDERS_GROUP, Keys
from indexrelay.streams.repair import Action, Repair, Step

MOST_LOST: Final = 1_000_000_000
"""A number that is further ahead was never announced: not at a release a second for 30 years."""
_REPORTED_BY: Final = {
    "catalog": Code.CATALOG_UNREADABLE,
    "redis": Code.REDIS_UNREADABLE,
    "release": Code.RELEASES_LOST,
    "store": Code.ARTIFACTS_UNREADABLE,
}
"""By what a failed repair is about: the problem that reports the same."""
_MOST_ROUNDS: Final = 3
"""Looks: behind a script that was ended there may be more, and new damage may come."""
app = typer.Typer(add_completion=False, no_args_is_help=True)
Above = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="RELEASE",
        help="After both catalog and artifacts came from a backup: go on above this release, which "
        "readers serve.",
    ),
]


def reconcile(above: Above = None, config: Config = None, json: Json = False) -> None:
    """Compare everything once and repair what needs no build; exits 3 unless all is well then."""
    with Installation.at(config) as installation:
        found = reconcile_once(installation, above=above)
    if json:
        verdict = found.verdict
        print_json(
            {
                "well": found.well,
                "needs_a_person": verdict.needs_a_person or bool(found.unrepaired),
                "findings": [each.model_dump(mode="json") for each in found.findings],
                "problems": [each.model_dump(mode="json") for each in verdict.problems],
                "notes": list(verdict.notes),
            }
        )
    else:
        stdout().print(findings_page(found))
    raise typer.Exit(ExitCode.SUCCESS if found.well else ExitCode.PARTIAL)


@app.callback()
def _group() -> None:
    """A group, although it has one command."""


@app.command()
def redis(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this it only shows what would be done.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show what is wrong in Redis, and with --yes repair it: nothing of ours is lost by it.

    Ends a script that does not end, sets aside or deletes what is none of ours, and frees memory.
    Its user of Redis is that of redis.operator_url (INDEXRELAY_REDIS__OPERATOR_URL), or of
    redis.url. Exits 3 while something is left to be done.
    """
    with Installation.at(config) as installation:
        repaired = repair_redis(installation.settings, do=yes)
    if json:
        print_json(repaired.model_dump(mode="json"))
    else:
        stdout().print(repair_page(repaired))
    raise typer.Exit(ExitCode.SUCCESS if repaired.well else ExitCode.PARTIAL)


class Reconciled(BaseModel):
    """The result of one reconciliation."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...]
    """What was repaired, and what could not be."""
    verdict: Verdict
    """The judge's, after that."""

    @property
    def unrepaired(self) -> tuple[Finding, ...]:
        """What could not be repaired, as far as the verdict does not report it already."""
        reported = {problem.code for problem in self.verdict.problems}
        return tuple(
            each
            for each in self.findings
            if each.outcome is RepairOutcome.LEFT and _REPORTED_BY.get(each.about) not in reported
        )

    @property
    def well(self) -> bool:
        """Whether nothing differs any more; a repair that failed is not well."""
        return self.verdict.well and not self.unrepaired


def reconcile_once(installation: Installation, *, above: int | None = None) -> Reconciled:
    """Compare everything with everything once, and repair what needs no build.

    Args:
        above: a release that was lost together with the catalog that knew of it: what is released
            now gets a number above it first.

    Raises:
        CommandError: nothing is released that could get a number, or no release can have had it.
        IndexRelayError, OSError: the artifacts cannot be opened at all.
    """
    renumbered = () if above is None else (_renumbered(installation, above),)
    findings = (*renumbered, *_repaired(installation))
    return Reconciled(findings=findings, verdict=verdict_of(installation))


def findings_page(found: Reconciled) -> RenderableType:
    """A line for each repair, then what is not well, the verdict last."""
    repairs = [
        Text(f"✓ {visible(each.what)}", style="green")
        for each in found.findings
        if each.outcome is RepairOutcome.REPAIRED
    ]
    failed = [line for each in found.unrepaired for line in _failed_lines(each)]
    well = "nothing differs from what it should be"
    if repairs:
        well = f"{len(repairs)} repaired, and all is well now"
    verdict = verdict_lines(found.verdict, well=well, besides=len(found.unrepaired))
    return Group(*repairs, *failed, verdict)


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
    result: str = ""
    """What was done, or why it could not be."""


class Repaired(BaseModel):
    """The result of one repair, or of one look."""

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


def repair_page(repaired: Repaired) -> RenderableType:
    """A line or two for each step, the verdict last."""
    if not repaired.steps:
        return Text("nothing in Redis needs repair", style="green")
    lines = [line for step in repaired.steps for line in _step_lines(step)]
    count = len(repaired.steps)
    if repaired.only_looked:
        verdict = Text(f"{count} to repair; nothing was changed", style="yellow")
        return Group(*lines, verdict, advice_line(f"do it: {commands.DO_REPAIR_REDIS}"))
    if not repaired.well:
        return Group(*lines, Text("not all could be repaired", style="yellow"))
    verdict = Text(f"{count} repaired", style="green")
    return Group(*lines, verdict, advice_line(f"look at all of it: {commands.RECONCILE}"))


def _renumbered(installation: Installation, above: int) -> Finding:
    store = installation.store
    highest = store.next_number() - 1
    if above - highest > MOST_LOST:
        raise CommandError(
            f"the newest release is {highest}: there can have been no release {above:,}"
        )
    if store.newest_release() is None:
        raise CommandError(f"nothing is released yet; build first: {commands.rebuild()}")
    if above <= highest:
        raise CommandError(f"the newest release is {highest} already: nothing is lost")
    release = store.renumber(lost=above, reason=f"releases up to {above} were lost")
    installation.catalog.release_record.note(release.number)
    what = f"what release {highest} served is release {release.number} now"
    return Finding(about="release", what=what, outcome=RepairOutcome.REPAIRED)


def _repaired(installation: Installation) -> tuple[Finding, ...]:
    try:
        connection, store = installation.connection, installation.store
        catalog = installation.catalog
    except (RedisError, IndexRelayError, OSError, SQLAlchemyError):
        return ()  # the judge reports why it cannot be reached
    group = ConsumerGroup(
        connection, installation.keys.events, group=REBUILDERS_GROUP, consumer="console"
    )
    return (
        Reconciler(
            installation.settings,
            catalog=catalog,
            store=store,
            connection=connection,
            group=group,
            source="indexrelay/console",
            clock=SystemClock(),
        )
        .reconcile()
        .findings
    )


def _failed_lines(finding: Finding) -> list[Text]:
    return [
        Text(f"⚠ {visible(finding.what)}", style="yellow"),
        advice_line(finding.advice),
    ]


def _connection(settings: Settings) -> Connection:
    operator_url = settings.redis.operator_url
    if operator_url is None:
        return open_connection(settings, warn=False)
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
        result = repair.carry_out(step)
    except NoPermissionError:
        raise
    except (RedisError, UnkillableScriptError) as error:
        if isinstance(error, BackendRefusedError) and error.code == "NOPERM":
            raise RepairNotAllowedError(error) from error
        return shown.model_copy(update={"result": str(error)})
    return shown.model_copy(update={"done": True, "result": result})


def _step_lines(step: RepairStep) -> list[Text]:
    if step.done:
        return [Text(f"✓ {visible(step.result)}", style="green")]
    return [
        Text(f"⚠ {visible(step.what)}", style="yellow"),
        Text(f"  → {visible(step.result or step.how)}"),
    ]
