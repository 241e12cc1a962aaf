"""``indexrelay schedule`` and the operator's role, on a catalog of their own."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from indexrelay.schemas.schedules import request_id_of
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.catalog import Catalog
from indexrelay.testing import FakeClock
from tests.console.conftest import Run
from tests.fixtures.warm_process import WarmProcess

CONFIG = """
[collections.tracks]
dimension = 3
[components.map]
kind = "embedding_cache"
from = "tracks"
[components.other]
kind = "embedding_cache"
from = "tracks"
group = "rest"
[schedules.weekly]
cron = "0 2 * * 0"
timezone = "Europe/Berlin"
components = ["ma*"]
full = true
[schedules.hourly]
cron = "0 * * * *"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    return config


def opened(config: Path, clock: FakeClock | None = None) -> Catalog:
    url = load_settings(config, environ={}).catalog_url
    return Catalog.open(url) if clock is None else Catalog.open(url, clock=clock)


def begun(config: Path, ago: timedelta) -> tuple[Catalog, FakeClock]:
    """Both schedules were looked at so long ago, and not since."""
    clock = FakeClock(datetime.now(UTC) - ago)
    catalog = opened(config, clock)
    for name, each in load_settings(config, environ={}).schedules.items():
        plan = each.plan(name, after=clock.now(), now=clock.now())
        catalog.schedules.begin(name, definition=each.definition, next_at=plan.next_at)
    return catalog, clock


def test_the_list_shows_the_next_starts_and_that_nobody_looks(run: Run, config: Path) -> None:
    said = run("schedule", "--config", str(config))
    assert said.code == 3
    assert "0 2 * * 0" in said.out
    assert said.out.count("02:00 +0") == 3  # on Sundays, in Berlin
    assert "whatever is due" in said.out
    assert "weekly: no operator has looked at it yet; start one: indexrelay operator" in said.out

    answer = json.loads(run("schedule", "list", "--next", "5", "--json", "-c", str(config)).out)
    weekly = answer["schedules"]["weekly"]
    assert len(weekly["next"]) == 5
    starts = [datetime.fromisoformat(each["start"]) for each in weekly["next"]]
    berlin = [start.astimezone(ZoneInfo("Europe/Berlin")) for start in starts]
    assert {(start.weekday(), start.hour, start.minute) for start in berlin} == {(6, 2, 0)}
    assert len({start.date() for start in berlin}) == 5
    assert weekly["components"] == ["map"]
    assert not weekly["watched"]


def test_the_list_shows_what_came_of_the_last_slot_and_that_one_is_overdue(
    run: Run, config: Path
) -> None:
    catalog, clock = begun(config, timedelta(days=20))
    settings = load_settings(config, environ={}).schedules["weekly"]
    slot = settings.plan("weekly", after=clock.now(), now=clock.now()).next_at
    catalog.inbox.request(request_id_of("weekly", slot), components=["map"], reason="schedule")
    request = catalog.inbox.open_requests()[0]
    catalog.inbox.finish([request.request_id])
    catalog.schedules.fire(
        "weekly",
        definition=settings.definition,
        slot=slot,
        request=request,
        next_at=slot + timedelta(days=7),
    )
    hourly = load_settings(config, environ={}).schedules["hourly"]
    plan = hourly.plan("hourly", after=datetime.now(UTC), now=datetime.now(UTC))
    catalog.schedules.expect("hourly", definition=hourly.definition, next_at=plan.next_at)
    catalog.close()

    said = run("schedule", "list", "--config", str(config))

    assert "nothing was due" in said.out
    assert "weekly: it should have started at" in said.out
    assert "hourly: it should" not in said.out
    assert said.code == 3
    weekly = json.loads(run("schedule", "--json", "-c", str(config)).out)["schedules"]["weekly"]
    assert datetime.fromisoformat(weekly["slot"]) == slot
    assert weekly["outcome"] == "nothing was due"
    assert weekly["overdue_since"] is not None


def test_a_schedule_is_run_by_hand_and_force_overrides_its_pauses(run: Run, config: Path) -> None:
    said = run("schedule", "run", "weekly", "--config", str(config))
    assert said.code == 0
    assert "requested as" in said.out
    assert run("schedule", "run", "weekly", "--force", "--config", str(config)).code == 0

    catalog = opened(config)
    first, forced = catalog.inbox.open_requests()
    catalog.close()
    assert first.components == forced.components == ("map",)
    assert first.full
    assert not first.force
    assert first.failure_cooldown_seconds == 86400
    assert forced.force
    assert forced.failure_cooldown_seconds is None
    assert first.reason == "schedule weekly, by hand"
    assert "left alone" not in said.out
    audit = (config.parent / "indexrelay-data" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["request_id"] for line in audit] == [
        first.request_id,
        forced.request_id,
    ]

    unknown = run("schedule", "run", "wekly", "--config", str(config))
    assert unknown.code == 2
    assert "no schedule 'wekly'; there is hourly, weekly" in unknown.err


def test_what_is_paused_or_failed_too_often_is_named_with_the_time_until_when(
    run: Run, config: Path
) -> None:
    catalog = opened(config)
    for _ in range(3):
        catalog.attempts.failed("map", error="odd", inputs="a", targets={"tracks": 1})
    until = catalog.attempts.all()["map"].failed_at + timedelta(days=1)
    asked = run("schedule", "run", "weekly", "--config", str(config))
    assert asked.code == 0
    assert (
        "map is left alone: it failed 3 time(s) in a row, and schedules leave it alone until "
        f"{until:%Y-%m-%d %H:%M} UTC"
    ) in asked.out
    anyway = f"→ all the same: indexrelay schedule run --config {config} weekly --force"
    assert anyway in asked.out
    assert "left alone" not in run("schedule", "run", "weekly", "--force", "-c", str(config)).out

    catalog.attempts.pause("map", "moving")
    catalog.close()
    answer = json.loads(run("schedule", "--json", "--config", str(config)).out)
    assert answer["schedules"]["weekly"]["left_alone"]["map"].startswith("it is paused (moving)")
    assert answer["schedules"]["hourly"]["left_alone"] == {}
    assert "map is left alone: it is paused (moving)" in run("schedule", "-c", str(config)).out


def test_a_list_without_schedules_says_how_to_declare_one(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "none.toml"
    config.write_text("[collections.tracks]\ndimension = 3\n")
    said = run("schedule", "--config", str(config))
    assert (said.code, said.out) == (0, "")
    assert "[schedules.NAME]" in said.err


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        (
            'cron = "0 2 * *"',
            "schedules.bad.cron = (hidden: text of 7 characters): must have five fields",
        ),
        ('cron = "0 2 * * *"\ncomponents = ["mapp"]', "no such component; did you mean 'map'?"),
        ('cron = "0 2 * * *"\ngroups = ["best"]', "no such group; did you mean 'rest'?"),
        ('cron = "0 2 * * *"\ntimezone = "Berlin"', "no time zone that this machine knows"),
        ('cron = "0 2 * * *"\nquiet_hours = ["8-9"]', 'two times of a day, as "22:00-06:00"'),
    ],
)
def test_a_schedule_that_means_nothing_is_a_mistake(
    run: Run, config: Path, line: str, mistake: str
) -> None:
    config.write_text(f"{CONFIG}[schedules.bad]\n{line}\n")
    said = run("schedule", "--config", str(config))
    assert said.code == 2
    assert mistake in said.err


def test_an_operator_makes_up_for_what_was_missed_and_ends_at_a_signal(config: Path) -> None:
    catalog, _ = begun(config, timedelta(days=8))
    with (config.parent / "said").open("wb") as said:
        operator = WarmProcess(
            ["indexrelay.console.main", "operator", "--config", str(config)],
            log=said,
            cwd=config.parent,
        )
        try:
            pause = threading.Event()
            while len(requests := catalog.inbox.open_requests()) < 2:
                assert operator.poll() is None, (config.parent / "said").read_text()
                pause.wait(0.05)  # the operator needs the processors, too
        finally:
            operator.terminate()
        assert operator.wait(20) == 0
    assert {each.components for each in requests} == {("map",), ()}
    states = catalog.schedules.all()
    assert {each.request for each in states.values()} == {each.request_id for each in requests}
    catalog.close()
