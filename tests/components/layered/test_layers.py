"""Two layers read as one: the arithmetic, held against rows that are really merged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.layered.layers import Layers, in_one_layer


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


@st.composite
def layers(draw: st.DrawFn) -> Layers:
    base = draw(st.integers(0, 12))
    dead = draw(st.sets(st.integers(0, base - 1))) if base else set()
    places = draw(st.lists(st.integers(0, base), max_size=8))
    return Layers(base, rows(*sorted(dead)), rows(*sorted(places)))


def merged(given: Layers) -> list[tuple[bool, int]]:
    """Each row that is shown, as whether it is in the delta and which it is there."""
    shown: list[tuple[bool, int]] = []
    for place in range(given.base + 1):
        shown += [(True, row) for row, at in enumerate(given.places.tolist()) if at == place]
        if place < given.base and place not in given.tombstones.tolist():
            shown.append((False, place))
    return shown


@settings(deadline=None)
@given(layers())
def test_every_position_leads_to_its_row_and_back(given: Layers) -> None:
    expected = merged(given)
    assert given.fault == ""
    assert len(given) == len(expected)
    in_delta, found = given.locate(np.arange(len(given)))
    assert list(zip(in_delta.tolist(), found.tolist(), strict=True)) == expected
    for position, (is_delta, row) in enumerate(expected):
        back = given.delta_positions if is_delta else given.base_positions
        assert back(rows(row)).tolist() == [position]
    live = [row for is_delta, row in expected if not is_delta]
    assert given.live_base_rows.tolist() == live
    assert [given.dead(row) for row in range(given.base)] == [
        row not in live for row in range(given.base)
    ]
    assert given.plain is (len(live) == given.base == len(expected))


def test_one_layer_is_plain() -> None:
    assert in_one_layer(3).plain
    assert merged(in_one_layer(3)) == [(False, 0), (False, 1), (False, 2)]


@pytest.mark.parametrize("dead", [rows(1, 1), rows(2, 1), rows(-1), rows(3)])
def test_tombstones_that_cannot_be_are_a_fault(
    dead: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    assert "tombstones" in Layers(3, dead, rows()).fault


@pytest.mark.parametrize("places", [rows(2, 1), rows(-1), rows(4)])
def test_places_that_cannot_be_are_a_fault(
    places: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    assert "places" in Layers(3, rows(), places).fault
