"""The whole way: job → entries → event → rebuild → verify → release → reload → report.

Real servers, a real database, real kinds, builds in child processes, and readers in processes of
their own.
"""

import numpy as np
import pytest

from tests.behaviour.conftest import Install

pytestmark = pytest.mark.server

TABLES = """
[rebuilder]
quiet_seconds = 0.05
block_seconds = 0.2
release_after_seconds = 300 # all of a batch in one release, however busy the machine is
[reader]
block_seconds = 0.2
[collections.sounds]
dimension = 16
metric = "cosine"
[components.similar]
kind = "vector_index"
from = "sounds"
[components.words]
kind = "text_index"
from = "sounds"
[components.plot]
kind = "projection"
from = "sounds"
[components.plot_cache]
kind = "json_cache"
from = ["plot", "sounds"]
function = "indexrelay.components.json_cache:map_points"
[components.features]
kind = "embedding_cache"
from = "sounds"
"""
COMPONENTS = {"similar", "words", "plot", "plot_cache", "features"}


def sounds(count: int) -> tuple[list[str], np.ndarray, list[str]]:
    """Ids, unit vectors and texts; always the same."""
    generator = np.random.default_rng(7)
    vectors = generator.normal(size=(count, 16)).astype(np.float32)
    words = ["rain", "wind", "thunder", "surf", "birdsong"]
    texts = [f"{words[row % 5]} recorded at place {row}" for row in range(count)]
    return [f"sound-{row:04}" for row in range(count)], vectors, texts


@pytest.mark.parametrize(
    ("server", "database"),
    [("valkey", "sqlite"), ("redis", "sqlite"), ("redis", "postgresql"), ("redis62", "sqlite")],
)
def test_a_batch_reaches_every_reader_and_all_answer_the_same(
    install: Install,
    started_servers: dict[str, str],
    server: str,
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    catalog_url = request.getfixturevalue("postgresql_url") if database == "postgresql" else None
    installation = install(
        started_servers[server],
        TABLES,
        namespace=f"way_{server}_{database}",
        catalog_url=catalog_url,
    )
    installation.start_rebuilder()
    readers = [installation.start_reader(name) for name in ("left", "right")]
    ids, vectors, texts = sounds(300)

    with installation.producer.batch("sounds", "first") as batch:
        batch.upsert(ids, vectors, texts=texts)
    served = installation.producer.wait_served(batch.commit, timeout_seconds=60, readers=2)
    assert served.readers == ("left", "right")
    for reader in readers:
        near = reader.ask("similar", vector=vectors[42].tolist())
        assert near["ids"][0] == "sound-0042"
        assert reader.ask("words", text="thunder 42")["ids"][0] == "sound-0042"
    first, second = (reader.ask("plot_cache")["document"] for reader in readers)
    assert first == second
    assert len(first["points"]) == 300

    with installation.producer.batch("sounds", "second") as batch:
        batch.delete(["sound-0042"])
        batch.upsert(["new"], vectors[42:43], texts=["hail on a tin roof"])
    installation.producer.wait_served(batch.commit, timeout_seconds=60, readers=2)
    for reader in readers:
        answer = reader.ask("similar", vector=vectors[42].tolist())
        assert (answer["ids"][0], answer["release"]) == ("new", 2)
        assert reader.ask("words", text="hail")["ids"] == ["new"]
    for state in installation.states().values():
        assert set(state.components) == COMPONENTS
        assert {part.covers["sounds"] for part in state.components.values()} == {2}
    assert [reader.stop() for reader in readers] == [0, 0]
