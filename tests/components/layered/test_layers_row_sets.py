"""Sets of rows say what Python's own sets say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.layered.layers import among, row_set_of, without

NUMBERS = st.lists(st.integers(min_value=-1, max_value=30), max_size=40)


def rows_of(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_rows_are_found_in_a_set_or_not(asked: list[int], numbers: list[int]) -> None:
    row_set = rows_of(sorted(set(numbers)))
    assert among(rows_of(asked), row_set).tolist() == [each in numbers for each in asked]
    left = [each for each in asked if each not in numbers]
    assert without(rows_of(asked), row_set).tolist() == left


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=3))
def test_they_hold_each_row_once_and_grow(parts: list[list[int]]) -> None:
    expected = sorted({number for part in parts for number in part})
    assert row_set_of(*map(rows_of, parts)).tolist() == expected


def test_a_table_of_rows_keeps_its_shape() -> None:
    asked = rows_of([3, -1, 7, 8]).reshape(2, 2)
    assert among(asked, rows_of([3, 8])).tolist() == [[True, False], [False, True]]
    assert among(asked, rows_of([])).tolist() == [[False, False], [False, False]]
