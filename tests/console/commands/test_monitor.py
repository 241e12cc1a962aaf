"""``indexrelay monitor``: what the operator's port would say, once, in the terminal."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from indexrelay.operations.metrics import METRICS
from tests.console.conftest import CONFIG, Run

pytestmark = pytest.mark.server
READERS_METRICS = re.findall(
    r"^\| `(indexrelay_\w+)` \|",
    (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(),
    re.MULTILINE,
)


def test_health_shows_each_alert_with_what_to_do_and_exits_3(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    said = run("monitor", "health", "--json", *at)
    document = json.loads(said.out)
    assert (said.code, document["status"], document["component"]) == (3, "critical", "indexrelay")
    found = {each["labels"].get("code"): each for each in document["active_alerts"]}
    assert {"no_rebuilder", "no_reader"} <= set(found)
    assert document["alert_counts"]["critical"] >= 2
    said = run("monitor", *at)
    assert said.code == 3
    assert "✗ ProblemCritical: no reader is running, so nothing is served" in said.out
    assert "→ start one: indexrelay reader" in said.out
    assert said.out.splitlines()[-1].startswith("✗ critical: 2 critical")


def test_metrics_are_the_page_or_one_document(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    families = {
        family.name: family
        for family in text_string_to_metric_families(run("monitor", "metrics", *at).out)
    }
    entries = families["indexrelay_index_entries"].samples
    assert {each.labels["component"] for each in entries} == {"map", "map_cache"}
    listed = json.loads(run("monitor", "metrics", "--json", *at).out)["metrics"]
    found = [each for each in listed if each["name"] == "indexrelay_index_entries"]
    assert {(each["labels"]["component"], each["value"]) for each in found} == {
        (each.labels["component"], each.value) for each in entries
    }
    assert {each["name"] for each in listed} <= set(METRICS)


def test_alerts_say_which_rules_hold_and_write_those_of_prometheus(
    run: Run, built: Path, tmp_path: Path
) -> None:
    at = ("--config", str(built))
    rows = json.loads(run("monitor", "alerts", "--json", *at).out)["alerts"]
    held = {row["name"]: row["holds"] for row in rows}
    assert held["ProblemCritical"]
    assert held["RebuildFailing"] == []
    said = run("monitor", "alerts", *at)
    assert said.code == 0
    assert "RebuildFailing" in said.out
    limited = tmp_path / "indexrelay.toml"
    limited.write_text(
        f'{CONFIG}\n[alerts]\nrecall = 0.5\noff = ["DiskLow"]\n[monitoring]\nlook_seconds = 10\n'
    )
    text = run("monitor", "alerts", "--prometheus", "--config", str(limited)).out
    written = {each["alert"]: each["expr"] for each in yaml.safe_load(text)["groups"][0]["rules"]}
    assert "DiskLow" not in written
    assert "> 60" in written["MonitorLate"]
    assert written["RecallLow"].endswith("< 0.5")
    said = run("monitor", "alerts", "--prometheus", "--json", *at)
    assert (said.code, "leave out --json" in said.err) == (2, True)


def test_the_dashboard_asks_for_metrics_that_there_are(run: Run, built: Path) -> None:
    model = json.loads(run("monitor", "dashboard", "--config", str(built)).out)
    panels = [each for each in model["panels"] if each["type"] != "row"]
    assert len(panels) > 10
    asked = [each["expr"] for panel in panels for each in panel["targets"]]
    known = {*METRICS, *READERS_METRICS}
    for expression in asked:
        names = re.findall(r"indexrelay_\w+", re.sub('"[^"]*"', "", expression))
        assert ("namespace=" in expression) is any(
            each.removesuffix("_bucket") in METRICS for each in names
        )
        assert names
        assert {each.removesuffix("_bucket") for each in names} <= known
    assert all(panel["datasource"]["uid"] == "${source}" for panel in panels)
    places = [tuple(panel["gridPos"].values()) for panel in model["panels"]]
    assert len(set(places)) == len(places)
