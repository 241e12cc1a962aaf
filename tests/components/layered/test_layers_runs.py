"""Columns of row numbers, cut where one of them does not go on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.layered.layers import runs


@settings(deadline=None)
@given(
    st.integers(0, 20).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-2, 4), min_size=n, max_size=n), min_size=1, max_size=3
        )
    )
)
def test_within_a_piece_all_grow_by_one_and_between_pieces_one_does_not(
    columns: list[list[int]],
) -> None:
    pieces = runs(*(np.array(column, dtype=np.int64) for column in columns))
    assert [row for start, stop in pieces for row in range(start, stop)] == list(
        range(len(columns[0]))
    )
    cuts = {stop for _, stop in pieces[:-1]}
    for row in range(1, len(columns[0])):
        goes_on = all(column[row] == column[row - 1] + 1 for column in columns)
        assert (row in cuts) is not goes_on
