"""A thread of ours reports what it met, backs off and goes on."""

import threading
from collections.abc import Callable

import pytest

from indexrelay.schemas.clock import SupervisedThread
from tests.fixtures.logs import capture_logs


class Body:
    """Raises each of ``errors`` once, then returns."""

    def __init__(self, errors: list[BaseException]) -> None:
        self.errors = errors
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


def run(body: Callable[[], None], *, wait: Callable[[float], bool] | None) -> list[dict[str, str]]:
    with capture_logs() as lines:
        thread = SupervisedThread(body, name="indexrelay-test", wait=wait)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    return [line for line in lines if line["event"] == "thread.interrupted"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        RuntimeError("can't start new thread"),
        KeyError("genre"),
        MemoryError(),
        SystemExit(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_is_logged_and_the_thread_goes_on(error: BaseException) -> None:
    body = Body([error])
    told = run(body, wait=lambda _: False)
    assert body.runs == 2
    assert [line["thread"] for line in told] == ["indexrelay-test"]
    assert type(error).__name__ in told[0]["error"]


def test_a_thread_backs_off_and_ends_when_its_wait_returns_true() -> None:
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 10

    body = Body([OSError(5, "no") for _ in range(50)])
    assert len(run(body, wait=wait)) == body.runs == 10
    assert pauses[0] <= 1.2
    assert 48 <= pauses[-1] <= 72


def test_a_body_that_answers_for_itself_is_not_begun_again() -> None:
    body = Body([OSError(5, "no")])
    assert len(run(body, wait=None)) == body.runs == 1


def test_the_thread_is_a_daemon_and_has_its_name() -> None:
    thread = SupervisedThread(lambda: None, name="indexrelay-test", wait=None)
    assert thread.daemon
    assert thread.name == "indexrelay-test"
    assert isinstance(thread, threading.Thread)
