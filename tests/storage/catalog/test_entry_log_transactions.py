"""Batches of one collection or of several in one transaction."""

from concurrent.futures import ProcessPoolExecutor

import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Catalog
from indexrelay.storage.errors import InvalidEntriesError, UnknownCollectionError
from tests.storage.catalog.processes import context
from tests.storage.rows import entries, values_of

_ROUNDS = 15


@pytest.fixture
def both(tracks: Catalog) -> Catalog:
    """The catalog with a second collection."""
    tracks.collections.declare("artists", dimension=4, metric=Metric.L2)
    return tracks


def changes(
    collection: str, batch_id: str, *ids: str, value: float = 1.0, deletes: tuple[str, ...] = ()
) -> BatchChanges:
    upserts = [entries(*ids, value=value)] if ids else []
    return BatchChanges(collection=collection, batch_id=batch_id, upserts=upserts, deletes=deletes)


def live(catalog: Catalog, collection: str) -> dict[str, float]:
    with catalog.entries.snapshot(collection) as snapshot:
        found = values_of(snapshot.chunks())
        assert snapshot.count == len(found)
        return found


def test_each_batch_gets_its_own_generation_in_the_order_given(both: Catalog) -> None:
    commits = both.entries.commit_many(
        [
            changes("tracks", "b1", "a", value=1),
            changes("artists", "b1", "x", value=1),
            changes("tracks", "b2", "a", "b", value=2),
            changes("tracks", "b3", deletes=("b",)),
        ]
    )
    assert [(commit.collection, commit.generation) for commit in commits] == [
        ("tracks", 1),
        ("artists", 1),
        ("tracks", 2),
        ("tracks", 3),
    ]
    assert [(commit.upserts, commit.deletes) for commit in commits] == [
        (1, 0),
        (1, 0),
        (2, 0),
        (0, 1),
    ]
    assert live(both, "tracks") == {"a": 2.0}
    assert live(both, "artists") == {"x": 1.0}
    assert both.entries.batch_ids("tracks", after=0, upto=3) == ["b1", "b2", "b3"]


def test_what_was_committed_before_takes_no_generation(both: Catalog) -> None:
    both.entries.commit_many([changes("tracks", "b1", "a"), changes("tracks", "b2", "b")])
    commits = both.entries.commit_many(
        [
            changes("tracks", "b2", "b"),
            changes("tracks", "b3", "c"),
            changes("tracks", "b3", "c"),
            changes("tracks", "b1", "a"),
        ]
    )
    assert [(commit.generation, commit.repeated) for commit in commits] == [
        (2, True),
        (3, False),
        (3, True),
        (1, True),
    ]
    assert sorted(live(both, "tracks")) == ["a", "b", "c"]
    assert both.collections.get("tracks").generation == 3
    assert both.entries.commit_many([changes("tracks", "b4", "e")])[0].generation == 4


def test_one_batch_that_cannot_be_written_keeps_all_of_them_out(both: Catalog) -> None:
    wrong = BatchChanges(
        collection="tracks", batch_id="b2", upserts=[entries("a", dimension=3)], deletes=()
    )
    with pytest.raises(InvalidEntriesError):
        both.entries.commit_many(
            [changes("artists", "b1", "x"), changes("tracks", "b1", "a"), wrong]
        )
    with pytest.raises(UnknownCollectionError):
        both.entries.commit_many([changes("artists", "b1", "x"), changes("unknown", "b1", "a")])
    assert [each.generation for each in both.collections.all()] == [0, 0]
    assert live(both, "artists") == {}


def test_more_batches_than_one_query_may_name_are_one_commit(tracks: Catalog) -> None:
    many = [changes("tracks", f"b{number}", f"id{number % 7}") for number in range(2_500)]
    commits = tracks.entries.commit_many(many)
    assert [commit.generation for commit in commits] == list(range(1, 2_501))
    assert all(commit.repeated for commit in tracks.entries.commit_many(many))
    assert len(live(tracks, "tracks")) == 7


def test_no_batches_are_no_commits(tracks: Catalog) -> None:
    assert tracks.entries.commit_many([]) == []
    assert tracks.collections.get("tracks").generation == 0


def _commit_to_both(url: str, writer: int) -> list[int]:
    """Each writer names the collections in another order."""
    catalog = Catalog.open(url)
    order = ["tracks", "artists"][:: -1 if writer else 1]
    try:
        return [
            commit.generation
            for number in range(_ROUNDS)
            for commit in catalog.entries.commit_many(
                [changes(name, f"{writer}/{number}", "shared") for name in order]
            )
            if commit.collection == "tracks"
        ]
    finally:
        catalog.close()


def test_writers_that_name_collections_in_another_order_do_not_wait_for_each_other(
    both: Catalog, url: str
) -> None:
    with ProcessPoolExecutor(2, context) as processes:
        taken = list(processes.map(_commit_to_both, [url] * 2, range(2), timeout=60))
    assert sorted(number for numbers in taken for number in numbers) == list(
        range(1, 2 * _ROUNDS + 1)
    )
    assert both.collections.get("artists").generation == 2 * _ROUNDS
