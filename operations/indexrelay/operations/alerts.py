"""Alerts: when something is not as it should be for long enough, as data.

There is one definition of each (`rules`). From it come the rules for Prometheus in
deploy/prometheus/ (`prometheus_rules`), and by the same data `Evaluator` decides for those without
Prometheus. Both decide alike; a test runs both over recorded series, with promtool.

An expression is one comparison, or several that must hold for the same component of the same
installation. The labels of an alert are those of its first comparison. Every process that has a
port says the same of the whole installation, and where they differ the worst value counts: the
least where too little is an alert, the greatest else. What is one host's, or one process's, counts
for each by itself. As in Prometheus, an alert is
*pending* from the first look at which its expression holds, *firing* once it has held for the
rule's time, and it ends at the first look at which it does not hold, or is not known any more.
"""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from indexrelay.health.status import Code, Problem, Severity
from indexrelay.operations.metrics import BACKUP_DUE, METRICS, PROBLEMS, Labels, Sample
from indexrelay.schemas import commands
from indexrelay.schemas.monitoring import AlertName, AlertSettings, MonitoringSettings

Operator: TypeAlias = Literal[">", ">=", "<", "=="]
_COMPARED: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
}
_OF_A_PROCESS: Final = ("instance", "job")
"""Labels that say which process was asked."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Series of one metric whose value, or age, compares so with a limit."""

    metric: str
    compared: Operator
    limit: float
    where: Labels = ()
    """Labels that the series must have."""
    other_than: tuple[str, tuple[str, ...]] | None = None
    """A label, and values that it must not have: those that other rules are about."""
    age: bool = False
    """Whether the value is a moment, of which the age in seconds is compared."""
    of_each: bool = False
    """Whether processes say it of themselves or their hosts, and each counts by itself."""

    def promql(self) -> str:
        """The same in the language of Prometheus."""
        matchers = [f"{name}={json.dumps(value)}" for name, value in self.where]
        if self.other_than is not None:
            name, values = self.other_than
            matchers.append(f"{name}!~{json.dumps('|'.join(values))}")
        selector = self.metric + (f"{{{', '.join(matchers)}}}" if matchers else "")
        worst = "min" if self._least else "max"
        value = f"{worst} without ({', '.join(self._without)}) ({selector})"
        value = f"time() - {value}" if self.age else value
        return f"{value} {self.compared} {self.limit:.15g}"

    def holding(self, samples: Iterable[Sample], at: float) -> dict[Labels, float]:
        """The series that compare so, by their labels, with the value that was compared."""
        values = {
            labels: at - value if self.age else value
            for labels, value in self.series(samples).items()
        }
        holds = _COMPARED[self.compared]
        return {labels: value for labels, value in values.items() if holds(value, self.limit)}

    def series(self, samples: Iterable[Sample]) -> dict[Labels, float]:
        """The series that are compared, by their labels, each with its value over all processes."""
        found: dict[Labels, float] = {}
        for sample in samples:
            if sample.name == self.metric and self._selects(dict(sample.labels)):
                kept = tuple(each for each in sample.labels if each[0] not in self._without)
                worst = min if self._least else max
                found[kept] = worst(sample.value, found.get(kept, sample.value))
        return found

    @property
    def _least(self) -> bool:
        return self.compared == "<" and not self.age

    @property
    def _without(self) -> tuple[str, ...]:
        return ("job",) if self.of_each else _OF_A_PROCESS

    def _selects(self, labels: Mapping[str, str]) -> bool:
        if self.other_than is not None and labels.get(self.other_than[0]) in self.other_than[1]:
            return False
        return all(labels.get(name) == value for name, value in self.where)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alert: when it begins, how bad that is, and what to do."""

    name: AlertName
    conditions: tuple[Comparison, ...]
    """What must hold; for the same component of one installation, where they are several."""
    for_seconds: int
    severity: Severity
    summary: str
    """In a sentence; ``{component}`` is the value of a label."""
    advice: str
    elsewhere: str = ""
    """In the language of Prometheus, in place of comparisons: what only others can see."""

    @property
    def expression(self) -> str:
        """In the language of Prometheus."""
        together = f" and on ({', '.join(_TOGETHER)}) "
        return self.elsewhere or together.join(each.promql() for each in self.conditions)

    def holding(self, samples: Sequence[Sample], at: float) -> dict[Labels, float]:
        """The labels for which it holds, with the value of the first comparison."""
        if not self.conditions:
            return {}
        first, *others = (each.holding(samples, at) for each in self.conditions)
        for other in others:
            held = set(map(_together, other))
            first = {labels: value for labels, value in first.items() if _together(labels) in held}
        return first

    def is_known(self, labels: Labels, samples: Sequence[Sample]) -> bool:
        """Whether everything that it compares for an alert with these labels is known."""
        first, *others = (each.series(samples) for each in self.conditions)
        return any(set(each) <= set(labels) for each in first) and all(
            _together(labels) in set(map(_together, other)) for other in others
        )


_TOGETHER: Final = ("namespace", "component")
"""Labels in which the comparisons of a rule agree."""


def _together(labels: Labels) -> tuple[str | None, ...]:
    found = dict(labels)
    return tuple(found.get(name) for name in _TOGETHER)


LOOK_SECONDS: Final = MonitoringSettings().look_seconds
"""How often is looked where the settings do not say."""


def late_after(look_seconds: float) -> float:
    """The age in seconds of a look after which the next one does not come by itself."""
    return _LOOKS * look_seconds + _GRACE_SECONDS


_LOOKS: Final = 3
_GRACE_SECONDS: Final = 30.0


def rules(limits: AlertSettings, *, look_seconds: float = LOOK_SECONDS) -> tuple[Rule, ...]:
    """Every rule that the settings leave on, with their limits.

    Args:
        look_seconds: how often the monitor looks.
    """
    every = (*_all_rules(limits), *_of_the_monitor(look_seconds))
    return tuple(each for each in every if each.name not in limits.off)


_RULED: Final = (
    Code.BACKUP_OVERDUE,
    Code.DEAD_LETTERS,
    Code.READER_BEHIND,
    Code.READER_LOAD_FAILED,
)
"""Codes of problems that have a rule of their own, by figures."""
_STATUS: Final = f"what it is, and what to do: {commands.STATUS}"


def _all_rules(limits: AlertSettings) -> Iterator[Rule]:
    yield Rule(
        name="BuildSlow",
        conditions=(_over("indexrelay_index_build_seconds", limits.build_seconds),),
        for_seconds=0,
        severity=Severity.WARNING,
        summary="building {component} took longer than it may",
        advice="more build_threads, or another index, build it faster; what it has, and which "
        f"index: {commands.COMPONENTS}",
    )
    yield Rule(
        name="RebuildFailing",
        conditions=(
            Comparison(
                metric="indexrelay_rebuild_consecutive_failures",
                compared=">=",
                limit=limits.consecutive_failures,
            ),
        ),
        for_seconds=0,
        severity=Severity.CRITICAL,
        summary="the builds of {component} fail again and again, and its last good version serves",
        advice=f"correct the cause, then: {commands.rebuild()}",
    )
    yield Rule(
        name="RebuildSuccessLow",
        conditions=(
            Comparison(
                metric="indexrelay_rebuild_success_ratio",
                compared="<",
                limit=limits.success_ratio,
            ),
        ),
        for_seconds=900,
        severity=Severity.WARNING,
        summary="too many rebuilds of the last 24 hours failed, or succeeded in part only",
        advice=_STATUS,
    )
    yield Rule(
        name="RebuildOverdue",
        conditions=(
            Comparison(
                metric="indexrelay_rebuild_last_success_timestamp_seconds",
                compared=">",
                limit=limits.overdue_seconds,
                age=True,
            ),
            _condition("current", here=False),
        ),
        for_seconds=3600,
        severity=Severity.CRITICAL,
        summary="{component} was not built for too long, and is not current",
        advice=f"see that a rebuilder runs, and its schedule; what it waits for: {commands.STATUS}",
    )
    yield Rule(
        name="RecallLow",
        conditions=(
            Comparison(metric="indexrelay_index_recall", compared="<", limit=limits.recall),
        ),
        for_seconds=0,
        severity=Severity.WARNING,
        summary="the released index of {component} finds too few of the nearest entries",
        advice=f"raise min_recall of the component, or build it from scratch: "
        f"{commands.rebuild(full=True)}",
    )
    yield Rule(
        name="ChangesNotServed",
        conditions=(
            _over("indexrelay_freshness_seconds", limits.freshness_seconds),
            _condition("deferred", here=False),
        ),
        for_seconds=300,
        severity=Severity.WARNING,
        summary="commits wait for too long until {component} serves them everywhere",
        advice=_STATUS,
    )
    yield Rule(
        name="ReaderBehind",
        conditions=(_over("indexrelay_readers", 0, ("state", "behind")),),
        for_seconds=300,
        severity=Severity.WARNING,
        summary="at least one reader does not follow the releases",
        advice=f"see its log, and its way to the artifacts; which one it is: {commands.READERS}",
    )
    yield Rule(
        name="ReaderRefusing",
        conditions=(_over("indexrelay_readers", 0, ("state", "refusing")),),
        for_seconds=60,
        severity=Severity.CRITICAL,
        summary="at least one reader cannot load what is released, and serves its last good one",
        advice=f"correct the cause; it is tried again by itself, and which it is: "
        f"{commands.READERS}",
    )
    yield Rule(
        name="DeadLetters",
        conditions=(_over("indexrelay_dead_letters", 0),),
        for_seconds=300,
        severity=Severity.WARNING,
        summary="events could not be read",
        advice=f"retry or drop them; which they are: {commands.DEAD_LETTERS}",
    )
    yield Rule(
        name="TombstonesHigh",
        conditions=(_over("indexrelay_index_tombstone_ratio", limits.tombstones),),
        for_seconds=900,
        severity=Severity.WARNING,
        summary="much of the base of {component} is deleted or replaced, and slows searches down",
        advice=f"build it from scratch when it is quiet: {commands.rebuild(full=True)}",
    )
    yield Rule(
        name="DiskLow",
        conditions=(
            Comparison(
                metric="indexrelay_disk_free_ratio",
                compared="<",
                limit=limits.disk_free,
                of_each=True,
            ),
        ),
        for_seconds=300,
        severity=Severity.CRITICAL,
        summary="the volume of the {place} is nearly full",
        advice="make room, or keep fewer releases and backups; builds stop where it is full",
    )
    yield Rule(
        name="BackupOld",
        conditions=(
            _over(
                PROBLEMS,
                0,
                ("code", str(Code.BACKUP_OVERDUE)),
                ("severity", str(Severity.WARNING)),
            ),
        ),
        for_seconds=3600,
        severity=Severity.WARNING,
        summary="the newest backup is too old",
        advice=f"see why the schedule makes none; by hand: {commands.CREATE_BACKUP}",
    )
    yield Rule(
        name="BackupMissing",
        conditions=(
            Comparison(
                metric=BACKUP_DUE,
                compared=">",
                limit=limits.backup_seconds,
                age=True,
            ),
        ),
        for_seconds=300,
        severity=Severity.WARNING,
        summary="a scheduled backup was not made",
        advice=f"the operator's log says what fails (backup.failed); by hand: "
        f"{commands.CREATE_BACKUP}",
    )
    yield _of_problems("ProblemCritical", Severity.CRITICAL, for_seconds=60)
    yield _of_problems("ProblemWarning", Severity.WARNING, for_seconds=900)


_LAST_LOOK: Final = "indexrelay_last_look_timestamp_seconds"


def _of_the_monitor(look_seconds: float) -> Iterator[Rule]:
    """That nobody looks: then no other rule says anything any more."""
    yield Rule(
        name="MonitorLate",
        conditions=(
            Comparison(
                metric=_LAST_LOOK,
                compared=">",
                limit=late_after(look_seconds),
                age=True,
                of_each=True,
            ),
        ),
        for_seconds=60,
        severity=Severity.CRITICAL,
        summary="nothing was looked at for too long, so no other alert is decided",
        advice=NOT_LOOKED_AT,
    )
    yield Rule(
        name="MonitorAbsent",
        conditions=(),
        elsewhere=f"(count by (namespace) (last_over_time({_LAST_LOOK}[1d])) unless "
        f"count by (namespace) ({_LAST_LOOK})) or absent_over_time({_LAST_LOOK}[1d])",
        for_seconds=300,
        severity=Severity.CRITICAL,
        summary="no operator or rebuilder says how the installation is",
        advice="see that the operator runs, and that its port is asked (monitoring.operator)",
    )


NOT_LOOKED_AT: Final = (
    "see whether the catalog's database, the artifacts or Redis hang; the log of this role says "
    "what it waits for"
)
"""What to do where the next look does not come."""


def _of_problems(name: AlertName, severity: Severity, *, for_seconds: int) -> Rule:
    """What the judge finds, and no other rule is about."""
    return Rule(
        name=name,
        conditions=(
            Comparison(
                metric=PROBLEMS,
                compared=">",
                limit=0,
                where=(("severity", str(severity)),),
                other_than=("code", tuple(map(str, _RULED))),
            ),
        ),
        for_seconds=for_seconds,
        severity=severity,
        summary="not all is well: {code}",
        advice=_STATUS,
    )


def _over(metric: str, limit: float, *where: tuple[str, str]) -> Comparison:
    return Comparison(metric=metric, compared=">", limit=limit, where=where)


def _condition(condition: str, *, here: bool) -> Comparison:
    return Comparison(
        metric="indexrelay_index_condition",
        compared="==",
        limit=float(here),
        where=(("condition", condition),),
    )


class AlertState(StrEnum):
    """How far an alert is."""

    PENDING = "pending"
    """Its expression holds, and not for long enough yet."""
    FIRING = "firing"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A rule that holds for one set of labels."""

    rule: Rule
    labels: Labels
    """Of the series, and the severity."""
    state: AlertState
    since: float
    """When it began to hold; Unix time."""
    value: float
    """What was compared."""
    at_least: bool = False
    """Whether it held when it was evaluated first, and so may have begun before."""

    @property
    def summary(self) -> str:
        """In a sentence."""
        return self.rule.summary.format_map(dict(self.labels))

    @property
    def key(self) -> tuple[str, Labels]:
        """What tells it from others."""
        return self.rule.name, self.labels


def described(alert: Alert, problems: Iterable[Problem]) -> tuple[str, str]:
    """What an alert is about, and what to do: in the judge's own words, where the judge found it.

    Args:
        problems: what the judge found at that look.
    """
    code = dict(alert.labels).get("code")
    found = [each for each in problems if str(each.code) == code]
    if not found:
        return alert.summary, alert.rule.advice
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(each.what for each in found[:_SHOWN]) + more, found[0].advice


_SHOWN: Final = 3
"""Problems of one code in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The alerts at one look, and what changed since the one before."""

    active: tuple[Alert, ...] = ()
    began: tuple[Alert, ...] = ()
    """Those that fire, and did not when all that they compare was known last."""
    ended: tuple[Alert, ...] = ()
    """Those that fired when all that they compare was known last, and hold no more."""

    @property
    def firing(self) -> tuple[Alert, ...]:
        """The active ones that fire."""
        return tuple(each for each in self.active if each.state is AlertState.FIRING)


OUTAGE_SECONDS: Final = 3600.0
"""For how long nobody may have looked, so that an alert that waited before waits on."""


class Evaluator:
    """Evaluates rules at one look after another; for use by one thread."""

    def __init__(self, decided: Sequence[Rule]) -> None:
        self._rules = decided
        self._active: dict[tuple[str, Labels], Alert] = {}
        self._told: dict[tuple[str, Labels], Alert] = {}
        """Those that began, and did not end yet; some are not known now."""
        self._is_first = True

    def evaluate(
        self, samples: Iterable[Sample], at: float, *, complete: bool = True
    ) -> Evaluation:
        """The alerts at ``at``, Unix time, by everything that was known then.

        Args:
            complete: whether everything could be read, so that a problem that the judge does not
                find is over.
        """
        known = list(samples)
        now = {each.key: each for rule in self._rules for each in self._alerts(rule, known, at)}
        self._active, self._is_first = now, False
        ended = {
            key: each
            for key, each in self._told.items()
            if key not in now and _is_over(each, known, complete=complete)
        }
        began = {key: each for key, each in now.items() if _fired(each) and key not in self._told}
        self._told = {key: each for key, each in (self._told | began).items() if key not in ended}
        return Evaluation(
            active=tuple(now.values()),
            began=tuple(began.values()),
            ended=tuple(ended.values()),
        )

    def kept(self, at: float) -> dict[str, Any]:
        """What another evaluator goes on with (`restore`), as JSON has it; ``at``: Unix time."""
        alerts = {**self._told, **self._active}
        return {
            "at": at,
            "alerts": [
                {
                    "name": each.rule.name,
                    "labels": [list(label) for label in each.labels],
                    "state": str(each.state),
                    "since": each.since,
                    "value": each.value,
                    "active": key in self._active,
                    "told": key in self._told,
                }
                for key, each in alerts.items()
            ],
        }

    def restore(self, kept: Mapping[str, Any], at: float) -> None:
        """Go on with what another one has kept; ``at``: Unix time.

        An alert that fired, fires for as long as it holds. One that waited, waits on as long as it
        had still to wait, unless nobody looked for longer than `OUTAGE_SECONDS`: another host may
        have another time, so the time between both is not counted. One whose rule there is not any
        more is forgotten.
        """
        rules = {rule.name: rule for rule in self._rules}
        self._active, self._told = {}, {}
        kept_at = float(kept.get("at", 0.0))
        is_recent = at - kept_at <= OUTAGE_SECONDS
        for each in kept.get("alerts", ()):
            if each["name"] not in rules:
                continue
            state, since = AlertState(each["state"]), float(each["since"])
            if state is AlertState.PENDING:
                since = at - max(0.0, kept_at - since)
            alert = Alert(
                rule=rules[each["name"]],
                labels=tuple((name, value) for name, value in each["labels"]),
                state=state,
                since=since,
                value=float(each["value"]),
            )
            if each["active"] and (is_recent or _fired(alert)):
                self._active[alert.key] = alert
            if each["told"]:
                self._told[alert.key] = alert

    def _alerts(self, rule: Rule, samples: Sequence[Sample], at: float) -> Iterator[Alert]:
        for found, value in rule.holding(samples, at).items():
            labels = tuple(sorted({**dict(found), "severity": str(rule.severity)}.items()))
            before = self._active.get((rule.name, labels))
            # A clock may have been set back.
            since = at if before is None else min(at, before.since)
            fires = _fired(before) or at - since >= rule.for_seconds
            yield Alert(
                rule=rule,
                labels=labels,
                state=AlertState.FIRING if fires else AlertState.PENDING,
                since=since,
                value=value,
                at_least=self._is_first if before is None else before.at_least,
            )


def _is_over(alert: Alert, known: Sequence[Sample], *, complete: bool) -> bool:
    """Whether an alert that does not hold has ended: what it compares is known."""
    if any(part.metric in _ONLY_WHERE_WRONG for part in alert.rule.conditions):
        return complete
    return alert.rule.is_known(alert.labels, known)


_ONLY_WHERE_WRONG: Final = (PROBLEMS, BACKUP_DUE)
"""Metrics that have no series where all is well."""


def _fired(alert: Alert | None) -> bool:
    return alert is not None and alert.state is AlertState.FIRING


def prometheus_rules(limits: AlertSettings, *, look_seconds: float = LOOK_SECONDS) -> str:
    """The rules as a file of Prometheus; the arguments are those of `rules`."""
    lines = [
        "# The alerts of indexrelay, for Prometheus; written by `make docs` from",
        "# indexrelay.operations.alerts. With the limits of your settings:",
        f"#   {commands.PROMETHEUS_RULES}",
        "groups:",
        "  - name: indexrelay",
        "    rules:",
    ]
    for rule in rules(limits, look_seconds=look_seconds):
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {_quoted(rule.expression)}",
            f"        for: {rule.for_seconds}s",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: {_quoted(_templated(rule.summary))}",
            f"          advice: {_quoted(rule.advice)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A JSON text is a text of YAML, too."""
    return json.dumps(text, ensure_ascii=False)


def _templated(summary: str) -> str:
    """``{component}`` in the templates of Prometheus."""
    labels = {name for metric in METRICS.values() for name in metric.labels}
    return summary.format_map({name: f"{{{{ $labels.{name} }}}}" for name in labels})
