"""The rows of a batch, put in an order that a database likes; nothing else about them changes."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.storage.catalog.commits import arranged
from indexrelay.storage.entries import CHUNK_ROWS
from tests.storage.rows import entries, ids_of, values_of

names = st.text("abcÄ🎵", min_size=1, max_size=3)


@given(st.lists(names, unique=True, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_every_row_is_kept_whole_in_the_order_of_its_id(ids: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ids)]
    chunks = [
        entries(*ids[start:end], value=float(number))
        for number, (start, end) in enumerate(pairwise(edges))
    ]
    found = arranged([chunk for chunk in chunks if len(chunk)])
    assert ids_of(found) == sorted(ids, key=str.encode)
    assert values_of(found) == values_of(chunks)
    for chunk in found:
        assert chunk.texts == [f"text of {id_}" for id_ in chunk.ids]
        assert chunk.vectors.shape == (len(chunk), 4)
        assert chunk.vectors.flags.c_contiguous


def test_small_chunks_go_together_and_large_ones_stay() -> None:
    small = [entries(f"s{number:05d}") for number in range(CHUNK_ROWS + 5)]
    large = entries(*(f"l{number:05d}" for number in range(CHUNK_ROWS + 1)))
    assert [len(chunk) for chunk in arranged([*small, large, *small[:2]])] == [
        CHUNK_ROWS,
        5,
        CHUNK_ROWS + 1,
        2,
    ]


def test_what_is_in_order_is_not_copied() -> None:
    ordered = entries("a", "b", "c")
    (same,) = arranged([ordered])
    assert same is ordered
    assert np.shares_memory(same.vectors, ordered.vectors)
