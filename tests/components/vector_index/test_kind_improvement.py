"""What improves a version, from when, and how far a base is extended until then."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.kind import Goal, PreviousVersion
from indexrelay.components.layered import LayerLimits
from indexrelay.components.vector_index import VectorIndex
from indexrelay.components.vector_index import kind as kind_module
from indexrelay.components.vector_index.incremental_build import patient
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.selection import soonest
from indexrelay.components.vector_index.spec import IndexSpec, VectorIndexParameters
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, VersionManifest

LIMITS = LayerLimits(delta=0.1, tombstones=0.2)
HOW = {"provisional": "lists were ready soonest"}


def version(base: str = "a", **details: Any) -> VersionManifest:
    return VersionManifest(
        component="similar",
        kind="vector_index",
        definition="d" * 64,
        covers={"tracks": 9},
        epochs={"tracks": "e1"},
        files={"base.faiss": BlobRef(digest=base * 64, size=1)},
        entries=1,
        details=details,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def spec(count: int, **keys: Any) -> IndexSpec:
    parameters = VectorIndexParameters.model_validate(keys)
    return IndexSpec(parameters=parameters, metric=Metric.L2, dimension=128, count=count)


@pytest.mark.parametrize(
    ("built", "served", "better"),
    [
        (version("b", base_generation=3), version(base_generation=3, **HOW), True),
        (version("b", base_generation=4), version(base_generation=3, outgrown="delta"), True),
        # The best index is the quick one, byte for byte: it is final now.
        (version(base_generation=3), version(base_generation=3, **HOW), True),
        # Beside a base that was built later, at once.
        (version("b", base_generation=3), version(base_generation=4, **HOW), False),
        # Quick itself.
        (version("b", base_generation=3, **HOW), version(base_generation=3, **HOW), False),
        # What serves was continued from it already, and has outgrown it since.
        (version(base_generation=3), version(base_generation=3, outgrown="delta"), False),
        # An earlier release built what serves.
        (version("b", base_generation=3), version(outgrown="delta"), True),
    ],
)
def test_a_version_improves_another_by_a_base_that_is_no_older_and_not_provisional(
    built: VersionManifest, served: VersionManifest, better: bool
) -> None:
    assert VectorIndex.improves(built, served) is better


def test_what_may_be_improved_names_why_and_the_generation_of_its_base() -> None:
    assert VectorIndex.improvable(version(base_generation=3)) is None
    quick = VectorIndex.improvable(version(base_generation=3, **HOW))
    assert quick is not None
    assert (quick.reason, quick.since) == (HOW["provisional"], {"tracks": 3})
    outgrown = VectorIndex.improvable(version(outgrown="the delta would be 12"))
    assert outgrown is not None
    assert (outgrown.reason, outgrown.since) == ("the delta would be 12", {"tracks": 0})


@given(st.integers(0, 400_000), st.sampled_from(Goal), st.booleans())
def test_only_a_large_collection_of_a_rebuilder_that_improves_it_waits_for_nothing(
    count: int, goal: Goal, quick_first: bool
) -> None:
    wanted = spec(count, quick_first=quick_first)
    large = quick_first and count * 128 > 8_000_000
    assert (soonest(wanted) is not None) is large
    extended = patient(LIMITS, goal, wanted)
    if large and goal in {Goal.QUICK, Goal.CATCH_UP}:
        assert extended == replace(LIMITS, delta=0.2, tombstones=0.4)
    else:
        assert extended == LIMITS


@pytest.mark.parametrize("keys", [{"index": "HNSW32"}, {"prefer": "build"}, {"max_bytes": 1}])
def test_what_has_nothing_better_than_its_first_index_is_built_once(keys: dict[str, Any]) -> None:
    wanted = spec(1_000_000, **keys)
    assert soonest(wanted) is None
    assert patient(LIMITS, Goal.QUICK, wanted) == LIMITS


def test_a_base_is_never_extended_by_more_than_itself() -> None:
    generous = LayerLimits(delta=0.7, tombstones=0.0)
    extended = patient(generous, Goal.QUICK, spec(1_000_000))
    assert (extended.delta, extended.tombstones) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"), [(0.7, 1.0, True), (1.19, 1.0, True), (1.21, 1.0, False)]
)
def test_what_answers_later_than_the_version_that_serves_is_not_released(
    monkeypatch: pytest.MonkeyPatch, ours: float, theirs: float, passed: bool
) -> None:
    now = [0.0]

    class Search:
        """Takes its time, by a clock of the test's own."""

        dimension = 2
        facts = SimpleNamespace(rows=3)

        def __init__(self, files: Any) -> None:
            self._milliseconds = ours if Path("new") in files.values() else theirs

        def search(self, _vector: Any) -> None:
            now[0] += self._milliseconds / 1000

        def close(self) -> None:
            pass

    sample = SimpleNamespace(vectors=np.ones((5, 2), dtype=np.float32))
    monkeypatch.setattr(kind_module, "VectorSearch", Search)
    monkeypatch.setattr(kind_module, "perf_counter", lambda: now[0])
    monkeypatch.setattr(QuerySample, "load", lambda *_, **__: sample)
    previous = PreviousVersion(manifest=version(), files={"sample": Path("old")})
    verdict = kind_module._no_slower({SAMPLE: Path("new")}, previous)
    assert verdict.passed is passed
    assert verdict.measured == pytest.approx(ours)
    assert verdict.limit == pytest.approx(1.2 * theirs)
    assert bool(verdict.detail) is not passed
