"""A user's function that is waited for no longer than it may take."""

import contextvars
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from indexrelay.components.functions import OverdueError, TimedCalls

AT_ONCE = 0.0
LONG = 60.0


@pytest.fixture
def calls() -> Iterator[TimedCalls]:
    with closing(TimedCalls("test-calls", most=2)) as calls:
        yield calls


def test_a_call_gives_what_the_function_returns_or_raises(calls: TimedCalls) -> None:
    assert calls.call(pow, 2, 5, seconds=LONG) == 32
    with pytest.raises(ZeroDivisionError):
        calls.call(divmod, 1, 0, seconds=LONG)
    with pytest.raises(SystemExit):
        calls.call(sys.exit, 3, seconds=LONG)


def test_calls_one_after_another_share_a_thread_and_see_the_context_of_their_callers(
    calls: TimedCalls,
) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("a")
    seen = {calls.call(lambda: (tenant.get(), threading.get_ident()), seconds=LONG) for _ in "abc"}
    assert len(seen) == 1
    ((name, thread),) = seen
    assert name == "a"
    assert thread != threading.get_ident()


def test_an_overdue_call_goes_on_and_others_run_beside_it(calls: TimedCalls) -> None:
    may_end, ended, begun = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        may_end.wait()
        ended.set()

    while not begun.is_set():  # one that is given up before its thread takes it is not begun
        with pytest.raises(OverdueError):
            calls.call(hangs, seconds=AT_ONCE)
    assert calls.call(pow, 2, 5, seconds=LONG) == 32
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(LONG)


def test_while_all_threads_are_overdue_nothing_is_begun(calls: TimedCalls) -> None:
    may_end = threading.Event()
    hanging, begun = [], list[int]()

    def hangs() -> None:
        hanging.append(1)
        may_end.wait()

    while len(hanging) < 2:
        with pytest.raises(OverdueError):
            calls.call(hangs, seconds=AT_ONCE)
    with pytest.raises(OverdueError):
        calls.call(begun.append, 1, seconds=LONG)
    may_end.set()
    while not begun:
        with suppress(OverdueError):  # until one of them has ended
            calls.call(begun.append, 2, seconds=LONG)
    assert begun == [2]


def test_a_forked_child_has_threads_of_its_own(calls: TimedCalls) -> None:
    assert calls.call(pow, 2, 5, seconds=LONG) == 32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: here nobody holds a lock
        child = os.fork()
    if not child:
        os._exit(calls.call(pow, 2, 5, seconds=LONG))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 32


def test_without_a_thread_nothing_is_begun_and_the_next_call_gets_one(
    calls: TimedCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(3):
            with pytest.raises(OverdueError):
                calls.call(int, seconds=LONG)
    assert calls.call(int, "7", seconds=LONG) == 7
