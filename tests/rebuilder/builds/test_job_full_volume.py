"""A disk that gets full during a build: a transient cause, whatever was to be written."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from indexrelay.rebuilder import BuildDiedError
from indexrelay.rebuilder.builds import BuildRequest
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.messages import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, Metric
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Entries
from tests.fixtures.volumes import Volume, may_mount
from tests.rebuilder.conftest import run

ROWS, DIMENSION = 1500, 32
KINDS = {
    "vector_index": {"index": "Flat"},
    "embedding_cache": {},
    "text_index": {},
    "projection": {"method": "pca"},
    "json_cache": {"function": "tests.rebuilder.kinds:everything"},
    "tests.rebuilder.kinds:Sparse": {},
}
VOLUME_BYTES = 2 << 20


@pytest.fixture(scope="module")
def catalog_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('catalog') / 'catalog.db'}"
    catalog = Catalog.open(url)
    catalog.collections.declare("tracks", dimension=DIMENSION, metric=Metric.L2)
    entries = Entries(
        ids=[f"t{row:06d}" for row in range(ROWS)],
        vectors=np.random.default_rng(7).random((ROWS, DIMENSION), dtype=np.float32),
        texts=[f"the song number {row}" for row in range(ROWS)],
        payloads=['{"year": 1999}'] * ROWS,
    )
    catalog.entries.commit("tracks", "all", upserts=[entries], deletes=[])
    catalog.close()
    return url


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    if not may_mount():
        assert not os.environ.get("CI"), "in CI this test is to run, as root"
        pytest.skip("mounting a small volume needs root")
    with Volume(tmp_path / "volume", VOLUME_BYTES) as volume:
        yield volume


@pytest.fixture(scope="module")
def runner() -> Iterator[ForkingRunner]:
    modules = ["faiss", "sklearn.decomposition", "tests.rebuilder.kinds"]
    runner = ForkingRunner(preload=modules, threads=1, niceness=0)
    yield runner
    runner.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_a_transient_cause_wherever_in_a_build_it_is_met(
    kind: str, volume: Volume, runner: ForkingRunner, catalog_url: str
) -> None:
    """Free space goes up in steps, until the build gets through with all of it."""
    store = ArtifactStore(volume.path / "store")
    errors = []
    for turn, room in enumerate([0, 60_000, 180_000, 250_000]):
        volume.fill(leave=room)
        try:
            result = attempt(kind, turn, store, runner, catalog_url)
        finally:
            volume.free()
        if result.outcome is BuildOutcome.REBUILT:
            break
        assert result.transient, f"{room:,} bytes left: {result.error}"
        errors.append(result.error)
    assert errors, "the disk was never full"
    assert all("o space left" in str(error) or "disk is full" in str(error) for error in errors)
    assert attempt(kind, 99, store, runner, catalog_url).outcome is BuildOutcome.REBUILT


def attempt(
    kind: str, turn: int, store: ArtifactStore, runner: ForkingRunner, catalog_url: str
) -> ComponentResult:
    """One build, as `ComponentBuilder` takes what becomes of it."""
    keys: dict[str, Any] = KINDS[kind]
    workdir = store.root / f"work-{turn}"
    try:
        workdir.mkdir()
        request = BuildRequest(
            component="thing",
            # Or it would not even begin.
            definition=ComponentDefinition.of(kind, "tracks", gates={"min_free_disk": 0}, **keys),
            collections={"tracks": CollectionSettings(dimension=DIMENSION, metric=Metric.L2)},
            parents={},
            previous=None,
            catalog_url=SecretStr(catalog_url),
            artifacts_dir=store.root,
            workdir=workdir,
            threads=1,
        )
        return run(runner, request)
    except BuildDiedError as error:
        return ComponentResult(
            outcome=BuildOutcome.FAILED, error=str(error), transient=error.transient
        )
    except OSError as error:
        full = error.errno == errno.ENOSPC
        return ComponentResult(outcome=BuildOutcome.FAILED, error=str(error), transient=full)
    finally:
        for file in workdir.glob("*"):
            file.unlink()
