"""A store of its own for every test."""

from pathlib import Path

import pytest

from indexrelay.storage.artifacts import ArtifactStore
from tests.storage.artifacts.samples import MovedClock


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def store(tmp_path: Path, clock: MovedClock) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", clock=clock)
