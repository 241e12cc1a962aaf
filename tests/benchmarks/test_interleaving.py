"""Taking turns, and what becomes of a slow minute."""

from collections.abc import Callable

import pytest

from measuring.rounds import Rounds, interleaved, prepared, timed


def contender(name: str, seconds: float, turns: list[str]) -> Callable[[], float]:
    def turn() -> float:
        turns.append(name)
        return seconds

    return turn


def silent(what: str) -> None:
    pass


def test_every_round_runs_each_contender_once_and_the_order_turns() -> None:
    turns: list[str] = []
    contenders = {name: contender(name, 1.0, turns) for name in "abc"}
    interleaved(contenders, rounds=5, say=silent, warm_up=False)
    assert turns[:6] == ["a", "b", "c", "c", "b", "a"]
    assert len(turns) == 15


def test_the_round_that_warms_up_does_not_count() -> None:
    seconds = iter([99.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    found = interleaved({"a": lambda: next(seconds)}, rounds=5, say=silent)
    assert found.seconds["a"] == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        interleaved({"a": lambda: 1.0}, rounds=4, say=silent)


def test_a_contender_that_did_not_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="did not measure"):
        interleaved({"a": lambda: 0.0}, rounds=5, say=silent)


def test_a_slow_minute_slows_both_sides_of_a_ratio() -> None:
    found = Rounds(
        seconds={"ours": (1.0, 1.0, 10.0, 10.0, 10.0), "bare": (2.0, 2.0, 20.0, 20.0, 5.0)}
    )
    assert found.ratio("ours", "bare") == 0.5
    assert found.speed("ours", "bare") == 2.0
    assert found.median("bare") == 5.0


def test_rates_are_told_with_their_spread() -> None:
    rates = Rounds(seconds={"ours": (1.0, 2.0, 4.0)}).rates("ours", 100, "rows/s")
    assert rates.as_json() == {
        "name": "ours",
        "unit": "rows/s",
        "median": 50.0,
        "low": 25.0,
        "high": 100.0,
        "rounds": 3,
    }


def test_what_is_prepared_is_not_timed_and_is_cleared_even_after_an_error() -> None:
    done: list[str] = []

    def prepare() -> str:
        done.append("prepared")
        return "given"

    turn = prepared(prepare, lambda given: done.append(f"worked on {given}"), done.append)
    assert turn() > 0
    assert done == ["prepared", "worked on given", "given"]

    def fail(given: str) -> None:
        raise RuntimeError(given)

    with pytest.raises(RuntimeError):
        prepared(prepare, fail, done.append)()
    assert done[3:] == ["prepared", "given"]


def test_timing_sees_the_work() -> None:
    small, large = timed(lambda: sum(range(10))), timed(lambda: sum(range(2_000_000)))
    assert 0 < small() < large()
