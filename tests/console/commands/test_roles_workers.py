"""The parent of several workers: whom it starts again, and when it gives up. Without processes."""

from pathlib import Path
from typing import cast

import pytest

from indexrelay.console.commands.roles import Workers
from indexrelay.console.errors import ExitCode
from indexrelay.console.processes import Stop
from indexrelay.operations.systemd import ServiceManager
from indexrelay.service.workers import WorkerBoard, WorkerNote, WorkerPlace
from tests.console.test_processes_supervisor import FakeChild, HandClock


class FakeWorker(FakeChild):
    """Has another process id after each start; says that it is ready where it gets so."""

    def __init__(self, number: int, story: list[str], board: WorkerBoard) -> None:
        super().__init__(f"worker {number}", story)
        self.number = number
        self.pid: int | None = None
        self.gets_ready = True
        self._board = board
        self._pids = iter(range(100 * number, 100 * number + 100))

    def start(self) -> None:
        super().start()
        self.pid, self.exit_code = next(self._pids), None
        note = WorkerNote(pid=self.pid, ready=self.gets_ready, retries=0, families={})
        self._board.write(self.number, note)

    def end(self, exit_code: int) -> None:
        self.running, self.pid, self.exit_code = False, None, exit_code


class FakeStop:
    """Is never asked to stop; what waits for it moves the clock."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        self._clock.seconds += seconds
        return False


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def children(tmp_path: Path, story: list[str]) -> dict[int, FakeWorker]:
    board = WorkerBoard(tmp_path)
    return {number: FakeWorker(number, story, board) for number in (1, 2)}


@pytest.fixture
def workers(children: dict[int, FakeWorker], tmp_path: Path, clock: HandClock) -> Workers:
    made = Workers(children, WorkerBoard(tmp_path), clock=clock)
    made.start()
    return made


@pytest.fixture
def stop(clock: HandClock) -> Stop:
    return cast("Stop", FakeStop(clock))


def test_that_all_workers_are_ready_is_logged_once(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="indexrelay")
    for _ in range(2):
        assert workers.look() is None
    assert len([each for each in caplog.messages if "workers.ready" in each]) == 1


def test_workers_are_restarted_in_turn_each_once_the_one_before_is_ready(
    workers: Workers, story: list[str], stop: Stop
) -> None:
    story.clear()
    workers.restart_in_turn(stop)
    assert story == ["stop worker 1", "start worker 1", "stop worker 2", "start worker 2"]


def test_a_worker_that_was_killed_while_it_ended_leaves_no_count_of_its_connections(
    workers: Workers, tmp_path: Path, stop: Stop
) -> None:
    board = WorkerBoard(tmp_path)
    with board.held(1), board.held(2):
        killed, other = WorkerPlace(board, 1), WorkerPlace(board, 2)
        killed.count_connections(0)
        other.count_connections(1)
        assert not other.has_fewest_connections
        workers.restart_in_turn(stop)
        other.count_connections(1)
        assert other.has_fewest_connections


@pytest.mark.parametrize("dies", [True, False])
def test_a_worker_that_does_not_get_ready_again_leaves_the_others_as_they_are(
    workers: Workers,
    children: dict[int, FakeWorker],
    story: list[str],
    stop: Stop,
    dies: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    children[1].gets_ready = False
    if dies:
        monkeypatch.setattr(children[1], "start", lambda: children[1].end(2))
    story.clear()
    workers.restart_in_turn(stop)
    assert len([each for each in caplog.messages if "workers.not_restarted" in each]) == 1
    assert "stop worker 2" not in story


def test_settings_that_no_worker_can_start_with_end_the_parent_before_one_has_served(
    children: dict[int, FakeWorker], tmp_path: Path, clock: HandClock
) -> None:
    for child in children.values():
        child.gets_ready = False
    workers = Workers(children, WorkerBoard(tmp_path), clock=clock)
    workers.start()
    children[2].end(1)
    assert workers.look() is None  # what may pass is tried again
    children[1].end(ExitCode.USAGE)
    assert workers.look() is ExitCode.USAGE


def test_a_worker_that_ends_once_they_have_served_is_started_again_whatever_its_code(
    workers: Workers, children: dict[int, FakeWorker], story: list[str], clock: HandClock
) -> None:
    assert workers.look() is None
    children[1].end(ExitCode.USAGE)
    story.clear()
    for _ in range(2):
        assert workers.look() is None
        clock.seconds += 60
    assert story == ["start worker 1"]


class FakeManager:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[bool] = []

    def alive(self, *, ready: bool) -> None:
        self.heard.append(ready)


def test_a_service_manager_hears_that_all_are_ready_and_also_while_they_are_restarted(
    children: dict[int, FakeWorker], tmp_path: Path, clock: HandClock, stop: Stop
) -> None:
    children[2].gets_ready = False
    manager = FakeManager()
    workers = Workers(
        children,
        WorkerBoard(tmp_path),
        clock=clock,
        manager=cast("ServiceManager", manager),
    )
    workers.start()
    workers.look()
    assert manager.heard == [False]
    children[2].gets_ready = True
    children[2].start()
    workers.look()
    assert manager.heard == [False, True]
    children[1].gets_ready = False  # its restart takes long: the watchdog is not to end it
    workers.restart_in_turn(stop)
    assert len(manager.heard) > 100
