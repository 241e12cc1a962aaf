import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.rebuilder.coalescer import Coalescer


def make(*, quiet: float = 0.2, most: float = 5.0, signals: int = 1000) -> Coalescer:
    return Coalescer(quiet_seconds=quiet, max_delay_seconds=most, max_signals=signals)


def test_nothing_waits_when_nothing_came() -> None:
    assert make().remaining(100.0) is None


def test_one_signal_starts_a_pass_after_the_quiet_time() -> None:
    coalescer = make()
    coalescer.note(10.0)
    assert coalescer.remaining(10.0) == pytest.approx(0.2)
    assert coalescer.remaining(10.2) == 0.0


def test_each_further_signal_starts_the_quiet_time_again() -> None:
    coalescer = make()
    coalescer.note(10.0)
    coalescer.note(10.15)
    remaining = coalescer.remaining(10.25)
    assert remaining is not None
    assert remaining > 0


def test_a_steady_stream_gets_through_after_the_longest_delay() -> None:
    coalescer = make(most=1.0)
    now = 10.0
    while coalescer.remaining(now) != 0:
        coalescer.note(now)
        now += 0.1
        assert now < 11.2
    assert now >= 11.0


def test_enough_signals_need_no_quiet() -> None:
    coalescer = make(signals=3)
    coalescer.note(10.0, count=3)
    assert coalescer.remaining(10.0) == 0.0


def test_what_comes_after_a_pass_began_belongs_to_the_next_one() -> None:
    coalescer = make()
    coalescer.note(10.0)
    coalescer.take()
    assert coalescer.remaining(20.0) is None
    coalescer.note(20.0)
    assert coalescer.remaining(20.0) == pytest.approx(0.2)


@given(st.lists(st.floats(min_value=0, max_value=0.5), min_size=1, max_size=50))
def test_no_signal_waits_longer_than_the_longest_delay(gaps: list[float]) -> None:
    coalescer = make(quiet=0.2, most=1.0)
    now = first = 0.0
    coalescer.note(now)
    for gap in gaps:
        now += gap
        remaining = coalescer.remaining(now)
        assert remaining is not None
        if remaining == 0:
            return
        assert now + remaining <= first + 1.0 + 1e-9
        coalescer.note(now)
