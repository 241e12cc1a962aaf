"""The alerts: one definition, for Prometheus and for ourselves, which decide alike."""

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from indexrelay.health.status import CRITICAL, Actor, Code, Condition, Problem, Severity
from indexrelay.operations.alerts import (
    AlertState,
    Comparison,
    Evaluator,
    prometheus_rules,
    rules,
)
from indexrelay.operations.metrics import METRICS, Labels, Sample
from indexrelay.operations.observer import READER_CONDITIONS
from indexrelay.schemas.monitoring import AlertName, AlertSettings

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
LIMITS = AlertSettings()
MINUTES = 180
PROBLEMS = ("backup_overdue", "dead_letters", "no_reader", "redis_full")


def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        reason = "promtool is missing; install Debian's package prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


def series(*labels: tuple[str, str]) -> Labels:
    return tuple(labels)


def recorded(seed: int = 7) -> dict[tuple[str, Labels], list[float | None]]:
    """A value for each minute, or none, of series that cross every limit in both directions."""
    drawn = random.Random(seed)
    components: list[Labels] = [(("component", name),) for name in ("songs", "lines")]
    components.append((("component", "songs"), ("namespace", "dev")))
    found: dict[tuple[str, Labels], list[float | None]] = {}

    def add(name: str, labels: Labels, *values: float) -> None:
        """Steps: a value stays for a while, and now and then the series is away."""
        row: list[float | None] = []
        while len(row) < MINUTES:
            value = None if drawn.random() < 0.12 else drawn.choice(values)
            row += [value] * drawn.choice((1, 3, 7, 20, 70))
        found[name, labels] = row[:MINUTES]

    for component in components:
        add("indexrelay_index_build_seconds", component, 10, 3600, 3601)
        add("indexrelay_rebuild_consecutive_failures", component, 0, 2, 3, 4)
        built = "indexrelay_rebuild_last_success_timestamp_seconds"
        add(built, component, -LIMITS.overdue_seconds, 60 - LIMITS.overdue_seconds, 0)
        add("indexrelay_index_recall", component, 0.89, 0.9, 0.95)
        add("indexrelay_freshness_seconds", component, 0, 900, 901)
        add("indexrelay_index_tombstone_ratio", component, 0.05, 0.08, 0.09)
        for condition in (Condition.CURRENT, Condition.DEFERRED):
            of = series(*component, ("condition", str(condition)))
            add("indexrelay_index_condition", of, 0, 0, 1)
    found["indexrelay_rebuild_success_ratio", ()] = [
        0.5 if 40 < each < 80 else 0.8 for each in range(MINUTES)
    ]
    for state in READER_CONDITIONS:
        add("indexrelay_readers", series(("state", state)), 0, 1, 3)
    add("indexrelay_dead_letters", (), 0, 2)
    for place in ("artifacts", "data"):
        add("indexrelay_disk_free_ratio", series(("place", place)), 0.05, 0.1, 0.5)
    for number in ("1", "2"):  # two hosts, each with volumes of its own
        labels = series(("place", "data"), ("instance", number), ("job", "indexrelay"))
        add("indexrelay_disk_free_ratio", labels, 0.05, 0.1, 0.5)
    found["indexrelay_backup_due_timestamp_seconds", ()] = [
        -LIMITS.backup_seconds if 20 < each < 90 else None for each in range(MINUTES)
    ]
    found["indexrelay_last_look_timestamp_seconds", (("instance", "1"),)] = [
        60.0 * min(minute, 50 if minute < 60 else minute) for minute in range(MINUTES)
    ]
    for code, severity in product(PROBLEMS, Severity):
        labels = series(("code", code), ("severity", str(severity)))
        add("indexrelay_verdict_problems", labels, 0, 1)
    overdue = series(("code", "backup_overdue"), ("severity", "warning"))
    found["indexrelay_verdict_problems", overdue] = [
        float(30 < each < 120) for each in range(MINUTES)
    ]
    late = ("component", "late")
    age = "indexrelay_rebuild_last_success_timestamp_seconds"
    found[age, (late,)] = [-LIMITS.overdue_seconds for _ in range(MINUTES)]
    current = "indexrelay_index_condition", series(late, ("condition", "current"))
    found[current] = [float(minute >= 100) for minute in range(MINUTES)]
    # Two processes say the same of an installation, and one of them a little later.
    for number in ("1", "2"):
        labels = series(("component", "twice"), ("instance", number), ("job", "indexrelay"))
        add("indexrelay_index_recall", labels, 0.8, 0.95)
        add("indexrelay_freshness_seconds", labels, 0, 1000)
    labels = series(("component", "twice"), ("condition", "deferred"), ("instance", "1"))
    add("indexrelay_index_condition", labels, 0, 0, 1)
    return found


def as_prometheus_names(name: str, labels: Labels) -> str:
    matchers = ", ".join(f"{key}={json.dumps(value)}" for key, value in labels)
    return f"{name}{{{matchers}}}"


def as_prometheus_writes(row: Sequence[float | None]) -> str:
    """The values of a series, with a mark where it goes: then it is gone at once."""
    written, before = [], None
    for value in row:
        gone = "stale" if before is not None else "_"
        written.append(gone if value is None else repr(float(value)))
        before = value
    return " ".join(written)


def decided_by_us(
    found: dict[tuple[str, Labels], list[float | None]],
) -> Iterator[tuple[int, dict[str, list[dict[str, Any]]]]]:
    """For each minute: by rule, the alerts that fire."""
    evaluator = Evaluator(rules(LIMITS))
    for minute in range(MINUTES):
        samples = [
            Sample(name, labels, value)
            for (name, labels), row in found.items()
            if (value := row[minute]) is not None
        ]
        firing: dict[str, list[dict[str, Any]]] = {each.name: [] for each in rules(LIMITS)}
        for alert in evaluator.evaluate(samples, at=60.0 * minute).firing:
            firing[alert.rule.name].append(
                {
                    "exp_labels": dict(alert.labels),
                    "exp_annotations": {"summary": alert.summary, "advice": alert.rule.advice},
                }
            )
        yield minute, firing


def run_promtool(folder: Path, tests: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "alerts.yml").write_text(prometheus_rules(LIMITS))
    (folder / "tests.yml").write_text(json.dumps(tests))
    return subprocess.run(
        [promtool(), "test", "rules", "tests.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_prometheus_and_we_ourselves_fire_the_same_alerts_at_every_minute(tmp_path: Path) -> None:
    found = recorded()
    decided = dict(decided_by_us(found))
    fired = {name for each in decided.values() for name, alerts in each.items() if alerts}
    assert fired == set(get_args(AlertName)) - {"MonitorAbsent"}
    tests = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": as_prometheus_names(name, labels),
                        "values": as_prometheus_writes(row),
                    }
                    for (name, labels), row in found.items()
                ],
                "alert_rule_test": [
                    {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts}
                    for minute, firing in decided.items()
                    for name, alerts in firing.items()
                ],
            }
        ],
    }
    done = run_promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # What promtool is to find it does: one alert too many at one minute.
    expected: Any = next(
        each
        for each in tests["tests"][0]["alert_rule_test"]  # type: ignore[index]
        if each["exp_alerts"]
    )
    expected["exp_alerts"] = []
    assert run_promtool(tmp_path, tests).returncode != 0


def test_prometheus_sees_that_the_monitor_of_one_installation_is_gone(tmp_path: Path) -> None:
    name = "indexrelay_last_look_timestamp_seconds"
    gone = {"severity": "critical", "namespace": "prod"}
    tests = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'{name}{{namespace="dev", instance="1"}}', "values": "0+60x60"},
                    {
                        "series": f'{name}{{namespace="prod", instance="2"}}',
                        "values": "0+60x9 stale",
                    },
                ],
                "promql_expr_test": [
                    {"expr": _firing(), "eval_time": f"{minute}m", "exp_samples": samples}
                    for minute, samples in (
                        (14, []),
                        (15, [{"labels": _labels(alertname="MonitorAbsent", **gone), "value": 1}]),
                    )
                ],
            },
            {
                "interval": "1m",
                "input_series": [],
                "promql_expr_test": [
                    {
                        "expr": _firing(),
                        "eval_time": "5m",
                        "exp_samples": [
                            {
                                "labels": _labels(alertname="MonitorAbsent", severity="critical"),
                                "value": 1,
                            }
                        ],
                    }
                ],
            },
        ],
    }
    done = run_promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _firing() -> str:
    return 'ALERTS{alertstate="firing"}'


def _labels(**labels: str) -> str:
    return as_prometheus_names("ALERTS", (*labels.items(), ("alertstate", "firing")))


def test_the_shipped_rules_are_those_of_the_definition_and_promtool_takes_them() -> None:
    assert SHIPPED.read_text() == prometheus_rules(LIMITS)
    done = subprocess.run(
        [promtool(), "check", "rules", SHIPPED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(get_args(AlertName))} rules found" in done.stdout


def test_every_rule_is_about_metrics_and_labels_that_there_are() -> None:
    assert [each.name for each in rules(LIMITS)] == list(get_args(AlertName))
    for rule in rules(LIMITS):
        assert bool(rule.conditions) is not bool(rule.elsewhere)
        assert set(re.findall(r"indexrelay_\w+", rule.expression)) <= set(METRICS)
        for part in rule.conditions:
            labels = set(METRICS[part.metric].labels)
            assert {name for name, _ in part.where} <= labels
            assert part.other_than is None or part.other_than[0] in labels
            assert len(rule.conditions) == 1 or "component" in labels
        metric = rule.conditions[0].metric if rule.conditions else "indexrelay_rebuilders"
        known = dict.fromkeys(METRICS[metric].labels, "x")
        assert "{" not in rule.summary.format_map(known)


def test_the_limits_of_the_settings_are_those_of_both_and_what_is_off_is_gone() -> None:
    limits = AlertSettings(recall=0.75, off=("BuildSlow",))
    document = yaml.safe_load(prometheus_rules(limits))
    by_name = {each["alert"]: each for each in document["groups"][0]["rules"]}
    assert "BuildSlow" not in by_name
    assert by_name["RecallLow"]["expr"].endswith("(indexrelay_index_recall) < 0.75")
    found = Sample("indexrelay_index_recall", (("component", "songs"),), 0.8)
    assert Evaluator(rules(limits)).evaluate([found], at=0).active == ()
    assert Evaluator(rules(LIMITS)).evaluate([found], at=0).firing


def test_an_alert_is_pending_then_fires_and_ends_and_that_is_told_once() -> None:
    evaluator = Evaluator([each for each in rules(LIMITS) if each.name == "DeadLetters"])

    def at(minute: int, letters: int) -> tuple[list[AlertState], int, int]:
        found = evaluator.evaluate([Sample("indexrelay_dead_letters", (), letters)], 60.0 * minute)
        return [each.state for each in found.active], len(found.began), len(found.ended)

    assert at(0, 0) == ([], 0, 0)
    assert at(1, 2) == ([AlertState.PENDING], 0, 0)
    assert at(5, 1) == ([AlertState.PENDING], 0, 0)
    assert at(6, 1) == ([AlertState.FIRING], 1, 0)
    assert at(7, 1) == ([AlertState.FIRING], 0, 0)
    assert at(8, 0) == ([], 0, 1)
    assert at(9, 1) == ([AlertState.PENDING], 0, 0)
    assert at(10, 0) == ([], 0, 0)


def test_an_alert_whose_metric_is_not_known_any_more_is_gone_and_no_recovery() -> None:
    evaluator = Evaluator(rules(LIMITS))
    evaluator.evaluate([Sample("indexrelay_index_recall", (("component", "songs"),), 0.1)], at=0)
    found = evaluator.evaluate([], at=60)
    assert (found.active, found.ended) == ((), ())
    # Another component's value says nothing of it; once it is known again, that is no second one.
    other = Sample("indexrelay_index_recall", (("component", "lines"),), 0.95)
    assert evaluator.evaluate([other], at=120).ended == ()
    low, well = (
        Sample("indexrelay_index_recall", (("component", "songs"),), each) for each in (0.1, 0.95)
    )
    found = evaluator.evaluate([low], at=180)
    assert (len(found.active), found.began) == (1, ())
    assert evaluator.evaluate([], at=240).ended == ()
    assert [each.rule.name for each in evaluator.evaluate([well], at=300).ended] == ["RecallLow"]


def test_the_last_problem_is_over_once_all_could_be_read_and_the_judge_finds_none() -> None:
    evaluator = Evaluator(rules(LIMITS))
    labels = series(("code", "redis_full"), ("severity", "critical"))
    for at in (0, 60):
        evaluator.evaluate([Sample("indexrelay_verdict_problems", labels, 1)], at)
    assert evaluator.evaluate([], at=120, complete=False).ended == ()
    found = evaluator.evaluate([], at=180).ended
    assert [(each.rule.name, dict(each.labels)["code"]) for each in found] == [
        ("ProblemCritical", "redis_full")
    ]
    assert evaluator.evaluate([], at=240).ended == ()


def test_a_component_that_gave_up_before_the_limit_of_failures_raises_an_alert() -> None:
    evaluator = Evaluator(rules(LIMITS))
    samples = [
        Sample("indexrelay_rebuild_consecutive_failures", series(("component", "songs")), 2),
        Sample(
            "indexrelay_verdict_problems",
            series(("code", "component_failed"), ("severity", "warning")),
            1,
        ),
    ]
    for at in (0, 900):
        found = evaluator.evaluate(samples, at).firing
    assert [each.rule.name for each in found] == ["ProblemWarning"]


def test_a_comparison_of_an_age_and_of_other_values_is_written_as_prometheus_reads_it() -> None:
    found = Comparison(
        metric="m",
        compared=">",
        limit=1.5,
        where=(("a", 'b"c'),),
        other_than=("code", ("x", "y")),
        age=True,
    )
    assert found.promql() == (
        'time() - max without (instance, job) (m{a="b\\"c", code!~"x|y"}) > 1.5'
    )
    least = Comparison(metric="m", compared="<", limit=1, of_each=True)
    assert least.promql() == "min without (job) (m) < 1"


@pytest.mark.parametrize("code", Code)
def test_a_problem_is_as_severe_as_its_code_only_where_it_needs_a_person(code: Code) -> None:
    problem = Problem(code=code, what="it is so", advice="do this", acts=Actor.PERSON)
    worst = Severity.CRITICAL if code in CRITICAL else Severity.WARNING
    assert problem.severity is worst
    assert problem.model_copy(update={"asked": True}).severity is Severity.INFO
    assert problem.model_copy(update={"acts": Actor.PROCESS}).severity is Severity.INFO
