from collections.abc import Sequence

import pytest

from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidBatchIdError, InvalidEntriesError
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

    again = commit(tracks, "b1", entries("a", value=3))

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


def test_an_upsert_of_a_known_id_replaces_the_whole_entry(tracks: Catalog) -> None:
    commit(tracks, "b1", entries("a", value=1))
    commit(
        tracks,
        "b2",
        Entries(ids=["a"], vectors=entries("a", value=2).vectors, texts=[None], payloads=[None]),
    )

    with tracks.entries.snapshot("tracks") as snapshot:
        (read,) = snapshot.chunks()
    assert (read.texts, read.payloads) == ([None], [None])
    assert live(tracks) == {"a": 2.0}


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
    assert tracks.entries.mark("tracks", "b1").repeated


def test_batch_ids_are_those_of_a_half_open_range_oldest_first(tracks: Catalog) -> None:
    for batch_id in ("z", "a", "m"):
        tracks.entries.mark("tracks", batch_id)

    assert tracks.entries.batch_ids("tracks", after=0, upto=3) == ["z", "a", "m"]
    assert tracks.entries.batch_ids("tracks", after=1, upto=2) == ["a"]
    assert tracks.entries.batch_ids("tracks", after=3, upto=9) == []
