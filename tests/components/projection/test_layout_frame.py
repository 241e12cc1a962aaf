"""The frame of a map: onto the last one, at its scale, inside [-1, 1]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.projection.layout import LastMap, frame, measure_drift, starting_places
from indexrelay.components.projection.map import Coordinates


def cloud(count: int = 40, *, seed: int = 3) -> Coordinates:
    return np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)


def last_of(places: Coordinates, *, unit: float, known: int | None = None) -> LastMap:
    """A last map that shows the first ``known`` entries."""
    mask = np.arange(len(places)) < (len(places) if known is None else known)
    return LastMap(places=np.where(mask[:, None], places, 0), known=mask, unit=unit)


def turn(angle: float, *, mirrored: bool) -> Coordinates:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (rotation @ np.diag([1.0, -1.0 if mirrored else 1.0])).astype(np.float32)


def test_a_first_map_is_centred_and_fills_four_fifths() -> None:
    framed = frame((cloud() * 1000 + 77).astype(np.float32), None)
    assert np.abs(framed.coordinates).max() == pytest.approx(0.8)
    box = framed.coordinates.min(axis=0) + framed.coordinates.max(axis=0)
    np.testing.assert_allclose(box, 0, atol=1e-5)
    assert not framed.rescaled


@given(
    angle=st.floats(0, 2 * np.pi),
    mirrored=st.booleans(),
    shift=st.floats(-100, 100),
    unit=st.floats(0.01, 100),
)
def test_a_turned_mirrored_and_moved_layout_comes_back_to_where_it_was(
    angle: float, mirrored: bool, shift: float, unit: float
) -> None:
    before = frame(cloud(), None).coordinates
    raw = np.float32(unit) * (before @ turn(angle, mirrored=mirrored) + np.float32(shift / 100))
    last = last_of(before, unit=unit)
    framed = frame(raw, last)
    np.testing.assert_allclose(framed.coordinates, before, atol=1e-4)
    assert framed.unit == unit
    assert measure_drift(framed.coordinates, last).maximum < 2e-4


def test_the_scale_is_kept_and_not_fitted() -> None:
    before = frame(cloud(), None).coordinates
    framed = frame(before * 0.9, last_of(before, unit=1.0))
    assert np.ptp(framed.coordinates) == pytest.approx(0.9 * np.ptp(before), rel=1e-5)
    assert (framed.unit, framed.rescaled) == (1.0, False)


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_a_map_that_leaves_the_range_is_scaled_again(factor: float) -> None:
    before = frame(cloud(), None).coordinates
    framed = frame(before * factor, last_of(before, unit=1.0))
    assert framed.rescaled
    assert np.abs(framed.coordinates).max() == pytest.approx(0.8, rel=1e-5)
    # Only the scale is another: in the layout's own unit it is as wide as before.
    wide = np.ptp(framed.coordinates, axis=0) * framed.unit
    np.testing.assert_allclose(wide, np.ptp(before, axis=0) * factor, rtol=1e-5)


def test_new_entries_do_not_turn_the_map() -> None:
    before = frame(cloud(40), None).coordinates
    raw = np.vstack([before, cloud(5, seed=9) * 0.1]) @ turn(2.0, mirrored=True)
    last = last_of(np.vstack([before, np.zeros((5, 2), np.float32)]), unit=1.0, known=40)
    drift = measure_drift(frame(raw, last).coordinates, last)
    assert drift.shared == 40
    assert drift.maximum < 1e-5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_entries_have_a_frame_too(count: int) -> None:
    framed = frame(cloud(count), None)
    assert framed.coordinates.shape == (count, 2)
    assert np.isfinite(framed.coordinates).all()
    again = frame(cloud(count), last_of(framed.coordinates, unit=framed.unit))
    np.testing.assert_allclose(again.coordinates, framed.coordinates, atol=1e-6)


def test_new_entries_begin_among_their_neighbours_and_known_ones_where_they_were() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(-10, 1, (20, 8)), rng.normal(10, 1, (20, 8))
    vectors = np.vstack([left, right, left[:1] + 0.1, right[:1] + 0.1]).astype(np.float32)
    places = np.zeros((42, 2), np.float32)
    places[:20], places[20:40] = [-0.5, 0.1], [0.5, 0.1]
    start = starting_places(vectors, last_of(places, unit=4.0, known=40), seed=0, threads=1)
    np.testing.assert_array_equal(start[:40], places[:40] * 4)
    np.testing.assert_allclose(start[40:], [[-2, 0.4], [2, 0.4]], atol=0.05)


def test_new_entries_with_equal_vectors_do_not_begin_in_one_place() -> None:
    vectors = np.vstack([np.eye(8), np.ones((2, 8))]).astype(np.float32)
    places = np.vstack([cloud(8), np.zeros((2, 2))]).astype(np.float32)
    start = starting_places(vectors, last_of(places, unit=1.0, known=8), seed=0, threads=1)
    assert (start[8] != start[9]).any()


@pytest.mark.parametrize(("count", "known", "guides"), [(100, 25, True), (100, 24, False)])
def test_a_last_map_guides_when_it_shows_enough_entries(
    count: int, known: int, guides: bool
) -> None:
    assert last_of(cloud(count), unit=1.0, known=known).guides is guides


def test_a_last_map_that_is_one_point_does_not_guide() -> None:
    assert not last_of(np.zeros((10, 2), np.float32), unit=1.0).guides
