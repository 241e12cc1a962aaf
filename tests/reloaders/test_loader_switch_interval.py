"""While a release is worked through, the interpreter's lock changes hands often."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from indexrelay.reloaders.loader import INTERVAL_SECONDS, switch_interval
from indexrelay.reloaders.presence import Reporter
from indexrelay.storage.artifacts import ArtifactStore
from tests.reloaders.bench import Bench

USUAL_SECONDS = 0.005


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_SECONDS)
    yield
    sys.setswitchinterval(before)


def interval() -> float:
    return round(sys.getswitchinterval(), 6)


def test_turns_are_short_until_the_last_reload_of_the_process_is_over() -> None:
    with switch_interval.shortened():
        with switch_interval.shortened():
            assert interval() == INTERVAL_SECONDS
        assert interval() == INTERVAL_SECONDS
    assert interval() == USUAL_SECONDS


def test_what_failed_puts_it_back_too() -> None:
    with pytest.raises(ZeroDivisionError), switch_interval.shortened():
        _ = 1 / 0
    assert interval() == USUAL_SECONDS


def test_a_process_with_shorter_turns_keeps_them() -> None:
    sys.setswitchinterval(0.000020)
    own = interval()
    with switch_interval.shortened():
        assert interval() == own
    assert interval() == own


def test_what_the_process_decides_meanwhile_stands() -> None:
    with switch_interval.shortened():
        sys.setswitchinterval(0.001)
    assert interval() == 0.001


def test_a_child_forked_in_the_middle_of_a_reload_has_what_the_process_had() -> None:
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()

    def child() -> None:
        at_first = interval()
        with switch_interval.shortened():
            told.put((at_first, interval()))

    with switch_interval.shortened():
        process = fork.Process(target=child)
        process.start()
        process.join()
    assert told.get() == (USUAL_SECONDS, INTERVAL_SECONDS)


def test_turns_are_short_while_a_reader_looks_and_loads_and_reports(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, float] = {}

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*given: Any, **named: Any) -> Any:
            seen[step.__name__] = interval()
            return step(*given, **named)

        return watching

    bench.publish(voyager="v1")
    reader = bench.reader()
    steps: dict[type, tuple[Callable[..., Any], ...]] = {
        ArtifactStore: (ArtifactStore.newest_release, ArtifactStore.open_version),
        Reporter: (Reporter.publish, Reporter.report),
    }
    for owner, its_steps in steps.items():
        for step in its_steps:
            monkeypatch.setattr(owner, step.__name__, watched(step))
    assert reader.step()
    names = ("newest_release", "open_version", "publish", "report")
    assert seen == dict.fromkeys(names, INTERVAL_SECONDS)
    assert interval() == USUAL_SECONDS
