from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine

from indexrelay.storage.catalog import BatchChanges, Catalog, Commit
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import (
    BatchContentError,
    InvalidBatchIdError,
    InvalidEntriesError,
    UnknownEntriesError,
)
from indexrelay.testing import FakeClock
from tests.storage.rows import entries, ids_of, values_of


def commit(
    catalog: Catalog, batch_id: str, *upserts: Entries, deletes: Sequence[str] = ()
) -> Commit:
    return catalog.entries.commit("tracks", batch_id, upserts=upserts, deletes=deletes)


def live(catalog: Catalog) -> dict[str, float]:
    with catalog.entries.snapshot("tracks") as snapshot:
        found = values_of(snapshot.chunks())
        assert snapshot.count == len(found)
    return found


def given(
    *ids: str, texts: list[str | None], payloads: list[str | None], value: float = 2.0
) -> Entries:
    vectors = entries(*ids, value=value).vectors
    return Entries(ids=list(ids), vectors=vectors, texts=texts, payloads=payloads)


def update(catalog: Catalog, batch_id: str, **changed: Any) -> Commit:
    changes = BatchChanges(collection="tracks", batch_id=batch_id, **changed)
    return catalog.entries.commit_many([changes])[0]


def stored(catalog: Catalog) -> dict[str, tuple[float, str | None, str | None]]:
    """Each live entry: a number of its vector, its text, its payload."""
    with catalog.entries.snapshot("tracks") as snapshot:
        return {
            id_: (float(vector[0]), text, payload)
            for chunk in snapshot.chunks()
            for id_, vector, text, payload in zip(
                chunk.ids, chunk.vectors, chunk.texts, chunk.payloads, strict=True
            )
        }


def test_a_commit_says_its_generation_and_what_it_changed(tracks: Catalog) -> None:
    epoch = tracks.collections.get("tracks").epoch

    assert commit(tracks, "b1", entries("a", "b")) == Commit(
        collection="tracks",
        epoch=epoch,
        batch_id="b1",
        generation=1,
        upserts=2,
        deletes=0,
        repeated=False,
    )
    second = commit(tracks, "b2", entries("c"), deletes=["a"])
    assert (second.generation, second.upserts, second.deletes) == (2, 1, 1)


def test_the_same_batch_again_gets_its_first_commit_and_changes_nothing(tracks: Catalog) -> None:
    first = commit(tracks, "b1", entries("a", value=1))
    commit(tracks, "b2", entries("a", value=2))

    again = commit(tracks, "b1", entries("a", value=1))

    assert again == Commit(**{**vars(first), "repeated": True})
    assert live(tracks) == {"a": 2.0}
    assert tracks.collections.get("tracks").generation == 2


def test_every_column_comes_back_as_it_was_written(tracks: Catalog) -> None:
    written = Entries(
        ids=["ünïcode", "plain"],
        vectors=entries("x", "y", value=0.1).vectors,
        texts=["ein Text", None],
        payloads=['{"a":[1,null]}', None],
    )
    commit(tracks, "b1", written)

    with tracks.entries.snapshot("tracks") as snapshot:
        (read,) = snapshot.chunks()

    assert read.ids == ["plain", "ünïcode"]
    assert read.texts == [None, "ein Text"]
    assert read.payloads == [None, '{"a":[1,null]}']
    assert read.vectors.tobytes() == written.vectors.tobytes()
    assert read.vectors.flags.c_contiguous
    assert read.vectors.flags.writeable


def test_an_upsert_replaces_what_it_gives_and_leaves_what_it_does_not(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a", "b", "c"))
    commit(
        tracks, "b2", given("a", "b", "c", texts=[None, "new", None], payloads=["7", None, None])
    )
    assert stored(tracks) == {
        "a": (2.0, "text of a", "7"),
        "b": (2.0, "new", '{"value":1.0}'),
        "c": (2.0, "text of c", '{"value":1.0}'),
    }


def test_what_was_deleted_and_comes_again_has_nothing_of_what_it_had(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a"))
    commit(tracks, "b2", deletes=["a"])
    commit(tracks, "b3", given("a", texts=[None], payloads=[None]))
    assert stored(tracks) == {"a": (2.0, None, None)}


def test_texts_and_payloads_are_set_and_cleared_without_vectors(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a", "b", "c", "d"))
    done = update(
        tracks,
        "b2",
        texts={"a": "new", "b": None, "gone": None},
        payloads={"a": None, "c": "[1]", "gone": None},
    )
    assert (done.generation, done.upserts, done.deletes) == (2, 3, 0)
    assert stored(tracks) == {
        "a": (1.0, "new", None),
        "b": (1.0, None, '{"value":1.0}'),
        "c": (1.0, "text of c", "[1]"),
        "d": (1.0, "text of d", '{"value":1.0}'),
    }
    assert tracks.collections.get("tracks").count == 4
    with tracks.entries.snapshot("tracks") as snapshot:
        (changed,) = list(snapshot.changes(1) or ())
    assert changed.upserts.ids == ["a", "b", "c"]
    assert changed.upserts.vectors.tolist() == [[1.0] * 4] * 3
    assert changed.deletes == []


def test_what_is_set_of_unknown_entries_is_refused_by_name_and_nothing_is_written(
    tracks: Catalog,
) -> None:
    commit(tracks, "b1", entries("a", "b"))
    commit(tracks, "b2", deletes=["b"])
    for column in ("texts", "payloads"):
        with pytest.raises(
            UnknownEntriesError, match=r"2 entries that 'tracks' .*: 'b', 'c'"
        ) as no:
            update(tracks, "b3", **{column: {"a": "1", "b": "1", "c": "1"}})
        assert no.value.ids == ("b", "c")
    assert tracks.collections.get("tracks").generation == 2
    assert stored(tracks) == {"a": (1.0, "text of a", '{"value":1.0}')}


def test_what_is_set_or_cleared_of_entries_of_the_same_batch_goes_with_them(
    tracks: Catalog,
) -> None:
    commit(tracks, "b1", entries("a", "b"))
    done = update(
        tracks,
        "b2",
        upserts=[given("a", "c", texts=[None, "given"], payloads=[None, None])],
        texts={"a": None, "c": "set"},
        payloads={"b": None, "c": "3"},
    )
    assert done.upserts == 3
    assert stored(tracks) == {
        "a": (2.0, None, '{"value":1.0}'),
        "b": (1.0, "text of b", None),
        "c": (2.0, "set", "3"),
    }


def test_other_content_under_the_same_batch_id_is_refused_and_both_are_named(
    tracks: Catalog, clock: FakeClock
) -> None:
    commit(tracks, "monday", entries("a", "b"), deletes=["x"])
    others: list[dict[str, Any]] = [
        {"upserts": [entries("a", "c")], "deletes": ["x"]},
        {"upserts": [entries("a", "b", value=2)], "deletes": ["x"]},
        {"upserts": [entries("a", "b")]},
        {"upserts": [entries("a", "b")], "deletes": ["x"], "texts": {"a": "other"}},
        {"upserts": [entries("a", "b")], "deletes": ["x"], "payloads": {"b": None}},
    ]
    for other in others:
        with pytest.raises(BatchContentError) as refused:
            update(tracks, "monday", **other)
        error = refused.value
        assert (error.generation, error.before[:2]) == (1, (2, 0))
        assert error.before[2] != error.now[2]
        assert error.committed_at == clock.now()
        for said in (
            "'monday' of 'tracks'",
            "generation 1",
            error.before[2][:12],
            error.now[2][:12],
        ):
            assert said in str(error)
    assert tracks.collections.get("tracks").generation == 1
    again = commit(tracks, "monday", entries("b"), entries("a"), deletes=["x"])
    assert (again.repeated, again.generation) == (True, 1)


def test_other_content_under_one_id_of_the_same_call_is_refused(tracks: Catalog) -> None:
    batches = [
        BatchChanges(collection="tracks", batch_id="b", upserts=[entries(id_)]) for id_ in "ab"
    ]
    with pytest.raises(BatchContentError, match="is given twice in one call"):
        tracks.entries.commit_many(batches)
    assert tracks.collections.get("tracks").generation == 0


def test_a_batch_of_an_earlier_release_is_held_against_the_bytes_that_it_wrote(
    tracks: Catalog, url: str
) -> None:
    before = ['{"year":1,"at":{"y":2,"x":1}}', '{"at":[]}', None]
    now = ['{"at":{"x":1,"y":2},"year":1}', '{"at":[]}', None]
    first = commit(tracks, "b", given("a", "b", "c", texts=["t", None, None], payloads=before))
    later = update(tracks, "p", payloads={"b": '{"z":1,"a":2}', "c": None})
    with create_engine(url, poolclass=NullPool).begin() as connection:
        # They digested what they wrote, with the keys as the job gave them, and marked no form.
        connection.exec_driver_sql("UPDATE indexrelay_batches SET digest = substr(digest, 3)")

    def again(payloads: list[str | None]) -> Commit:
        return commit(tracks, "b", given("a", "b", "c", texts=["t", None, None], payloads=payloads))

    same = update(tracks, "p", payloads={"b": '{"a":2,"z":1}', "c": None})
    assert (same.repeated, same.generation) == (True, later.generation)
    with pytest.raises(BatchContentError):
        update(tracks, "p", payloads={"b": '{"a":2,"z":2}', "c": None})
    assert again(now) == replace(first, repeated=True)
    for row in range(3):
        with pytest.raises(BatchContentError):
            again([*now[:row], "7", *now[row + 1 :]])
    # What somebody wrote since cannot be compared any more, and is not taken for the same.
    commit(tracks, "since", given("a", texts=[None], payloads=['{"at":0}']))
    with pytest.raises(BatchContentError):
        again(now)
    assert stored(tracks)["a"][2] == '{"at":0}'


def test_the_count_follows_new_known_deleted_and_revived_entries(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a", "b", "c"))
    commit(tracks, "b2", entries("c", "d"), deletes=["a"])
    assert tracks.collections.get("tracks").count == 3
    commit(tracks, "b3", entries("a"), deletes=["b", "b", "unknown"])
    assert tracks.collections.get("tracks").count == 3
    assert sorted(live(tracks)) == ["a", "c", "d"]


def test_deleting_what_is_not_there_is_no_change_and_leaves_no_tombstone(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a"))
    gone = commit(tracks, "b2", deletes=["unknown"])
    commit(tracks, "b3", deletes=["a"])
    twice = commit(tracks, "b4", deletes=["a"])

    assert (gone.generation, gone.deletes) == (2, 0)
    assert (twice.generation, twice.deletes) == (4, 0)
    with tracks.entries.snapshot("tracks") as snapshot:
        assert [change.deletes for change in snapshot.changes(0) or ()] == [["a"]]
        assert list(snapshot.changes(3) or ()) == []


def test_within_a_batch_deletes_win_and_so_do_later_upserts(tracks: Catalog) -> None:
    done = commit(
        tracks,
        "b1",
        entries("a", "b", "a", value=1),
        entries("b", "c", value=2),
        deletes=["c"],
    )

    assert live(tracks) == {"a": 1.0, "b": 2.0}
    assert (done.upserts, done.deletes) == (2, 0)
    with tracks.entries.snapshot("tracks") as snapshot:
        assert [change.deletes for change in snapshot.changes(0) or ()] == [[]]


def test_a_batch_larger_than_a_chunk_is_one_commit(tracks: Catalog) -> None:
    ids = [f"{number:05d}" for number in range(10_001)]
    done = commit(tracks, "b1", entries(*reversed(ids)))
    again = commit(tracks, "b2", entries(*ids[5_000:], "new"))

    assert (done.generation, done.upserts) == (1, 10_001)
    assert (again.generation, again.upserts) == (2, 5_002)
    with tracks.entries.snapshot("tracks") as snapshot:
        assert snapshot.count == 10_002
        assert ids_of(snapshot.chunks()) == [*ids, "new"]


def test_a_batch_of_another_dimension_changes_nothing(tracks: Catalog) -> None:
    with pytest.raises(InvalidEntriesError, match=r"shape \(1, 3\).*\(1, 4\)"):
        commit(tracks, "b1", entries("good"), entries("a", dimension=3))

    assert tracks.collections.get("tracks").generation == 0
    assert live(tracks) == {}


@pytest.mark.parametrize("batch_id", ["", "x" * 201, "nul\0", "\ud800", 7])
def test_a_batch_id_that_cannot_be_stored_is_refused(tracks: Catalog, batch_id: str) -> None:
    with pytest.raises(InvalidBatchIdError, match="cannot be a batch id"):
        tracks.entries.mark("tracks", batch_id)


def test_a_mark_takes_a_generation_without_rows(tracks: Catalog) -> None:
    marked = tracks.entries.mark("tracks", "b1")

    assert (marked.generation, marked.upserts, marked.deletes) == (1, 0, 0)


def test_a_mark_under_a_known_id_may_be_other_content_and_takes_a_generation(
    tracks: Catalog,
) -> None:
    numbers = [tracks.entries.mark("tracks", batch_id) for batch_id in ("b1", "b2", "b1", "b1")]
    assert [(mark.generation, mark.repeated) for mark in numbers] == [
        (1, False),
        (2, False),
        (3, False),
        (4, False),
    ]
    assert tracks.entries.batch_ids("tracks", after=0, upto=4) == ["b2", "b1"]
    marks = [BatchChanges(collection="tracks", batch_id="b3", own_data=True)] * 2
    assert [mark.generation for mark in tracks.entries.commit_many(marks)] == [5, 6]
    assert tracks.entries.batch_ids("tracks", after=4, upto=6) == ["b3"]


def test_batch_ids_are_those_of_a_half_open_range_oldest_first(tracks: Catalog) -> None:
    for batch_id in ("z", "a", "m"):
        tracks.entries.mark("tracks", batch_id)

    assert tracks.entries.batch_ids("tracks", after=0, upto=3) == ["z", "a", "m"]
    assert tracks.entries.batch_ids("tracks", after=1, upto=2) == ["a"]
    assert tracks.entries.batch_ids("tracks", after=3, upto=9) == []


def test_changes_since_a_generation_are_counted_once_for_each_entry(tracks: Catalog) -> None:
    def counted(after: int, most: int = 100) -> tuple[int, int]:
        found = tracks.entries.count_changes("tracks", after=after, most=most)
        assert found.entries == found.upserts + found.deletes
        return found.upserts, found.deletes

    assert counted(0) == (0, 0)
    commit(tracks, "b1", entries("a", "b", "c"))
    commit(tracks, "b2", entries("a", "d"), deletes=["b"])
    commit(tracks, "b3", entries("a"), deletes=["d", "never there"])
    assert counted(0) == (2, 2)
    assert counted(1) == (1, 2)
    assert counted(2) == (1, 1)
    assert counted(3) == (0, 0)
    assert sum(counted(0, most=3)) == 3
