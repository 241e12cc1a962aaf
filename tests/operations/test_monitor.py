"""The monitor over a real pipeline: what it counts, what it says at its port, whom it tells."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from indexrelay.operations.metrics import METRICS, samples_of
from indexrelay.operations.monitor import Monitor
from indexrelay.operations.notifications import Notice, Notifier
from indexrelay.operations.observer import Observer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.cron import next_slot
from indexrelay.schemas.monitoring import AlertSettings, MonitoringSettings, NoticeKind
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Keys
from indexrelay.testing import FakeClock, MakePipeline, Pipeline
from tests.testing.test_pipeline import commit

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
CACHE = {"kind": "embedding_cache", "from": "tracks"}
MakeMonitor = Callable[..., Monitor]


class Told(Notifier):
    """A notifier that keeps what it is given."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.fails: dict[str, str] = {}

    def start(self) -> None: ...

    def unsent(self) -> dict[str, list[dict[str, Any]]]:
        return {}

    def restore(self, unsent: Any) -> None: ...

    def forget(self) -> None: ...

    def offer(self, notices: Iterable[Notice]) -> None:
        self.notices += notices

    def stop(self) -> None: ...

    def failing(self) -> dict[str, str]:
        return self.fails

    def take(self) -> list[tuple[NoticeKind, str]]:
        taken, self.notices = self.notices, []
        return [(each.kind, each.text) for each in taken]


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE},
        monitoring={"operator": "127.0.0.1:0"},
        rebuilder={"max_consecutive_failures": 2},
    )


@pytest.fixture
def make_monitor(pipeline: Pipeline) -> Iterator[MakeMonitor]:
    with ExitStack() as stack:

        def make(**changes: Any) -> Monitor:
            monitor = Monitor(
                pipeline.settings.model_copy(update=changes),
                catalog=pipeline.catalog,
                store=pipeline.store,
                connection=lambda: pipeline.connection,
                clock=pipeline.clock,
                role="operator",
                notifier=told,
            )
            stack.callback(monitor.stop)
            return monitor

        told = Told()
        yield make


def observer(
    pipeline: Pipeline, settings: Settings | None = None, clock: Clock | None = None
) -> Observer:
    return Observer(
        settings or pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=lambda: pipeline.connection,
        clock=clock or pipeline.clock,
    )


def values(looking: Observer) -> dict[tuple[str, ...], float]:
    return {
        (each.name.removeprefix("indexrelay_"), *(value for _, value in each.labels)): each.value
        for each in samples_of(looking.look())
    }


def asked(monitor: Monitor, path: str) -> tuple[int, Any]:
    address = f"http://127.0.0.1:{monitor.port}{path}"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    return status, json.loads(text) if path == "/health" else text


def test_rebuilds_are_counted_from_the_start_and_the_share_that_succeeded_over_a_day(
    pipeline: Pipeline,
) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    looking = observer(pipeline)
    found = values(looking)
    assert found["rebuild_success_ratio",] == 1
    assert not [name for name, *_ in found if name == "rebuild_total"]
    commit(pipeline, "two")
    pipeline.settle()
    pipeline.fail_build("cache", times=1)
    commit(pipeline, "three")
    pipeline.settle()
    pipeline.producer.request_rebuild(["cache"])
    pipeline.settle()
    found = values(looking)
    assert found["rebuild_total", "SUCCESS", "batch"] == 1
    assert found["rebuild_total", "SUCCESS", "request"] == 1
    assert sum(value for (name, *_), value in found.items() if name == "rebuild_total") == 3
    assert found["rebuild_success_ratio",] == pytest.approx(3 / 4)
    pipeline.clock.advance(25 * 3600)
    assert ("rebuild_success_ratio",) not in values(looking)
    assert values(looking)["rebuild_total", "SUCCESS", "batch"] == 1


def test_a_result_of_a_clock_that_is_ahead_counts_for_a_day_and_no_longer(
    pipeline: Pipeline,
) -> None:
    ours = FakeClock()
    looking = observer(pipeline, clock=ours)
    pipeline.clock.advance(40 * 24 * 3600)
    commit(pipeline, "one")
    pipeline.settle()
    assert values(looking)["rebuild_success_ratio",] == 1
    ours.advance(25 * 3600)
    assert ("rebuild_success_ratio",) not in values(looking)


def test_a_flood_of_results_is_read_in_parts_and_what_is_none_is_passed_over(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Keys(pipeline.settings.namespace).results
    looking = observer(pipeline)
    monkeypatch.setattr("indexrelay.operations.observer._BYTES", 20_000)
    for _ in range(40):
        pipeline.connection.commands.xadd(key, {b"event": b"x" * 1000})
    commit(pipeline, "one")
    pipeline.settle()
    for _ in range(2):  # sixteen entries at a time, until the limit is passed
        assert ("rebuild_success_ratio",) not in values(looking)
    assert values(looking)["rebuild_success_ratio",] == 1


def test_freshness_is_the_age_of_the_oldest_commit_that_a_reader_lacks(pipeline: Pipeline) -> None:
    looking = observer(pipeline)
    commit(pipeline, "one")
    pipeline.clock.advance(40)
    assert values(looking)["freshness_seconds", "cache"] == 40
    pipeline.rebuild()
    assert values(looking)["freshness_seconds", "cache"] == 0  # there is no reader yet
    reader = pipeline.reader("a")
    commit(pipeline, "two")
    pipeline.clock.advance(7)
    commit(pipeline, "three")
    pipeline.clock.advance(3)
    assert values(looking)["freshness_seconds", "cache"] == 10
    pipeline.rebuild()
    assert values(looking)["freshness_seconds", "cache"] == 10
    reader.step()
    assert values(looking)["freshness_seconds", "cache"] == 0


def test_a_reader_is_counted_by_the_state_that_it_is_in(pipeline: Pipeline) -> None:
    reader, looking = pipeline.reader("a"), observer(pipeline)
    commit(pipeline, "one")
    pipeline.settle()
    assert values(looking)["readers", "serving"] == 1
    commit(pipeline, "two")
    pipeline.rebuild()
    found = values(looking)
    assert (found["readers", "behind"], found["readers", "serving"]) == (1, 0)
    pipeline.corrupt("cache")
    reader.step()
    found = values(looking)
    assert (found["readers", "refusing"], found["readers", "behind"]) == (1, 0)


def test_what_cannot_be_read_is_absent_and_a_critical_problem(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    commit(pipeline, "one")
    pipeline.settle()
    pipeline.reader("a")
    monitor.turn()
    assert asked(monitor, "/health")[1]["status"] == "healthy"
    with pipeline.without_redis():
        monitor.turn()
        page = asked(monitor, "/metrics")[1]
        assert re.search('_problems{code="redis_unreadable",.*severity="critical"} 1', page)
        assert "indexrelay_readers{" not in page
        pipeline.clock.advance(60)
        monitor.turn()
        status, health = asked(monitor, "/health")
    assert (status, health["status"], health["component"]) == (503, "critical", "operator")
    assert health["alert_counts"] == {"critical": 1, "warning": 0}
    (alert,) = health["active_alerts"]
    assert (alert["name"], alert["labels"]["code"]) == ("ProblemCritical", "redis_unreadable")
    monitor.turn()
    assert asked(monitor, "/health")[1]["active_alerts"] == []


def test_health_says_that_the_last_look_is_too_old(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    monitor.turn()
    pipeline.clock.advance(3 * pipeline.settings.monitoring.look_seconds + 31)
    status, health = asked(monitor, "/health")
    assert (status, health["active_alerts"][0]["name"]) == (503, "NotLookedAt")


def test_people_are_told_once_that_a_look_does_not_end_and_that_one_has_ended_again(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    told: Any = monitor._notifier
    pipeline.clock.advance(3 * pipeline.settings.monitoring.look_seconds + 31)
    for _ in range(2):  # the first look hangs
        monitor.watch()
    ((kind, text),) = told.take()
    assert (kind, "has not ended" in text) == (NoticeKind.FAILURE, True)
    monitor.turn()
    assert (NoticeKind.RECOVERY, "it is looked again") in told.take()


def test_a_target_that_gets_nothing_is_an_alert_and_the_others_are_told_once(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    told: Any = monitor._notifier
    monitor.turn()
    told.take()
    told.fails = {"night": "a message hangs"}
    for _ in range(2):
        monitor.turn()
    assert told.take() == [
        (NoticeKind.FAILURE, "target night is told of nothing: a message hangs"),
    ]
    found = [each["labels"].get("target") for each in asked(monitor, "/health")[1]["active_alerts"]]
    assert found == ["night"]


def test_one_of_several_operators_tells_of_a_target_that_gets_nothing_and_the_next_one_knows(
    make_monitor: MakeMonitor,
) -> None:
    one, two = make_monitor(), make_monitor(monitoring=MonitoringSettings())
    told: Any = one._notifier
    told.fails = {"night": "it cannot be used"}
    for monitor in (one, two, one, two):
        monitor.turn()
    failing = (NoticeKind.FAILURE, "target night is told of nothing: it cannot be used")
    assert told.take().count(failing) == 1
    one.stop()
    two.turn()  # it takes over
    assert failing not in told.take()
    two.stop()
    make_monitor(monitoring=MonitoringSettings()).turn()  # as after SIGHUP
    assert failing not in told.take()


def test_an_operator_whose_look_hangs_leaves_it_to_the_one_that_tells_while_that_looks(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    one, two = make_monitor(), make_monitor(monitoring=MonitoringSettings())
    told: Any = one._notifier
    one.turn()
    two.turn()
    seconds = pipeline.settings.monitoring.look_seconds
    for _ in range(20):
        pipeline.clock.advance(seconds)
        one.turn()
        two.watch()
    assert not [text for _, text in told.take() if "has not ended" in text]
    for _ in range(20):  # it is gone
        pipeline.clock.advance(seconds)
        two.watch()
    assert len([text for _, text in told.take() if "has not ended" in text]) == 1


def test_a_port_that_is_taken_keeps_no_look_from_being_made(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monitoring = pipeline.settings.monitoring.model_copy(update={"operator": address})
        monitor = make_monitor(monitoring=monitoring)
        monitor.turn()
        assert monitor.port == 0
    monitor.turn()
    assert asked(monitor, "/metrics")[0] == 200


def test_people_are_told_of_a_failure_of_giving_up_and_of_the_recovery(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    told: Any = monitor._notifier
    pipeline.reader("a")
    commit(pipeline, "one")
    pipeline.settle()
    monitor.turn()
    assert told.take() == []
    pipeline.fail_build("cache", error="no such model")
    commit(pipeline, "two")
    pipeline.settle()
    monitor.turn()
    ((kind, text),) = told.take()
    assert (kind, "no such model" in text) == (NoticeKind.FAILURE, True)
    pipeline.advance(30)
    monitor.turn()
    kinds = [kind for kind, _ in told.take()]
    assert kinds == [NoticeKind.FAILURE, NoticeKind.PAUSE]
    pipeline.heal_build("cache")
    commit(pipeline, "three")
    pipeline.settle()
    monitor.turn()
    assert told.take() == [
        (NoticeKind.RECOVERY, "cache was built again, after 2 failed build(s)"),
    ]


def test_people_are_told_of_a_pause_and_of_a_rollback_once(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    told: Any = monitor._notifier
    pipeline.reader("a")
    for each in ("one", "two"):
        commit(pipeline, each)
        pipeline.settle()
    monitor.turn()
    pipeline.catalog.attempts.pause("cache", "costs too much")
    pipeline.store.rollback(1, reason="bad hits")
    pipeline.store.hold("cache", reason="and one more release before anybody looked")
    for _ in range(2):
        monitor.turn()
    assert told.take() == [
        (NoticeKind.PAUSE, "cache is paused, and is not built: costs too much"),
        (NoticeKind.ROLLBACK, "release 3: rolled back cache to release 1: bad hits"),
    ]


def test_the_page_has_the_metrics_that_the_document_lists(
    pipeline: Pipeline, make_monitor: MakeMonitor
) -> None:
    monitor = make_monitor()
    monitor.turn()
    commit(pipeline, "one")
    pipeline.settle()
    monitor.turn()
    rows = re.findall(
        r"^\| `(indexrelay_\w+)` \| (\w+) \|(.*?)\| (.*?) \|$",
        DOCUMENT.read_text().partition("## The installation")[2],
        re.MULTILINE,
    )
    assert [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    ] == [(each.name, each.kind, each.labels, each.text) for each in METRICS.values()]
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(asked(monitor, "/metrics")[1])
    }
    assert list(families) == list(METRICS)
    for name, family in families.items():
        assert (family.type, family.documentation) == (METRICS[name].kind, METRICS[name].text)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == {"namespace", *METRICS[name].labels}
            assert sample.labels["namespace"] == pipeline.settings.namespace
    durations = families["indexrelay_rebuild_duration_seconds"].samples
    assert durations[-2].value == durations[-3].value == 1


def test_the_newest_backup_is_known_by_its_name(pipeline: Pipeline) -> None:
    looking = observer(pipeline)
    name = "backup_last_success_timestamp_seconds"
    assert (name,) not in values(looking)
    pipeline.clock.advance(3 * 86_400)
    for each in ("20260102_120000", "20260101_120000", "20300101_000000"):
        (pipeline.settings.backups_dir / f"{pipeline.settings.namespace}-{each}").mkdir(
            parents=True
        )
    assert values(looking)[name,] == datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
    assert 0 < values(looking)["disk_free_ratio", "backups"] <= 1


def test_a_scheduled_backup_is_due_from_its_slot_until_one_is_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = pipeline.settings.backups.model_copy(update={"schedule": "0 3 * * *"})
    settings = pipeline.settings.model_copy(update={"backups": backups})
    looking = observer(pipeline, settings)
    started, name = pipeline.clock.now(), "backup_due_timestamp_seconds"
    assert (name,) not in values(looking)
    commit(pipeline, "one")
    pipeline.settle()
    assert values(looking)[name,] == started.timestamp()
    kept = f"{settings.namespace}-{started:%Y%m%d_%H%M%S}"
    (settings.backups_dir / kept).mkdir(parents=True)
    assert (name,) not in values(looking)
    pipeline.clock.advance(3 * 24 * 3600)
    slot = next_slot("0 3 * * *", "UTC", after=started)
    assert values(looking)[name,] == slot.timestamp()
    assert looking.look().complete

    def fails(_settings: Settings, _now: datetime) -> datetime:
        raise OSError("no such volume")

    # That is no end of it: nothing is known of backups now.
    monkeypatch.setattr("indexrelay.operations.observer.newest_backup_at", fails)
    assert not looking.look().complete


def test_freshness_of_an_outside_source_counts_from_when_its_change_was_seen(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "one.npy", np.ones((2, 3), dtype=np.float32))
    outside = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "source": {"kind": "folder", "path": str(folder)}}},
        components={"cache": CACHE},
    )
    outside.producer.batch_completed("tracks")
    looking = observer(outside)
    for age in (0, 30):
        assert values(looking)["freshness_seconds", "cache"] == age
        outside.clock.advance(30)


def test_what_the_catalog_holds_is_absent_while_it_is_away_and_nobody_is_told_it_were_over(
    pipeline: Pipeline, make_monitor: MakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = make_monitor(alerts=AlertSettings(consecutive_failures=1))
    told: Any = monitor._notifier
    commit(pipeline, "one")
    pipeline.settle()
    pipeline.reader("a")
    pipeline.fail_build("cache")
    commit(pipeline, "two")
    pipeline.settle()
    monitor.turn()
    assert NoticeKind.FAILURE in [kind for kind, _ in told.take()]
    with monkeypatch.context() as away:

        def fails(*_: object) -> int:
            raise OperationalError("SELECT", {}, Exception("no such server"))

        away.setattr(type(pipeline.catalog.dead_letters), "count", fails)
        monitor.turn()
    page = asked(monitor, "/metrics")[1]
    assert 'code="catalog_unreadable"' in page
    for name in ("rebuild_consecutive_failures", "dead_letters", "freshness_seconds"):
        assert not re.search(f"^indexrelay_{name}[ {{]", page, re.MULTILINE), name
    assert told.take() == []
    monitor.turn()
    assert told.take() == []
    pipeline.heal_build("cache")
    commit(pipeline, "three")
    pipeline.settle()
    monitor.turn()
    assert {kind for kind, _ in told.take()} == {NoticeKind.RECOVERY}
