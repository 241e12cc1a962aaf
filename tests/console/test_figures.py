"""Figures as people write them."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.console import figures


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (12345, "12,345"),
        (50.0, "50"),
        (1234.5, "1,234.5"),
        (0.9876543209876543, "0.988"),
        (0.95, "0.95"),
        (0.99996, "0.99996"),
        (1e-05, "0.00001"),
        (1e-12, "below 0.000001"),
        (-0.25, "-0.25"),
        (float("inf"), "∞"),
        (float("nan"), "not a number"),
    ],
)
def test_a_figure_is_written_as_people_write_it(value: float, shown: str) -> None:
    assert figures.number(value) == shown


@pytest.mark.parametrize(
    ("check", "value", "shown"),
    [
        ("latency_ms", 3.4321, "3.4 ms"),
        ("latency_ms", 0.0421, "42 µs"),
        ("latency_ms", 1234.5, "1.23 s"),
        ("latency_ms", 100.0, "100 ms"),
        ("size_bytes", 1288490188, "1.2 GiB"),
        ("bytes", 528, "528 B"),
        ("recall_at_10", 0.9876543209876543, "0.988"),
        ("count", 12345, "12,345"),
        ("count", None, ""),
    ],
)
def test_what_a_gate_measured_has_the_unit_of_its_name(
    check: str, value: float | None, shown: str
) -> None:
    assert figures.measured(check, value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 s"),
        (0.0034, "3.4 ms"),
        (1.5, "1.50 s"),
        (12.34, "12.3 s"),
        (125, "2 min 5 s"),
        (3780, "1 h 3 min"),
    ],
)
def test_a_duration_is_in_the_unit_that_fits(value: float, shown: str) -> None:
    assert figures.seconds(value) == shown


def test_details_are_written_the_same_way_whatever_they_hold() -> None:
    details = {"mode": "full", "share": 0.123456789, "rows": [12345, 1e-05], "mapped": True}
    shown = figures.value(details)
    assert shown == "mode full, share 0.123, rows 12,345, 0.00001, mapped yes"


def test_a_moment_is_shown_by_its_distance_and_in_utc() -> None:
    now = datetime.now(UTC)
    assert figures.ago(now - timedelta(hours=3, minutes=5)) == "3 h ago"
    assert figures.ago(None) == "-"
    assert figures.moment(datetime(2026, 3, 1, 12, tzinfo=UTC)) == "2026-03-01 12:00:00 UTC"


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_no_figure_has_an_exponent_or_meaningless_digits(value: float) -> None:
    shown = figures.number(value)
    assert not re.search(r"e[+-]|\d\.\d{10}", shown)
    if abs(value) >= 1e-6:
        assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.5, abs=0.01)
