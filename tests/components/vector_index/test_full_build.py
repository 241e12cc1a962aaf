"""Every type of index: built, judged, mapped, loaded, and compared with an exact search."""

import json
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.version import BASE
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import MemorySnapshot, Run, clustered, make_job, make_snapshot, run

ROWS, DIMENSION = 1100, 16

# Whether the scores are those of the true vectors, and the recall@10 to ask for.
EXACT: dict[str, float] = {
    "Flat": 1.0,
    "IVF16,Flat": 0.95,
    "IVF16_HNSW8,Flat": 0.95,
    "HNSW16": 0.95,
    "HNSW16,Flat": 0.95,
    "NSG16": 0.9,
    "IVF16,PQ8x4,RFlat": 0.95,
    "IVF16,PQ8x4fsr,RFlat": 0.95,
    "RR16,IVF16,Flat": 0.95,
}
LOSSY: dict[str, float] = {
    "SQ8": 0.9,
    "SQfp16": 0.95,
    "SQ4": 0.4,
    "PQ8x4": 0.2,
    "RQ4x4": 0.0,
    "RaBitQ": 0.1,
    "IVF16,SQfp16": 0.95,
    "IVF16,SQ8": 0.9,
    "IVF16,SQ4": 0.4,
    "IVF16,PQ8x4": 0.2,
    "IVF16,PQ8x4fs": 0.2,
    "IVF16,RaBitQ": 0.1,
    "HNSW16,SQ8": 0.9,
    "PCA12,IVF16,Flat": 0.3,
    "IVF16,SQ4,Refine(SQfp16)": 0.9,
}
SLOW = {"NSG16", "RQ4x4"}
"""Seconds to build, so with one metric only."""
NOT_MAPPED = {"NSG16", "IVF16,PQ8x4fs", "IVF16,PQ8x4fsr,RFlat"}


def snapshot(metric: Metric, rows: int = ROWS, dimension: int = DIMENSION) -> MemorySnapshot:
    vectors = clustered(rows, dimension, clusters=12, spread=0.8)
    payloads = [json.dumps({"row": row}) if row % 3 else None for row in range(rows)]
    return make_snapshot(vectors, metric=metric, payloads=payloads)


def build(folder: Path, source: MemorySnapshot, **keys: object) -> tuple[Run, VectorSearch]:
    kind = VectorIndex(VectorIndexParameters.model_validate(keys))
    done = run(kind, make_job(folder, source))
    return done, kind.load(done.files)


def true_scores(query: Vectors, vectors: Vectors, metric: Metric) -> Vectors:
    """The score of every row, by the textbook."""
    match metric:
        case Metric.L2:
            scores = np.linalg.norm(vectors - query, axis=1)
        case Metric.INNER_PRODUCT:
            scores = vectors @ query
        case Metric.COSINE:
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
            scores = vectors @ query / lengths
    return np.asarray(scores)


@pytest.mark.parametrize(
    ("factory", "metric"),
    [
        (factory, metric)
        for factory in [*EXACT, *LOSSY]
        for metric in ([Metric.COSINE] if factory in SLOW else Metric)
    ],
)
def test_an_index_of_this_type_passes_its_gates_and_finds_what_an_exact_search_finds(
    tmp_path: Path, factory: str, metric: Metric
) -> None:
    source = snapshot(metric)
    wanted = {**EXACT, **LOSSY}[factory]
    done, index = build(tmp_path, source, index=factory, min_recall=wanted)
    assert [check for check in done.checks if not check.passed] == []
    assert done.built.details["index"] == factory
    assert done.built.details["mapped"] is index.mapped is (factory not in NOT_MAPPED)

    found = 0
    for row in range(0, ROWS, 11):
        query = source.matrix[row]
        scores = true_scores(query, source.matrix, metric)
        nearest = np.argsort(scores if metric is Metric.L2 else -scores, kind="stable")
        hits = index.search(query)
        assert len(hits) == 10
        rows = [int(hit.id[1:]) for hit in hits]
        assert [hit.payload for hit in hits] == [{"row": r} if r % 3 else None for r in rows]
        farther = scores[rows] - scores[nearest[9]]
        found += int(np.sum((farther if metric is Metric.L2 else -farther) <= 1e-4))
        if factory in EXACT:
            np.testing.assert_allclose(
                [hit.score for hit in hits], scores[rows], rtol=1e-3, atol=2e-3
            )
    # The gate measured another sample, and not the entries themselves, which are the easiest hit.
    assert found / 1000 >= wanted - 0.03


@pytest.mark.parametrize("factory", [*EXACT, *LOSSY])
def test_every_type_gives_back_the_exact_vector_and_more_like_it(
    tmp_path: Path, factory: str
) -> None:
    source = snapshot(Metric.L2)
    _, index = build(tmp_path, source, index=factory, min_recall=0.0)
    for row in (0, 7, ROWS - 1):
        name = f"e{row:06d}"
        np.testing.assert_allclose(index.vector(name), source.matrix[row], rtol=1e-6, atol=1e-6)
        hits = index.search_by_id(name, k=5)
        assert len(hits) == 5
        assert name not in [hit.id for hit in hits]
    many = index.search_many(source.matrix[:20], k=3)
    for vector, hits in zip(source.matrix[:20], many, strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in index.search(vector, k=3)]


@pytest.mark.parametrize("factory", ["PQ1", "IVF16,PQ1"])
def test_codebooks_of_eight_bits_are_trained_when_there_are_rows_enough(
    tmp_path: Path, factory: str
) -> None:
    source = snapshot(Metric.COSINE, rows=10_000, dimension=8)
    done, index = build(tmp_path, source, index=factory, min_recall=0.0)
    assert done.failed == []
    assert (done.built.details["index"], index.mapped) == (factory, True)


@pytest.mark.parametrize(
    ("max_bytes", "index"),
    [(None, "IVF256,Flat"), (7_000_000, "IVF256,SQfp16"), (4_000_000, "IVF256,SQ8")],
)
def test_lists_are_ready_soonest_for_many_vectors_with_fewer_bits_for_little_memory(
    tmp_path: Path, max_bytes: int | None, index: str
) -> None:
    source = snapshot(Metric.COSINE, rows=10_100, dimension=256)
    done, served = build(tmp_path, source, max_bytes=max_bytes, prefer="build")
    assert done.failed == []
    assert done.built.details["index"] == index
    assert served.mapped
    if max_bytes is not None:
        assert done.files[BASE].stat().st_size <= max_bytes + 4096


def test_an_index_that_was_read_into_memory_does_not_count_as_mapped(tmp_path: Path) -> None:
    import faiss

    from indexrelay.components.vector_index.mapped_index import is_mapped

    done, _ = build(tmp_path, snapshot(Metric.L2), index="IVF16,Flat")
    assert is_mapped(open_index(done.files[BASE]))
    assert not is_mapped(faiss.read_index(str(done.files[BASE])))


def test_few_rows_are_scanned_until_the_index_can_be_trained(tmp_path: Path) -> None:
    few, _ = build(tmp_path / "few", snapshot(Metric.L2, rows=600), index="IVF16,Flat")
    assert few.built.details["index"] == "Flat"
    assert few.built.details["reason"] == "IVF16,Flat needs 624 entries to train; there are 600"
    enough, _ = build(tmp_path / "enough", snapshot(Metric.L2, rows=624), index="IVF16,Flat")
    assert enough.built.details["index"] == "IVF16,Flat"


def test_nothing_is_printed_while_an_index_is_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, snapshot(Metric.L2, rows=624), index="IVF16,PQ8x4")
    assert capfd.readouterr() == ("", "")


def test_one_seed_builds_one_index(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        kind = VectorIndex(VectorIndexParameters(index="IVF16,SQ8", seed=seed))
        built = kind.build(make_job(tmp_path / name, snapshot(Metric.L2), threads=1))
        files.append({key: Path(str(file)).read_bytes() for key, file in built.files.items()})
    assert files[0][BASE] == files[1][BASE]
    assert files[0]["sample.npz"] == files[1]["sample.npz"]
    assert files[0][BASE] != files[2][BASE]
