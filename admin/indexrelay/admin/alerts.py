"""Alerts: those that hold at the last look, and the rules, as the operator evaluates them.

GET  /alerts
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter

from indexrelay.admin.document import SHORT, Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.health.status import Problem, Severity
from indexrelay.operations.alerts import Alert, AlertState, described, rules
from indexrelay.schemas.names import shown


class AlertView(Fact):
    """A rule that holds."""

    name: str
    severity: Severity
    state: Literal["pending", "firing"]
    """``pending``: not for long enough yet."""
    since: datetime
    at_least: bool
    """Whether it was so already when this process looked first: it may have begun before."""
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


def alert_routes(resources: AdminResources) -> APIRouter:
    """List them."""
    router = APIRouter()
    decided = rules(
        resources.settings.alerts, look_seconds=resources.settings.monitoring.look_seconds
    )

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

    return router


def _alert(alert: Alert, problems: Sequence[Problem]) -> AlertView:
    sentence, advice = described(alert, problems)
    return AlertView(
        name=alert.rule.name,
        severity=alert.rule.severity,
        state="firing" if alert.state is AlertState.FIRING else "pending",
        since=datetime.fromtimestamp(alert.since, UTC),
        at_least=alert.at_least,
        sentence=shown(sentence),
        advice=shown(advice),
        labels={name: shown(value, SHORT) for name, value in alert.labels},
    )
