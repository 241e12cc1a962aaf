"""One catalog, one fake Redis and one clock for each test of the producers."""

from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from indexrelay.producers import Producer
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection
from tests.producers.presence import HandClock, Readers


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": tmp_path,
            "collections": {
                "tracks": {"dimension": 3},
                "files": {"dimension": 3, "source": {"kind": "folder", "path": tmp_path / "npy"}},
            },
            "components": {
                "voyager": {"kind": "vector_index", "from": "tracks"},
                "map": {"kind": "projection", "from": "tracks"},
                "map_cache": {"kind": "json_cache", "from": "map", "function": "a:b"},
            },
        }
    )


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    opened = Catalog.open(settings.catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    server = fakeredis.FakeServer()
    opened = Connection(
        commands=fakeredis.FakeRedis(server=server), blocking=fakeredis.FakeRedis(server=server)
    )
    yield opened
    opened.close()


@pytest.fixture
def readers(connection: Connection, catalog: Catalog) -> Readers:
    return Readers(connection, catalog)


@pytest.fixture
def producer(
    settings: Settings, catalog: Catalog, connection: Connection, clock: HandClock
) -> Iterator[Producer]:
    with Producer(
        settings, catalog=catalog, connection=connection, clock=clock, wait=clock.pass_by
    ) as opened:
        yield opened
