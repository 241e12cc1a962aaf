"""Readers that begin together do not go on together, and a lone one hardly notices."""

from itertools import pairwise

from indexrelay.reloaders.reloader import SPREAD_SHARE, Spread

FLEET = [f"host-{number % 5}:{4000 + number}" for number in range(50)]


def test_the_first_looks_of_a_fleet_fill_the_time_that_they_are_given() -> None:
    waits = sorted(Spread(each, start_seconds=1.0).first_look_seconds for each in FLEET)
    assert 0 <= waits[0] < 0.1
    assert 0.9 < waits[-1] < 1
    assert max(late - early for early, late in pairwise(waits)) < 0.2


def test_the_same_reader_waits_as_long_each_time() -> None:
    again = [Spread("one", start_seconds=0.2).first_look_seconds for _ in range(2)]
    assert again[0] == again[1] <= 0.2


def test_without_a_spread_nobody_waits() -> None:
    assert {Spread(each, start_seconds=0.0).first_look_seconds for each in FLEET} == {0.0}


def test_polls_are_never_later_than_promised_and_drift_apart() -> None:
    looked_at = dict.fromkeys(FLEET, 0.0)
    spreads = {each: Spread(each, start_seconds=0.0) for each in FLEET}
    widths = []
    for _ in range(10):
        for each in FLEET:
            period = spreads[each].cut(5.0)
            assert 5.0 * (1 - SPREAD_SHARE) <= period <= 5.0
            looked_at[each] += period
        widths.append(max(looked_at.values()) - min(looked_at.values()))
    assert 0.8 < widths[0] < 1.0
    assert widths[-1] > 1.5 * widths[0]
