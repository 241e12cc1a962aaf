"""What is kept in order: dead letters, schedules, alerts, and who had what done.

    GET  /dead-letters               events that could not be read, the newest first
    POST /dead-letters/{id}/retry    read one again; what is readable now goes into the inbox
    POST /dead-letters/{id}/drop     forget one for good
    GET  /schedules                  the next starts of each, and what came of the last
    POST /schedules/{name}/run       ask now for what it asks for
    GET  /alerts                     those that hold at the last look, and the rules
    GET  /audit                      who had what done on this host, page by page backwards

The console does each of them by the same functions.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from indexrelay.admin.access import PREFIX, Operator
from indexrelay.admin.components import bounded
from indexrelay.admin.document import Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.health.status import Problem, Severity
from indexrelay.operations.alerts import Alert, AlertState, described, rules
from indexrelay.operations.rebuilds import ask_for_rebuild
from indexrelay.operations.schedules import (
    ScheduleReport,
    UnknownScheduleError,
    left_alone_by,
    run_request,
    schedule_reports,
)
from indexrelay.rebuilder.dead_letters import RetryOutcome, drop_letters, retry_letters
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import NAME_PATTERN, shown
from indexrelay.service.problems import RefusedError
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.catalog import DeadLetter
from indexrelay.storage.catalog.dead_letters import MAX_KEPT_BYTES
from indexrelay.streams.keys import Keys

_log = get_logger(__name__)

_PREVIEW_BYTES: Final = 300
_SHORT: Final = 200
"""Characters of an id that somebody else gave."""
_STOP_SECONDS: Final = 10.0
"""How long a backup may take to its next piece once it is to stop."""

LetterId = Annotated[int, Path(gt=0, lt=2**63)]
ScheduleName = Annotated[str, Path(pattern=NAME_PATTERN)]
BackupId = Annotated[str, Path(pattern=r"^[0-9]{8}_[0-9]{6}$")]
Work: TypeAlias = Literal["create", "verify"]


class LetterView(Fact):
    """An event that could not be read."""

    id: int
    stream: str
    entry_id: str
    bytes: int
    """Of all of it."""
    kept_bytes: int
    sha256: str
    reason: str
    added_at: datetime
    preview: str
    """Its beginning, as text."""


class Letters(Fact):
    """Some of the dead letters, the newest first."""

    letters: tuple[LetterView, ...]
    next: int | None
    """``before`` of the next page; null: these are the oldest."""
    total: int
    not_kept: int
    """More that could not be read, and were not kept."""


class LetterOutcomeView(Fact):
    """What became of a letter."""

    id: int
    outcome: Literal["received", "unreadable", "gone", "dropped"]
    reason: str | None
    """Why it still cannot be read."""


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


class AlertView(Fact):
    """A rule that holds."""

    name: str
    severity: Severity
    state: Literal["pending", "firing"]
    """``pending``: not for long enough yet."""
    since: datetime
    sentence: str
    advice: str
    labels: dict[str, str]


class RuleView(Fact):
    """One rule."""

    name: str
    severity: Severity
    for_seconds: float
    expression: str
    advice: str
    holds: bool


class Alerts(Fact):
    """The alerts at the last look."""

    alerts: tuple[AlertView, ...]
    looked_at: datetime
    rules: tuple[RuleView, ...]


class AuditEntry(Fact):
    """One line of the audit log."""

    id: str
    time: str
    action: str
    who: str
    subject: str | None
    fields: dict[str, Any]
    """What else it is known by."""


class AuditEntries(Fact):
    """Some of the lines, the newest first."""

    entries: tuple[AuditEntry, ...]
    next: str | None
    """``before`` of the next page; null: these are the oldest."""


def upkeep_routes(resources: AdminResources) -> APIRouter:
    """All of them, without a prefix."""
    router = APIRouter()
    for part in (_dead_letters, _schedules, _records):
        part(router, resources)
    return router


def _dead_letters(router: APIRouter, resources: AdminResources) -> None:
    letters = resources.catalog.dead_letters

    @router.get("/dead-letters")
    def dead_letters(
        before: Annotated[int | None, Query(gt=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Letters:
        """Some of the events that could not be read, the newest first."""
        found = letters.newest(most=limit + 1, before=before, raw_bytes=_PREVIEW_BYTES)
        found, more = found[:limit], len(found) > limit
        dropped = letters.dropped()
        return Letters(
            letters=tuple(map(_letter, found)),
            next=found[-1].id if more else None,
            total=letters.count(),
            not_kept=0 if dropped is None else dropped.count,
        )

    @router.post("/dead-letters/{letter}/retry")
    def retry(
        letter: LetterId,
        caller: Operator,
    ) -> LetterOutcomeView:
        """Read a letter again: what is readable now becomes an event in the inbox."""
        retried = retry_letters(
            [letter],
            catalog=resources.catalog,
            connection=resources.connection.get,
            keys=Keys(resources.settings.namespace),
            clock=resources.clock,
        )
        (outcome,) = retried.letters
        if outcome.outcome != RetryOutcome.GONE:
            subject = f"dead letter {letter}"
            resources.record(AuditAction.RETRIED, caller, subject=subject, outcome=outcome.outcome)
            resources.state.wake()
        return LetterOutcomeView(
            id=letter,
            outcome=outcome.outcome,
            reason=None if outcome.reason is None else shown(outcome.reason),
        )

    @router.post("/dead-letters/{letter}/drop")
    def drop(
        letter: LetterId,
        caller: Operator,
    ) -> LetterOutcomeView:
        """Forget a letter for good."""
        (outcome,) = drop_letters([letter], catalog=resources.catalog)
        if outcome.outcome == "dropped":
            resources.record(AuditAction.DELETED, caller, subject=f"dead letter {letter}")
            resources.state.wake()
        return LetterOutcomeView(id=letter, outcome=outcome.outcome, reason=None)


def _letter(letter: DeadLetter) -> LetterView:
    return LetterView(
        id=letter.id,
        stream=shown(letter.stream, _SHORT),
        entry_id=shown(letter.entry_id, _SHORT),
        bytes=letter.size,
        kept_bytes=min(letter.size, MAX_KEPT_BYTES),
        sha256=letter.digest,
        reason=shown(letter.reason),
        added_at=letter.added_at,
        preview=shown(letter.raw.decode(errors="backslashreplace"), 2 * _PREVIEW_BYTES),
    )


def _schedules(router: APIRouter, resources: AdminResources) -> None:
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


def _records(router: APIRouter, resources: AdminResources) -> None:
    @router.get("/alerts")
    def alerts() -> Alerts:
        """The alerts that hold at the last look, and every rule."""
        look = resources.state.required().look
        active = look.evaluation.active
        holding = {each.rule.name for each in active}
        return Alerts(
            alerts=tuple(_alert(each, look.seen.verdict.problems) for each in active),
            looked_at=look.seen.at,
            rules=tuple(
                RuleView(
                    name=rule.name,
                    severity=rule.severity,
                    for_seconds=rule.for_seconds,
                    expression=rule.expression,
                    advice=rule.advice,
                    holds=rule.name in holding,
                )
                for rule in decided
            ),
        )

    decided = rules(
        resources.settings.alerts, look_seconds=resources.settings.monitoring.look_seconds
    )

    @router.get("/audit")
    def audit(
        before: Annotated[str | None, Query(max_length=40)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> AuditEntries:
        """Who had what done on this host, the newest first."""
        try:
            page = resources.audit.page(limit, before=before)
        except ValueError as error:
            raise RefusedError(422, f"before: {error}") from error
        return AuditEntries(
            entries=tuple(_entry(line.id, line.fields) for line in page.lines), next=page.next
        )


def _alert(alert: Alert, problems: Sequence[Problem]) -> AlertView:
    sentence, advice = described(alert, problems)
    return AlertView(
        name=alert.rule.name,
        severity=alert.rule.severity,
        state="firing" if alert.state is AlertState.FIRING else "pending",
        since=datetime.fromtimestamp(alert.since, UTC),
        sentence=shown(sentence),
        advice=shown(advice),
        labels={name: shown(value, _SHORT) for name, value in alert.labels},
    )


def _entry(id_: str, fields: Mapping[str, Any]) -> AuditEntry:
    others = {
        key: value
        for key, value in fields.items()
        if key not in ("time", "action", "who", "subject")
    }
    subject = fields.get("subject")
    return AuditEntry(
        id=id_,
        time=shown(str(fields["time"]), _SHORT),
        action=shown(str(fields["action"]), _SHORT),
        who=shown(str(fields["who"]), _SHORT),
        subject=None if subject is None else shown(str(subject)),
        fields=bounded(others),
    )
