"""Which indexes `auto` may build."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.candidates import candidates
from indexrelay.components.vector_index.index_search import search_parameters, selector_around
from indexrelay.components.vector_index.mapped_index import is_mapped, open_index, require_faiss
from indexrelay.components.vector_index.metrics import NearestRows
from indexrelay.components.vector_index.spec import (
    Effort,
    IndexSpec,
    Prefer,
    VectorIndexParameters,
)
from indexrelay.schemas.settings import Metric
from tests.components.jobs import clustered

MEGABYTE = 1_000_000
GRAPHS = ["HNSW24,SQfp16", "HNSW24", "HNSW24,SQ8,RFlat"]


def spec(count: int, dimension: int, **keys: object) -> IndexSpec:
    parameters = VectorIndexParameters.model_validate(keys)
    return IndexSpec(parameters=parameters, metric=Metric.COSINE, dimension=dimension, count=count)


def texts(count: int, dimension: int, **keys: object) -> list[str]:
    asked = spec(count, dimension, **keys)
    return [candidate.factory(asked).text for candidate in candidates(asked)]


@pytest.mark.parametrize(
    ("count", "dimension", "tried"),
    [
        (0, 128, ["Flat"]),
        (300, 128, ["Flat"]),
        (3_000, 128, ["Flat"]),
        (9_000, 64, ["Flat", "IVF128,Flat", *GRAPHS[:2]]),
        (20_000, 128, ["Flat", "IVF512,Flat", *GRAPHS[:2]]),
        (20_001, 128, ["IVF512,Flat", *GRAPHS[:2]]),
        (1_000_000, 128, ["IVF4096,Flat", *GRAPHS[:2]]),
        (100_000_000, 128, ["IVF16384,Flat", *GRAPHS[:2]]),
    ],
)
def test_a_scan_lists_and_graphs_are_tried_where_they_may_be_the_fastest(
    count: int, dimension: int, tried: list[str]
) -> None:
    assert texts(count, dimension) == tried


@pytest.mark.parametrize(
    ("keys", "tried"),
    [
        ({"max_bytes": 130 * MEGABYTE}, ["IVF1024,Flat", GRAPHS[0], GRAPHS[2]]),
        ({"max_bytes": 60 * MEGABYTE}, ["IVF1024,SQfp16"]),
        ({"max_bytes": 30 * MEGABYTE}, ["IVF1024,SQ8", "IVF1024,SQ8,RFlat"]),
        ({"max_bytes": 20 * MEGABYTE}, ["IVF1024,SQ4,RFlat"]),
        ({"index": "IVF512,SQ8"}, ["IVF512,SQ8"]),
        ({"nprobe": 8}, ["IVF1024,Flat"]),
    ],
)
def test_only_what_fits_is_tried_and_of_lists_that_which_keeps_the_most(
    keys: dict[str, object], tried: list[str]
) -> None:
    assert texts(200_000, 128, **keys) == tried


def test_auto_says_when_nothing_fits() -> None:
    with pytest.raises(MemoryLimitError, match=r"1000000 vectors of length 128 need \d+ bytes"):
        texts(1_000_000, 128, max_bytes=10_000_000)


@given(
    count=st.integers(0, 10**9),
    dimension=st.integers(1, 4096),
    prefer=st.sampled_from([*Prefer]),
)
def test_auto_never_tries_what_cannot_be_trained(
    count: int, dimension: int, prefer: Prefer
) -> None:
    asked = spec(count, dimension, prefer=prefer)
    tried = [candidate.factory(asked) for candidate in candidates(asked)]
    assert tried
    assert all(factory.needed_rows <= count for factory in tried)


# Everything that `auto` may choose at some count, dimension and memory, in a few lists.
CHOSEN = sorted(
    {
        candidate.form.replace("IVF*", "IVF16")
        for megabytes in (None, 130, 60, 30, 20)
        for count, dimension in ((200_000, 128), (10_000, 1536), (9_000, 64))
        for prefer in Prefer
        for asked in [
            spec(count, dimension, max_bytes=megabytes and megabytes * MEGABYTE, prefer=prefer)
        ]
        for candidate in candidates(asked)
    }
)


@pytest.mark.parametrize("text", CHOSEN)
@pytest.mark.parametrize("metric", [Metric.L2, Metric.INNER_PRODUCT])
def test_whatever_auto_may_choose_is_mapped_and_skips_what_was_deleted(
    tmp_path: Path, text: str, metric: Metric
) -> None:
    faiss: Any = require_faiss()
    vectors = clustered(1500, 32, spread=0.8)
    file = tmp_path / "index.faiss"
    index = faiss.index_factory(
        32, text, faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(file))
    mapped = open_index(file)
    assert is_mapped(mapped)
    dead = np.random.default_rng(1).random(1500) < 0.3
    around = selector_around(np.flatnonzero(dead), rows=1500)
    widest = Effort(nprobe=16, ef_search=256, k_factor=16)
    _, rows = mapped.search(vectors[:100], 10, params=search_parameters(mapped, widest, around))
    assert not dead[rows[rows >= 0]].any()
    live = np.flatnonzero(~dead)
    nearest = NearestRows(vectors[:100], k=10, metric=metric)
    nearest.add(vectors[live])
    exact = live[nearest.rows]
    hits = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), exact.tolist(), strict=True))
    assert hits >= 930  # of 1000, although a third of all rows is gone
