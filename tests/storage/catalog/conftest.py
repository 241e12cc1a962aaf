"""A catalog on each of the two databases: every contract holds on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.testing import FakeClock


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'made' / 'catalog.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def catalog(url: str, clock: FakeClock) -> Iterator[Catalog]:
    catalog = Catalog.open(url, clock=clock)
    yield catalog
    catalog.close()


@pytest.fixture
def tracks(catalog: Catalog) -> Catalog:
    """The same catalog, with a collection to write to."""
    catalog.collections.declare("tracks", dimension=4, metric=Metric.L2)
    return catalog
