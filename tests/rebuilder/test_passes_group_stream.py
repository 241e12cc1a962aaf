"""Groups keep moving while batches come faster than builds end, whatever they are read from.

Each build brings something new to what it reads, so that no two builds that begin one after the
other ever see the same. The builds run in real child processes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest
import sqlalchemy as sa

from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.urls import sqlite_url
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys
from tests.rebuilder.conftest import Bench

POSTGRESQL = pytest.mark.postgresql
MEMBERS = {"index": ["tracks"], "chart": ["tracks"], "cache": ["chart", "tracks"]}


@pytest.fixture
def runner() -> Iterator[ForkingRunner]:
    runner = ForkingRunner(preload=["tests.rebuilder.kinds"], threads=1)
    yield runner
    runner.stop()


@pytest.fixture
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where the collection lies, as its settings say, and what a build needs to add to it."""
    place, _, database = request.param.partition(" in ")
    if place == "folder":
        folder = tmp_path / "songs"
        folder.mkdir()
        np.save(folder / "first.npy", np.ones((1, 2), np.float32))
        source: dict[str, Any] = {"kind": "folder", "path": folder}
        return {"source": source, "keys": {"folder": str(folder)}}
    url = (
        request.getfixturevalue("postgresql_url")
        if database == "postgresql"
        else sqlite_url(tmp_path / f"{place}.db")
    )
    if place == "catalog":
        return {"catalog": {"url": url}, "keys": {"url": url}}
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        if database == "sqlite":
            connection.execute(sa.text("PRAGMA journal_mode = WAL"))
        connection.execute(sa.text("CREATE TABLE songs (id TEXT, vector TEXT)"))
        connection.execute(sa.text("INSERT INTO songs VALUES ('first', '[1, 1]')"))
    engine.dispose()
    source = {"kind": "table", "url": url, "table": "songs"}
    return {"source": source, "keys": {"url": url, "table": "songs"}}


@pytest.mark.parametrize(
    "stream",
    [
        "catalog in sqlite",
        pytest.param("catalog in postgresql", marks=POSTGRESQL),
        "table in sqlite",
        pytest.param("table in postgresql", marks=POSTGRESQL),
        "folder",
    ],
    indirect=True,
)
def test_one_worker_releases_a_group_of_three_with_each_pass_however_steadily_batches_come(
    stream: dict[str, Any], tmp_path: Path, runner: ForkingRunner
) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "catalog": stream.get("catalog", {}),
            "rebuilder": {"workers": 1},
            "collections": {
                "tracks": {
                    "dimension": 2,
                    "metric": "l2",
                    **({"source": stream["source"]} if "source" in stream else {}),
                }
            },
            "components": {
                name: {
                    "kind": "tests.rebuilder.kinds:Steady",
                    "from": inputs,
                    "group": "maps",
                    **stream["keys"],
                }
                for name, inputs in MEMBERS.items()
            },
        }
    )
    server = fakeredis.FakeServer()
    bench = Bench(
        settings=settings,
        catalog=Catalog.open(settings.catalog_url),
        store=ArtifactStore(settings.artifacts_dir),
        connection=Connection(
            commands=fakeredis.FakeRedis(server=server), blocking=fakeredis.FakeRedis(server=server)
        ),
        keys=Keys(settings.namespace),
        runner=runner,
    )
    try:
        if "source" not in stream:
            bench.commit("first")
        seen: list[set[str]] = []
        for number in (1, 2, 3):
            if "table" in stream["keys"]:  # whoever writes to a table says so
                bench.catalog.entries.mark("tracks", f"mark {number}")
            result = bench.rebuild()
            assert result.release == number, result.message
            contents = {name: bench.opened(name) for name in MEMBERS}
            assert len({each.manifest.covers["tracks"] for each in contents.values()}) == 1
            read = {
                tuple(json.loads(each.files["ids.json"].read_text())) for each in contents.values()
            }
            assert len(read) == 1
            seen.append(set(next(iter(read))))
        assert seen[0] < seen[1] < seen[2]
    finally:
        bench.rebuilder.stop()
        bench.connection.close()
        bench.catalog.close()
