"""Waits double, end at the longest one, and lie a fifth around it, the same for everyone."""

import pytest

from indexrelay.schemas.clock import JITTER_SHARE, backoff_seconds


def wait(count: int, *, key: str = "voyager") -> float:
    return backoff_seconds(count, first=10.0, longest=60.0, key=key)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (10_000, 60)]
)
def test_the_wait_doubles_up_to_the_longest_with_jitter_of_at_most_a_fifth(
    count: int, seconds: float
) -> None:
    for key in ("voyager", "clap", "map"):
        assert abs(wait(count, key=key) - seconds) <= JITTER_SHARE * seconds


def test_equal_failures_get_equal_waits() -> None:
    assert wait(3) == wait(3)


def test_what_failed_together_comes_back_spread_over_the_whole_range() -> None:
    waits = [wait(1, key=f"reader-{number}/voyager") for number in range(200)]
    assert min(waits) < 8.2
    assert max(waits) > 11.8
    assert len(set(waits)) == 200
