"""A small collection of songs with vectors, texts and payloads, and a search over it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.search import HybridIndex, HybridIndexParameters, HybridSearch
from indexrelay.schemas.settings import Metric
from tests.components.jobs import MemorySnapshot, Run, clustered, make_job, make_snapshot, run

WORDS = ("sea", "blue", "river", "moon", "train", "rain", "road", "fire")
ARTISTS = ("Ada", "Bo", "Cy", "Di")
DIMENSION = 8


def songs(count: int = 200, *, seed: int = 3, metric: Metric = Metric.COSINE) -> MemorySnapshot:
    """Each with two or three words and an artist; the vectors know nothing of either."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 4))) for _ in range(count)]
    artists = [ARTISTS[row % len(ARTISTS)] for row in range(count)]
    payloads = [json.dumps({"artist": artist, "n": row}) for row, artist in enumerate(artists)]
    return make_snapshot(
        clustered(count, DIMENSION, clusters=6, seed=seed),
        texts=texts,
        payloads=payloads,
        metric=metric,
    )


FIELDS = {"artist": "keyword", "n": "number", "tags": "keywords"}


def kind_of(**parameters: Any) -> HybridIndex:
    """The kind with these parameters; the vectors are scanned, so that answers are exact."""
    given = {
        "vector": {"index": "Flat"},
        "filterable": FIELDS,
        **parameters,
    }
    return HybridIndex(HybridIndexParameters.model_validate(given))


def built(folder: Path, snapshot: MemorySnapshot, **parameters: Any) -> Run:
    """A first version of it, which passes its gates."""
    done = run(kind_of(**parameters), make_job(folder, snapshot))
    assert done.failed == []
    return done


def opened(folder: Path, snapshot: MemorySnapshot, **parameters: Any) -> HybridSearch:
    """A first version, loaded."""
    return kind_of(**parameters).load(built(folder, snapshot, **parameters).files)
