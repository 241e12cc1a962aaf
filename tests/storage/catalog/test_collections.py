from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog, Collection
from indexrelay.storage.errors import CollectionMismatchError, UnknownCollectionError
from tests.storage.catalog.processes import context
from tests.storage.rows import entries


def _open_and_declare(url: str) -> str:
    catalog = Catalog.open(url)
    try:
        return catalog.collections.declare("tracks", dimension=4, metric=Metric.L2).epoch
    finally:
        catalog.close()


def test_a_new_collection_starts_at_generation_zero_and_empty(catalog: Catalog) -> None:
    made = catalog.collections.declare("tracks", dimension=4, metric=Metric.COSINE)

    assert made == Collection(
        name="tracks", epoch=made.epoch, dimension=4, metric=Metric.COSINE, generation=0, count=0
    )
    assert len(made.epoch) == 16
    assert catalog.collections.get("tracks") == made


def test_the_same_declaration_again_changes_nothing(tracks: Catalog) -> None:
    tracks.entries.commit("tracks", "b1", upserts=[entries("a")], deletes=[])
    before = tracks.collections.get("tracks")

    assert tracks.collections.declare("tracks", dimension=4, metric=Metric.L2) == before
    assert before.generation == 1


def test_another_dimension_or_metric_is_refused_with_both_values(tracks: Catalog) -> None:
    with pytest.raises(CollectionMismatchError) as refused:
        tracks.collections.declare("tracks", dimension=8, metric=Metric.COSINE)

    assert "dimension 4 in the catalog but 8 in the declaration" in str(refused.value)
    assert "metric l2 in the catalog but cosine in the declaration" in str(refused.value)
    assert refused.value.differences == (("dimension", 4, 8), ("metric", "l2", "cosine"))


def test_several_processes_that_open_and_declare_at_once_agree_on_the_epoch(url: str) -> None:
    # The tables themselves are missing too: this is also the race to make them.
    with ProcessPoolExecutor(4, context) as processes:
        epochs = set(processes.map(_open_and_declare, [url] * 8))

    assert len(epochs) == 1


def test_several_threads_that_declare_at_once_agree_on_the_epoch(catalog: Catalog) -> None:
    def declare(_: int) -> str:
        return catalog.collections.declare("tracks", dimension=4, metric=Metric.L2).epoch

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(declare, range(32)))) == 1


def test_collections_are_listed_by_name_in_byte_order(catalog: Catalog) -> None:
    for name in ("b", "a_b", "ab", "a"):
        catalog.collections.declare(name, dimension=1, metric=Metric.L2)

    assert [collection.name for collection in catalog.collections.all()] == ["a", "a_b", "ab", "b"]


def test_a_dropped_and_declared_collection_has_a_new_epoch_and_nothing_of_the_old(
    tracks: Catalog,
) -> None:
    old = tracks.entries.commit("tracks", "b1", upserts=[entries("a", "b")], deletes=[])
    tracks.collections.number("tracks", "as it was")

    tracks.collections.drop("tracks")
    new = tracks.collections.declare("tracks", dimension=4, metric=Metric.L2)

    assert new.epoch != old.epoch
    assert (new.generation, new.count) == (0, 0)
    with tracks.entries.snapshot("tracks") as snapshot:
        assert list(snapshot.chunks()) == []
    again = tracks.entries.commit("tracks", "b1", upserts=[], deletes=["a"])
    assert (again.generation, again.deletes, again.repeated) == (1, 0, False)
    assert tracks.entries.batch_ids("tracks", after=0, upto=10) == ["b1"]


def test_a_running_snapshot_outlives_the_collection(tracks: Catalog) -> None:
    tracks.entries.commit("tracks", "b1", upserts=[entries("a", "b")], deletes=[])

    with tracks.entries.snapshot("tracks") as snapshot:
        tracks.collections.drop("tracks")
        assert sum(map(len, snapshot.chunks())) == 2


@pytest.mark.parametrize(
    "use",
    [
        lambda catalog: catalog.collections.get("tracks"),
        lambda catalog: catalog.collections.drop("tracks"),
        lambda catalog: catalog.collections.number("tracks", "x"),
        lambda catalog: catalog.entries.mark("tracks", "b1"),
        lambda catalog: catalog.entries.batch_ids("tracks", after=0, upto=1),
        lambda catalog: catalog.entries.forget_deletes("tracks", below=1),
        lambda catalog: catalog.entries.snapshot("tracks").__enter__(),
    ],
)
def test_an_unknown_collection_is_named_in_the_error(catalog: Catalog, use: object) -> None:
    with pytest.raises(UnknownCollectionError, match="no collection 'tracks'"):
        use(catalog)  # type: ignore[operator] # a lambda
