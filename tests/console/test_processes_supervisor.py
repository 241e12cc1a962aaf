"""Children are started in order, restarted with growing pauses, stopped in reverse."""

from datetime import UTC, datetime

import pytest

from indexrelay.console.processes import LONGEST_PAUSE_SECONDS, SETTLED_SECONDS, Supervisor


class HandClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds


class FakeChild:
    """Runs until a test says that it died."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.running = False
        self.exit_code: int | None = None
        self._story = story

    def start(self) -> None:
        self.running = True
        self._story.append(f"start {self.name}")

    def ask_to_stop(self) -> None:
        self._story.append(f"ask {self.name}")

    def stop(self, *, grace_seconds: float) -> None:
        self.running = False
        assert grace_seconds > 0
        self._story.append(f"stop {self.name}")

    def die(self) -> None:
        self.running = False
        self.exit_code = -7


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def children(story: list[str]) -> list[FakeChild]:
    return [FakeChild("rebuilder", story), FakeChild("reader", story)]


def test_the_last_stage_stops_first_and_each_stage_together(
    clock: HandClock, story: list[str]
) -> None:
    one, two, three = (FakeChild(name, story) for name in ("one", "two", "three"))
    supervisor = Supervisor([one], [two, three], clock=clock)
    supervisor.start()
    assert story == ["start one", "start two", "start three"]
    story.clear()
    supervisor.stop(grace_seconds=1)
    assert story == ["ask two", "ask three", "stop two", "stop three", "ask one", "stop one"]


def test_one_that_dies_is_started_again_and_the_others_are_left_alone(
    children: list[FakeChild], clock: HandClock, story: list[str]
) -> None:
    supervisor = Supervisor(children, clock=clock)
    supervisor.start()
    children[1].die()
    supervisor.look()
    assert not children[1].running
    clock.seconds = 0.5
    supervisor.look()
    assert story == ["start rebuilder", "start reader", "start reader"]
    assert supervisor.restarts == {"rebuilder": 0, "reader": 1}


def restart_after(supervisor: Supervisor, child: FakeChild, clock: HandClock) -> float:
    child.die()
    died = clock.seconds
    while not child.running:
        supervisor.look()
        clock.seconds += 0.125
    return clock.seconds - 0.125 - died


def test_one_that_keeps_dying_is_restarted_with_growing_pauses_up_to_a_limit(
    children: list[FakeChild], clock: HandClock
) -> None:
    supervisor = Supervisor(children, clock=clock)
    supervisor.start()
    pauses = [restart_after(supervisor, children[1], clock) for _ in range(9)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_one_that_lived_for_a_while_is_started_again_soon(
    children: list[FakeChild], clock: HandClock
) -> None:
    supervisor = Supervisor(children, clock=clock)
    supervisor.start()
    for _ in range(4):
        restart_after(supervisor, children[1], clock)
    clock.seconds += SETTLED_SECONDS
    assert restart_after(supervisor, children[1], clock) == 0.5
