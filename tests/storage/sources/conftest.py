"""A catalog to number outside sources in, and a short way to open them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import CollectionSource
from indexrelay.storage.sources import open_source

OpenSource = Callable[..., CollectionSource]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield catalog
    catalog.close()


@pytest.fixture
def opened(catalog: Catalog) -> OpenSource:
    """``opened(kind=…, …)``: the source "tracks" of dimension 4."""

    def open_it(metric: Metric = Metric.L2, **source: object) -> CollectionSource:
        settings = CollectionSettings.model_validate(
            {"dimension": 4, "metric": metric, "source": source}
        )
        return open_source("tracks", settings, catalog)

    return open_it
