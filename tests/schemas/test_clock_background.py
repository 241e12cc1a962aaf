"""What runs beside the loop: again and again, at once when it is woken, and to its end."""

import queue
import threading

import pytest

from indexrelay.schemas.clock import Background

FOREVER = 3600.0
PATIENCE_SECONDS = 30.0


def test_it_acts_again_after_the_seconds_that_it_returned() -> None:
    acted: queue.Queue[int] = queue.Queue()
    count = iter(range(3))

    def act() -> float:
        number = next(count)
        acted.put(number)
        return FOREVER if number == 2 else 0.0

    background = Background(act, name="test")
    background.start()
    background.start()
    try:
        assert [acted.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [0, 1, 2]
    finally:
        background.stop()
    assert acted.empty()


def test_it_acts_at_once_when_it_is_woken_and_again_when_it_was_woken_meanwhile() -> None:
    acted: queue.Queue[None] = queue.Queue()
    go = threading.Semaphore(0)

    def act() -> float:
        acted.put(None)
        go.acquire()
        return FOREVER

    background = Background(act, name="test")
    background.start()
    try:
        acted.get(timeout=PATIENCE_SECONDS)
        background.wake()  # it runs
        go.release()
        acted.get(timeout=PATIENCE_SECONDS)
        go.release()
        background.wake()
        acted.get(timeout=PATIENCE_SECONDS)
    finally:
        go.release()
        background.stop()


def test_stopping_waits_for_the_call_that_runs_and_ending_does_not() -> None:
    began, go = threading.Event(), threading.Event()
    ended: list[str] = []

    def act() -> float:
        began.set()
        go.wait()
        ended.append("act")
        return FOREVER

    background = Background(act, name="test")
    background.start()
    assert began.wait(PATIENCE_SECONDS)
    background.end()
    assert ended == []

    def stop() -> None:
        background.stop()
        ended.append("stop")

    stopping = threading.Thread(target=stop)
    stopping.start()
    go.set()
    stopping.join(PATIENCE_SECONDS)
    assert ended == ["act", "stop"]
    background.stop()


@pytest.mark.parametrize("started", [False, True])
def test_what_was_ended_before_it_began_never_acts(*, started: bool) -> None:
    background = Background(lambda: pytest.fail("it acts"), name="test")
    if started:
        background.end()
        background.start()
    background.stop()
    background.start()
    assert not any(each.name == "indexrelay-test" for each in threading.enumerate())
