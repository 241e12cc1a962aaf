import pytest

from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import CollectionMismatchError
from indexrelay.storage.sources import open_source
from tests.storage.rows import entries, ids_of
from tests.storage.sources.conftest import OpenSource


def test_the_catalogs_own_entries_are_declared_on_the_first_look(
    opened: OpenSource, catalog: Catalog
) -> None:
    source = opened(kind="catalog")
    assert catalog.collections.all() == []
    assert source.observe() == 0

    catalog.entries.commit("tracks", "b1", upserts=[entries("a")], deletes=[])
    assert source.observe() == 1
    with source.snapshot() as snapshot:
        assert (snapshot.generation, ids_of(snapshot.chunks())) == (1, ["a"])
        assert snapshot.changes(0) is not None


def test_a_dropped_collection_comes_back_empty_in_a_new_epoch(
    opened: OpenSource, catalog: Catalog
) -> None:
    source = opened(kind="catalog")
    source.observe()
    epoch = catalog.collections.get("tracks").epoch
    catalog.collections.drop("tracks")

    with source.snapshot() as snapshot:
        assert snapshot.epoch != epoch


def test_settings_that_contradict_the_catalog_are_refused_on_the_first_look(
    opened: OpenSource, catalog: Catalog
) -> None:
    opened(kind="catalog").observe()
    other = open_source("tracks", CollectionSettings(dimension=8, metric=Metric.L2), catalog)

    with pytest.raises(CollectionMismatchError):
        other.observe()
    with pytest.raises(CollectionMismatchError), other.snapshot():
        pass
