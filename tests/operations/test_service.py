import threading
from pathlib import Path

import pytest

from indexrelay.operations.service import OperatorService
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.testing import FakeClock
from tests.fixtures.logs import capture_logs
from tests.streams.polling import eventually

WAIT_SECONDS = 20.0


class Counting:
    """A duty that says when it had a turn."""

    longest_turn_seconds: float | None = 300.0

    def __init__(self, name: str, *, fails: int = 0) -> None:
        self.name = name
        self.turns = 0
        self.had = threading.Event()
        self.stops = 0
        self._fails = fails

    def turn(self) -> float:
        self.turns += 1
        if self.turns <= self._fails:
            raise SystemExit(f"{self.name} fails")
        self.had.set()
        return 3600.0

    def stop(self) -> None:
        self.stops += 1


class Endless(Counting):
    """A duty whose turn ends when it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._ended = threading.Event()

    def turn(self) -> float:
        self.had.set()
        assert self._ended.wait(WAIT_SECONDS)
        return 0.0

    def stop(self) -> None:
        self._ended.set()


def service(folder: Path, *duties: Counting, clock: FakeClock | None = None) -> OperatorService:
    settings = Settings.model_validate({"data_dir": folder})
    return OperatorService(
        settings,
        clock=clock,
        catalog=Catalog.open(settings.catalog_url),
        store=ArtifactStore.of(settings),
        duties=duties,
    )


def test_each_duty_has_a_thread_and_one_that_takes_long_holds_up_no_other(tmp_path: Path) -> None:
    endless, other = Endless("endless"), Counting("other")
    operator = service(tmp_path, endless, other)
    operator.start()
    operator.start()
    assert endless.had.wait(WAIT_SECONDS)
    assert other.had.wait(WAIT_SECONDS)
    operator.stop()
    operator.stop()
    assert other.turns == 1
    assert not [each for each in threading.enumerate() if each.name.endswith(("endless", "other"))]


def test_a_duty_that_raises_is_logged_and_has_another_turn(tmp_path: Path) -> None:
    failing = Counting("failing", fails=1)
    operator = service(tmp_path, failing)
    with capture_logs() as events:
        operator.start()
        assert failing.had.wait(WAIT_SECONDS)
        operator.stop()
    assert failing.turns == 2
    assert [each["thread"] for each in events if each["event"] == "thread.interrupted"] == [
        "indexrelay-failing"
    ]


def test_an_operator_that_was_stopped_before_its_start_starts_nothing(tmp_path: Path) -> None:
    duty = Counting("never")
    operator = service(tmp_path, duty)
    operator.stop()
    operator.start()
    operator.stop()
    assert duty.turns == 0


@pytest.mark.parametrize("declared", [False, True])
def test_the_settings_decide_which_duties_there_are(tmp_path: Path, declared: bool) -> None:
    tables = {
        "schedules": {"nightly": {"cron": "0 2 * * *"}},
        "backups": {"schedule": "0 3 * * *"},
    }
    settings = Settings.model_validate({"data_dir": tmp_path, **(tables if declared else {})})
    operator = OperatorService(
        settings, catalog=Catalog.open(settings.catalog_url), store=ArtifactStore.of(settings)
    )
    assert settings.has_duties is declared
    assert operator.duties == (("schedules", "backups") if declared else ())
    with capture_logs() as events:
        operator.start()
        operator.stop()
    assert any(each["event"] == "operator.idle" for each in events) is not declared


def test_a_duty_hangs_whose_turn_takes_longer_than_any_should_and_a_backup_does_not(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    look, backup = Endless("look"), Endless("backup")
    backup.longest_turn_seconds = None
    operator = service(tmp_path, look, backup, clock=clock)
    operator.start()
    assert look.had.wait(WAIT_SECONDS)
    assert backup.had.wait(WAIT_SECONDS)
    clock.advance(300)
    assert not operator.hanging
    clock.advance(1)
    assert set(operator.hanging) == {"look"}
    look.stop()
    eventually(lambda: not operator.hanging)
    operator.stop()


def test_a_service_that_is_retired_lets_a_turn_end_that_takes_long(tmp_path: Path) -> None:
    long, quick = Endless("long"), Counting("quick")
    operator = service(tmp_path, long, quick)
    operator.start()
    assert long.had.wait(WAIT_SECONDS)
    assert quick.had.wait(WAIT_SECONDS)
    assert not operator.retire()
    eventually(lambda: not operator.retire() and quick.stops)
    assert quick.turns == 1
    long.stop()  # its turn ends by itself
    eventually(operator.retire)
    operator.stop()
