"""A new version is compared with the one that serves: overlap, lengths, and where vectors lie."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.gates import CENTROID_SHIFT, NORM_SHIFT, OVERLAP, GateSettings
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import Row, Run, as_previous, clustered, make_job, make_snapshot, run

FIGURES = (OVERLAP, NORM_SHIFT, CENTROID_SHIFT)


def kind() -> VectorIndex:
    return VectorIndex(VectorIndexParameters(index="Flat"))


def from_scratch(folder: Path, before: Vectors, after: Vectors, gates: GateSettings) -> Run:
    """The second of two full builds."""
    snapshot = make_snapshot(before, metric=Metric.L2)
    first = make_job(folder / "first", snapshot)
    done = run(kind(), first)
    rows = {name: Row(vector=after[row]) for row, name in enumerate(snapshot.ids)}
    second = make_job(folder / "second", snapshot.commit(rows), previous=as_previous(first, done))
    return run(kind(), replace(second, from_scratch=True, gates=gates))


def test_a_full_build_records_all_three_without_limits(tmp_path: Path) -> None:
    vectors = clustered(300, 8)
    done = from_scratch(tmp_path, vectors, vectors, GateSettings())
    assert done.failed == []
    figures = {name: done.check(name) for name in FIGURES}
    assert {name: each.limit for name, each in figures.items()} == dict.fromkeys(FIGURES)
    assert figures[OVERLAP].measured == 1.0
    assert figures[NORM_SHIFT].measured == pytest.approx(0, abs=1e-6)
    assert figures[CENTROID_SHIFT].measured == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (lambda vectors: np.random.default_rng(3).permutation(vectors), OVERLAP),
        (lambda vectors: vectors * 2, NORM_SHIFT),
        (lambda vectors: vectors + 5, CENTROID_SHIFT),
    ],
)
def test_what_goes_beyond_its_limit_is_refused(
    tmp_path: Path, change: Callable[[Vectors], Vectors], failing: str
) -> None:
    limits = GateSettings(min_overlap=0.5, max_norm_shift=0.2, max_centroid_shift=0.5)
    vectors = clustered(300, 8)
    refused = from_scratch(tmp_path, vectors, change(vectors), limits)
    check = refused.check(failing)
    assert failing in refused.failed
    assert check.measured is not None
    assert check.limit is not None
    assert check.detail


def test_an_incremental_build_is_compared_only_where_there_is_a_limit(tmp_path: Path) -> None:
    snapshot = make_snapshot(clustered(300, 8), metric=Metric.L2)
    first = make_job(tmp_path / "first", snapshot)
    previous = as_previous(first, run(kind(), first))
    later = snapshot.commit({"new": Row(vector=snapshot.matrix[0])})
    plain = run(kind(), make_job(tmp_path / "plain", later, previous=previous))
    assert plain.built.extends
    assert not {check.name for check in plain.checks}.intersection(FIGURES)
    job = make_job(tmp_path / "limited", later, previous=previous)
    limited = run(kind(), replace(job, gates=GateSettings(min_overlap=0.9)))
    assert limited.failed == []
    assert limited.check(OVERLAP).limit == 0.9


def test_an_empty_index_is_compared_with_nothing(tmp_path: Path) -> None:
    snapshot = make_snapshot(clustered(5, 8), metric=Metric.L2)
    first = make_job(tmp_path / "first", snapshot)
    previous = as_previous(first, run(kind(), first))
    job = make_job(tmp_path / "second", snapshot.commit(deletes=snapshot.ids), previous=previous)
    done = run(kind(), replace(job, from_scratch=True))
    assert done.failed == []
    assert not {check.name for check in done.checks}.intersection(FIGURES)
