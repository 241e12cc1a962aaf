"""Rows are found by the ids of their entries, as a dict would find them."""

from typing import Any

import numpy as np

from indexrelay.components.live.rows import LiveRows, RowsById
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Entries


def test_the_newest_row_of_each_of_many_entries_is_found() -> None:
    ids: list[str] = []
    rows, model = RowsById(ids), dict[str, int]()
    draw = np.random.default_rng(4)
    for row, number in enumerate(draw.integers(0, 2500, 5000).tolist()):
        name = f"n{number}"
        ids.append(name)
        rows.put(name, row, replaces=name in rows)
        model[name] = row
    assert len(rows) == len(model) > 2000
    assert all(rows.find(name) == row for name, row in model.items())
    assert rows.find("n2500") == -1
    assert "n2500" not in rows
    assert 7 not in rows


class Slots(list[int]):
    """A table into which another thread puts a row as soon as an empty place was looked at."""

    def __getitem__(self, slot: Any) -> Any:
        found = super().__getitem__(slot)
        if found < 0:
            self[slot] = 0
        return found


def test_an_entry_that_is_put_where_another_one_would_be_is_not_taken_for_it() -> None:
    rows = RowsById(["late"])
    vars(rows)["_slots"] = Slots([-1] * 1024)
    assert rows.find("other") == -1


def test_a_copy_goes_on_without_the_first_one() -> None:
    ids = ["a", "b"]
    rows = RowsById(ids)
    rows.put("a", 0, replaces=False)
    rows.put("b", 1, replaces=False)
    longer = [*ids, "a", "c"]
    copied = rows.over(longer)
    copied.put("a", 2, replaces=True)
    copied.put("c", 3, replaces=False)
    assert [copied.find(each) for each in "abc"] == [2, 1, 3]
    assert [rows.find(each) for each in "abc"] == [0, 1, -1]
    assert (len(rows), len(copied)) == (2, 3)


def test_rows_above_a_generation_are_the_newest_state_of_what_changed_since() -> None:
    rows = LiveRows(epoch="e", floor=0, dimension=2, metric=Metric.L2)
    for generation, (name, place) in enumerate([("a", 1), ("b", 2), ("a", 3), ("c", 4)], start=1):
        vectors = np.full((1, 2), place, dtype=np.float32)
        upserts = Entries(ids=[name], vectors=vectors, texts=[None], payloads=[None])
        rows.append([Changes(upserts=upserts, deletes=[])], generation)
    above = rows.above(2)
    assert above.ids == ["a", "c"]
    assert [above.vector(row).tolist() for row in (0, 1)] == [[3.0, 3.0], [4.0, 4.0]]
    assert (above.floor, above.entries, above.view.generation) == (2, 2, 4)
    assert above.newest_row("b", above.view) is None
