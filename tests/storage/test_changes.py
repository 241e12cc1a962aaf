"""Changes come out of a message as they went in, and what does not fit is refused."""

from typing import Any

import numpy as np
import pytest

from indexrelay.schemas.messages import ChangedEntries, ChangesCommitted
from indexrelay.storage.changes import UnreadableChangesError, packed, read_changes, unpacked
from indexrelay.storage.entries import Changes, Entries
from tests.components.jobs import Row, make_snapshot

VECTORS = np.array([[1, 2], [3.5, -0.0]], dtype=np.float32)
CHANGES = Changes(
    upserts=Entries(
        ids=["a", "♫"], vectors=VECTORS, texts=[None, "two"], payloads=['{"x":1}', None]
    ),
    deletes=["gone"],
)


def message(changes: ChangedEntries | None) -> ChangesCommitted:
    return ChangesCommitted(collection="tracks", epoch="e", after=1, generation=2, changes=changes)


def test_changes_come_out_as_they_went_in() -> None:
    found = unpacked(message(packed(CHANGES)), dimension=2)
    assert (found.upserts.ids, found.deletes) == (["a", "♫"], ["gone"])
    assert found.upserts.vectors.tobytes() == VECTORS.tobytes()
    assert found.upserts.vectors.flags.writeable
    assert found.upserts.texts == [None, "two"]
    assert found.upserts.payloads == ['{"x":1}', None]


def test_columns_without_a_value_are_left_out() -> None:
    bare = Entries(ids=["a"], vectors=VECTORS[:1], texts=[None], payloads=[None])
    sent = packed(Changes(upserts=bare, deletes=[]))
    assert (sent.texts, sent.payloads) == ((), ())
    found = unpacked(message(sent), dimension=2).upserts
    assert (found.texts, found.payloads) == ([None], [None])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": ("a",)}, "not 1 of 2"),
        ({"vectors": "A"}, "base64"),
        ({"vectors": "AAAA"}, "not 2 of 2"),
        ({"vectors": "AADAfwAAAAAAAAAAAAAAAA=="}, "finite"),
        ({"texts": ("x",)}, "has not 2"),
        ({"payloads": ("1", "2", "3")}, "has not 2"),
        ({"deletes": ("a",)}, "twice"),
        ({"ids": ("a", "a")}, "twice"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_refused(
    change: dict[str, Any], reason: str
) -> None:
    altered = packed(CHANGES).model_copy(update=change)
    with pytest.raises(UnreadableChangesError, match=reason):
        unpacked(message(altered), dimension=2)
    with pytest.raises(UnreadableChangesError, match="no changes"):
        unpacked(message(None), dimension=2)


def test_what_is_read_is_everything_since_a_generation_or_nothing() -> None:
    before = make_snapshot(VECTORS, ids=["a", "b"])
    after = before.commit({"c": Row(vector=VECTORS[0], text="x" * 100)}, deletes=["a"])
    found = read_changes(after, after=1)
    assert found is not None
    assert (found.upserts.ids, found.deletes) == (["c"], ["a"])
    nothing = read_changes(after, after=2)
    assert nothing is not None
    assert (nothing.upserts.ids, nothing.deletes) == ([], [])
    assert read_changes(after, after=1, most_bytes=100) is None
    many = after.commit({f"n{number}": Row(vector=VECTORS[0]) for number in range(40)})
    assert read_changes(many, after=2, most_bytes=200) is None
