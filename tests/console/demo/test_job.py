"""How much of a batch's time is the pipeline's own."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.console.demo.job import covered_seconds, own_share
from indexrelay.console.demo.report import SpreadReport
from indexrelay.schemas.messages import BuildOutcome, ComponentResult, RebuildResult, RebuildStatus

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def result(*builds: tuple[float, float], woken: float = 0.0, started: float = 0.2) -> RebuildResult:
    return RebuildResult(
        status=RebuildStatus.SUCCESS,
        message="",
        woken_at=at(woken),
        started_at=at(started),
        finished_at=at(9),
        components={
            f"c{number}": ComponentResult(
                outcome=BuildOutcome.REBUILT, started_at=at(begin), seconds=seconds
            )
            for number, (begin, seconds) in enumerate(builds)
        },
    )


def test_builds_side_by_side_are_taken_off_once() -> None:
    share = own_share(1.0, [result((0.3, 0.4), (0.4, 0.4), (0.3, 0.1))])
    assert share == pytest.approx(1.0 - 0.2 - 0.5)


def test_several_rebuilds_of_one_batch_all_count() -> None:
    share = own_share(2.0, [result((0.3, 0.4)), result((1.0, 0.4), woken=0.8, started=0.9)])
    assert share == pytest.approx(2.0 - 0.2 - 0.4 - 0.1 - 0.4)


def test_without_any_rebuild_all_of_it_is_own() -> None:
    assert own_share(0.5, []) == 0.5


def test_the_middle_and_the_worst() -> None:
    assert SpreadReport.of([3.0, 1.0, 2.0]) == SpreadReport(p50=2.0, max=3.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda x: (x[0], x[0] + x[1])),
        max_size=20,
    )
)
def test_the_union_is_what_counting_gives(intervals: list[tuple[int, int]]) -> None:
    counted = {tick for start, end in intervals for tick in range(start, end)}
    assert covered_seconds([(float(a), float(b)) for a, b in intervals]) == len(counted)
