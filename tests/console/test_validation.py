"""``indexrelay maintenance validate``: what is released, judged by its files and today's limits."""

import json
from pathlib import Path

import numpy as np
import pytest

from indexrelay.console.installation import Installation
from indexrelay.producers import Producer
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import EmbeddedServer
from indexrelay.testing.faults import corrupt_version
from tests.console.conftest import Run, build

pytestmark = pytest.mark.server

CONFIG = """
[collections.tracks]
dimension = 8

[components.similar]
kind = "vector_index"
from = "tracks"

[components.words]
kind = "text_index"
from = "tracks"

[components.both]
kind = "search"
from = "tracks"

[components.vectors]
kind = "embedding_cache"
from = "tracks"
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One release of a component of each kind that is searched, and a cache."""
    config = tmp_path_factory.mktemp("installation") / "indexrelay.toml"
    config.write_text(CONFIG)
    settings = load_settings(config, environ={})
    with EmbeddedServer(settings.data_dir):
        with Producer.open(settings) as producer, producer.batch("tracks") as batch:
            vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
            ids = [f"t{row}" for row in range(60)]
            batch.upsert(ids, vectors, texts=[f"song number {row}" for row in range(60)])
        build(config)
    return config


def answer(run: Run, *arguments: str) -> tuple[int, dict[str, dict[str, bool]]]:
    """The exit code, and by component which checks passed."""
    said = run("maintenance", "validate", *arguments, "--json")
    document = json.loads(said.out)
    assert document["valid"] is (said.code == 0)
    return said.code, {
        name: {check["name"]: check["passed"] for check in each["checks"]}
        for name, each in document["components"].items()
    }


def test_what_is_whole_and_good_passes(run: Run, released: Path) -> None:
    code, found = answer(run, "-c", str(released))
    assert code == 0
    assert set(found) == {"both", "similar", "vectors", "words"}
    measured = {"reads_back", "count", "sample_is_exact", "own_distance", "recall_at_10"}
    assert measured < found["similar"].keys()
    assert {f"vector.{name}" for name in measured} < found["both"].keys()
    assert {"bytes", "opens"} == set(found["words"]) == set(found["vectors"])


def test_people_get_a_table(run: Run, released: Path) -> None:
    said = run("maintenance", "validate", "similar", "-c", str(released))
    assert said.code == 0
    assert "recall_at_10" in said.out
    assert "words" not in said.out


def test_limits_of_today_hold(run: Run, released: Path, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        f'data_dir = "{released.parent / "indexrelay-data"}"\n{CONFIG}'
        "[components.similar.gates]\nmax_latency_p99_ms = 1e-9\n"
    )
    code, found = answer(run, "similar", "-c", str(config))
    assert code == 3
    assert {name for name, passed in found["similar"].items() if not passed} == {"latency_p99_ms"}


def test_nothing_of_that_name_is_a_wrong_call(run: Run, released: Path) -> None:
    said = run("maintenance", "validate", "similer", "-c", str(released))
    assert said.code == 2
    assert "similar" in said.err


def test_a_corrupt_file_is_named_and_the_others_are_judged(run: Run, released: Path) -> None:
    with Installation(load_settings(released, environ={})) as installation:
        corrupt_version(installation.store, "vectors")
    code, found = answer(run, "-c", str(released))
    assert code == 3
    assert not found["vectors"]["bytes"]
    assert all(found["similar"].values())
    said = run("maintenance", "validate", "vectors", "-c", str(released))
    assert "indexrelay rebuild vectors" in said.err
