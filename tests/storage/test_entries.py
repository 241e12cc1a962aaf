"""What a batch comes to: its rows in an order that a database likes, and a digest of all of it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.storage.catalog import BatchChanges
from indexrelay.storage.entries import CHUNK_ROWS, BatchContent, Entries, content_of
from tests.storage.rows import entries, ids_of, values_of

names = st.text("abcÄ🎵", min_size=1, max_size=3)


@given(st.lists(names, unique=True, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_every_row_is_kept_whole_in_the_order_of_its_id(ids: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ids)]
    chunks = [
        entries(*ids[start:end], value=float(number))
        for number, (start, end) in enumerate(pairwise(edges))
    ]
    found = content(*chunks).upserts
    assert ids_of(found) == sorted(ids, key=str.encode)
    assert values_of(found) == values_of(chunks)
    for chunk in found:
        assert chunk.texts == [f"text of {id_}" for id_ in chunk.ids]
        assert chunk.vectors.shape == (len(chunk), 4)
        assert chunk.vectors.flags.c_contiguous


def test_rows_come_in_chunks_of_one_size_however_they_were_given() -> None:
    small = [entries(f"s{number:05d}") for number in range(CHUNK_ROWS + 5)]
    large = entries(*(f"l{number:05d}" for number in range(CHUNK_ROWS + 1)))
    found = content(*small, large, *small[:2]).upserts
    assert [len(chunk) for chunk in found] == [CHUNK_ROWS, CHUNK_ROWS, 6]
    assert ids_of(found) == sorted(ids_of([*small, large]))


def test_what_is_in_order_is_not_copied() -> None:
    ordered = entries("a", "b", "c")
    (same,) = content(ordered).upserts
    assert same.ids == ordered.ids
    assert np.shares_memory(same.vectors, ordered.vectors)


def rows(
    ids: str, value: float = 1.0, text: str | None = None, payload: str | None = None
) -> Entries:
    given = entries(*ids, value=value)
    return Entries(
        ids=given.ids,
        vectors=given.vectors,
        texts=[text] * len(ids),
        payloads=[payload] * len(ids),
    )


def content(*upserts: Entries, **more: Any) -> BatchContent:
    return content_of(BatchChanges(collection="tracks", batch_id="b", upserts=upserts, **more))


@pytest.mark.parametrize(
    "same",
    [
        content(rows("c"), rows("ba", text="x")),
        content(rows("c"), rows("b", text="x"), rows("a", text="x")),
        content(rows("a", value=7, text="y"), rows("c"), rows("ab", text="x")),
        content(rows("ab", value=7, text="x"), rows("abc")),  # what was given before stays
        content(rows("abc"), texts={"a": "x", "b": "x"}),
        content(rows("ab", text="y"), rows("c"), texts={"b": "x", "a": "x"}),
    ],
)
def test_what_comes_to_the_same_has_the_same_digest(same: BatchContent) -> None:
    assert same.digest == content(rows("ab", text="x"), rows("c")).digest


def test_what_is_deleted_after_it_was_changed_is_only_deleted() -> None:
    changed = content(rows("ab"), texts={"b": "x", "c": "x"}, deletes=["c", "b"])
    assert changed.digest == content(rows("a"), deletes=["b", "c"]).digest
    assert (ids_of(changed.upserts), changed.updates) == (["a"], [])


def test_every_part_of_a_batch_counts_in_its_digest() -> None:
    different = [
        content(),
        content(rows("a")),
        content(rows("b")),
        content(rows("ab")),
        content(rows("a", value=2)),
        content(rows("a", text="")),
        content(rows("a", text="x")),
        content(rows("a", text="\1")),
        content(rows("a", payload="x")),
        content(rows("a", text="x", payload="x")),
        content(rows("a"), deletes=["b"]),
        content(deletes=["a"]),
        content(texts={"a": None}),
        content(texts={"a": "None"}),
        content(texts={"a": ""}),
        content(payloads={"a": None}),
        content(payloads={"a": "1"}),
        content(texts={"a": "1"}, payloads={"a": None}),
        content(rows("a"), texts={"a": None}),  # what it had before goes
        content(texts={"a": "1", "b": None}),
        content(texts={"a": None, "b": "1"}),
    ]
    assert len({each.digest for each in different}) == len(different)


def test_the_digest_does_not_depend_on_how_rows_are_cut_into_chunks() -> None:
    ids = [f"{number:05d}" for number in range(CHUNK_ROWS + 2)]
    whole = content(entries(*ids))
    assert content(entries(*ids[:1]), entries(*ids[1:])).digest == whole.digest
    assert content(*(entries(id_) for id_ in reversed(ids))).digest == whole.digest
