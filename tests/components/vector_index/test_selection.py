"""Which of the candidates is built, and what is written of the others into the details."""

from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import selection
from indexrelay.components.vector_index.candidates import Candidate, candidates
from indexrelay.components.vector_index.index_build import IndexFiles, searched_bytes
from indexrelay.components.vector_index.index_search import search_parameters
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.metrics import prepared, without_itself
from indexrelay.components.vector_index.sample import Dataset, QuerySample, draw_sample
from indexrelay.components.vector_index.selection import (
    Attempt,
    Decision,
    Shortfall,
    decide,
    soonest,
)
from indexrelay.components.vector_index.spec import IndexSpec, Prefer, VectorIndexParameters
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors


def spec(count: int, dimension: int, **keys: object) -> IndexSpec:
    return IndexSpec(
        parameters=VectorIndexParameters.model_validate(keys),
        metric=Metric.COSINE,
        dimension=dimension,
        count=count,
    )


@pytest.fixture(scope="module")
def hard() -> tuple[Vectors, QuerySample]:
    """Vectors without any structure: their neighbours lie in many lists."""
    noise = np.random.default_rng(3).standard_normal((12_000, 48)).astype(np.float32)
    vectors = prepared(noise, Metric.COSINE)
    sample = draw_sample(vectors, Metric.COSINE, seed=0, progress=lambda _share: None)
    return vectors, sample


def decided(
    folder: Path,
    data: tuple[Vectors, QuerySample],
    *,
    only: Candidate | None = None,
    **keys: object,
) -> Decision:
    vectors, sample = data
    files = IndexFiles(index=folder / "base.faiss", trained=folder / "trained.faiss")
    count, dimension = vectors.shape
    dataset = Dataset(spec=spec(count, dimension, **keys), vectors=vectors, sample=sample)
    return decide(files, dataset, lambda _share: None, only=only)


def over_everything(decision: Decision) -> list[str]:
    """What was built over all entries, in that order of trying."""
    most = decision.index.ntotal
    return [each.factory.text for each in decision.attempts if each.rows == most]


def cost(attempt: Attempt, prefer: Prefer) -> float:
    return {
        Prefer.LATENCY: attempt.milliseconds,
        Prefer.MEMORY: float(attempt.bytes),
        Prefer.BUILD: attempt.seconds,
    }[prefer]


@pytest.mark.parametrize("prefer", [Prefer.LATENCY, Prefer.MEMORY])
def test_the_best_by_what_is_preferred_is_built_over_everything(
    tmp_path: Path, hard: tuple[Vectors, QuerySample], prefer: Prefer
) -> None:
    decision = decided(tmp_path, hard, prefer=prefer, min_recall=0.9)
    enough = [each for each in decision.attempts if not each.shortfalls]
    assert decision.chosen in enough
    assert decision.chosen.rows == len(hard[0])
    # Nothing that was tried promises much more.
    assert 0.7 * cost(decision.chosen, prefer) <= min(cost(each, prefer) for each in enough)
    assert decision.index.ntotal == len(hard[0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base.faiss", "trained.faiss"]
    assert open_index(tmp_path / "trained.faiss").ntotal == 0


def test_memory_takes_the_fewest_bits_that_reach_the_recall(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    for number, (recall, index) in enumerate([(0.9, "RaBitQ,RFlat"), (1.0, "SQ4,RFlat")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        decision = decided(folder, hard, prefer="memory", min_recall=recall)
        assert decision.chosen.factory.text == index
        assert decision.chosen.shortfalls == frozenset()


def test_what_is_ready_soonest_is_taken_at_once_where_it_is_good_enough(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard, prefer="build")
    assert [each.factory.text for each in decision.attempts] == ["Flat"]
    assert decision.chosen.shortfalls == frozenset()


def test_the_others_are_tried_where_what_is_ready_soonest_falls_short(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    # No index answers in a nanosecond: the nearest miss is kept.
    decision = decided(tmp_path, hard, prefer="build", max_latency_ms=1e-6)
    asked = spec(*hard[0].shape, prefer="build")
    assert [each.factory.text for each in decision.attempts] == [
        each.factory(asked).text for each in candidates(asked)
    ]
    assert all(Shortfall.LATENCY in attempt.shortfalls for attempt in decision.attempts)


def test_a_graph_over_full_vectors_is_only_tried_where_half_of_their_bits_fall_short(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard)
    tried = {each.factory.text: each for each in decision.attempts}
    assert not tried["HNSW24,SQfp16"].shortfalls
    assert "HNSW24" not in tried


def test_what_takes_longer_to_build_than_it_may_is_left_out(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard, max_build_seconds=1e-3)
    soonest = min(decision.attempts, key=lambda each: each.seconds)
    assert over_everything(decision) == [decision.chosen.factory.text]
    assert decision.chosen.factory.text == soonest.factory.text == "Flat"
    details = {each["index"]: each for each in decision.details()["attempts"]}
    assert details.pop("Flat")["left_out"] == ""
    # On a busy machine a graph may be measured to be behind, too, but not all of them are.
    reasons = [each["left_out"] for each in details.values()]
    assert all(reasons)
    assert any("max_build_seconds is 0.001" in each for each in reasons)


def test_a_foresight_that_does_not_come_true_gives_way_to_the_next(
    tmp_path: Path, hard: tuple[Vectors, QuerySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everything is foreseen to be faster than anything is: so each promise is tried.
    growth = selection._Growth
    monkeypatch.setattr(
        growth, "of", lambda _factory, times: growth(1e-6 if times > 1 else 1.0, 1.0)
    )
    decision = decided(tmp_path, hard, max_build_seconds=1000)
    assert decision.chosen.rows == len(hard[0])
    assert len(over_everything(decision)) > 1
    fastest = min(
        (each for each in decision.attempts if each.rows == len(hard[0])),
        key=lambda each: each.milliseconds,
    )
    assert decision.chosen.milliseconds <= 1.1 * fastest.milliseconds


def test_a_refinement_restores_the_recall_that_few_bits_lose(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    # Eight bits do not reach a recall of 1 on noise in 48 dimensions.
    small = 12_000 * 48 + 1000
    decision = decided(tmp_path, hard, max_bytes=small, min_recall=1.0)
    assert decision.chosen.factory.text == "SQ8,RFlat"
    assert decision.chosen.recall == 1.0


def test_a_named_index_is_the_only_candidate(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard, index="IVF64,Flat", max_latency_ms=1e-6)
    assert [each.factory.text for each in decision.attempts] == ["IVF64,Flat"]
    assert decision.chosen.rows == len(hard[0])


def test_the_details_have_every_attempt_and_the_front(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard, min_recall=0.9)
    details = decision.details()
    assert (details["index"], details["prefer"]) == (decision.chosen.factory.text, "latency")
    asked = spec(*hard[0].shape)
    for attempt, shown in zip(decision.attempts, details["attempts"], strict=True):
        assert shown["bytes"] == searched_bytes(attempt.factory, asked)
        better = [
            other
            for other in decision.attempts
            if not other.shortfalls
            and other.milliseconds <= attempt.milliseconds
            and other.bytes <= attempt.bytes
            and other.seconds <= attempt.seconds
            and other is not attempt
        ]
        assert shown["front"] is (not better and not attempt.shortfalls)
        assert bool(shown["left_out"]) is (attempt.rows < len(hard[0]))


def test_what_is_ready_soonest_is_worth_having_where_the_preferred_index_takes_long() -> None:
    many = soonest(spec(1_000_000, 64))
    assert many is not None
    assert many.form == "IVF*,Flat"
    for asked in (
        spec(100, 64),
        spec(100_000, 64),
        spec(1_000_000, 64, prefer="build"),
        spec(1_000_000, 64, index="IVF64,Flat"),
    ):
        assert soonest(asked) is None


@pytest.mark.parametrize(("limit", "tried"), [(100.0, 1), (1e-6, 4)])
def test_nothing_else_is_tried_unless_what_is_ready_soonest_falls_short(
    tmp_path: Path, hard: tuple[Vectors, QuerySample], limit: float, tried: int
) -> None:
    only = candidates(spec(*hard[0].shape))[0]
    decision = decided(tmp_path, hard, only=only, max_latency_ms=limit)
    assert len(decision.attempts) == tried
    if tried == 1:
        assert decision.chosen.candidate == only


def test_the_effort_is_the_cheapest_that_reaches_the_recall_and_the_table_shows_both_sides(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    decision = decided(tmp_path, hard, index="IVF64,Flat", min_recall=0.9)
    vectors, sample = hard
    nprobe = decision.effort.nprobe
    assert nprobe is not None
    assert 1 < nprobe < 64
    details = decision.details()
    efforts = [trial["nprobe"] for trial in details["trials"]]
    assert efforts == sorted(efforts)
    assert max(efforts) > nprobe  # what more would buy
    by_effort = {trial["nprobe"]: trial["recall"] for trial in details["trials"]}
    aim = 0.9 + 2.5 * (0.9 * 0.1 / 2000) ** 0.5  # higher by what the sample may be wrong
    assert by_effort[nprobe] >= aim
    assert all(recall < aim for effort, recall in by_effort.items() if effort < nprobe)
    assert all(trial["milliseconds"] > 0 for trial in details["trials"])
    # Measured by the tuner, and by a plain search over the written file.
    index = open_index(tmp_path / "base.faiss")
    _, rows = index.search(sample.vectors, 11, params=search_parameters(index, decision.effort))
    limit = sample.distances[:, 9]
    exact = [
        np.sum(-(vectors[found[found != row][:10]] @ vectors[row]) <= far + 1e-5)
        for found, row, far in zip(rows, sample.rows, limit, strict=True)
    ]
    assert np.sum(exact) / (10 * len(exact)) == pytest.approx(by_effort[nprobe], abs=0.002)


def test_a_fixed_effort_is_kept(tmp_path: Path, hard: tuple[Vectors, QuerySample]) -> None:
    decision = decided(tmp_path, hard, index="IVF64,Flat", nprobe=5)
    assert decision.effort.model_dump(exclude_none=True) == {"nprobe": 5}


def test_other_queries_than_those_of_the_sample_get_the_recall_too(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    vectors, _ = hard
    decision = decided(tmp_path, hard, index="IVF64,Flat", min_recall=0.9)
    index = open_index(tmp_path / "base.faiss")
    parameters = search_parameters(index, decision.effort)
    recalls = []
    for seed in range(1, 9):
        other = draw_sample(vectors, Metric.COSINE, seed=seed, progress=lambda _share: None)
        _, found = index.search(other.vectors, 11, params=parameters)
        rows = without_itself(found, other.rows)
        recalls.append(other.recall(-np.einsum("qd,qkd->qk", other.vectors, vectors[rows])))
    assert np.mean(recalls) >= 0.9


def test_a_recall_that_is_only_just_reached_is_enough(
    tmp_path: Path, hard: tuple[Vectors, QuerySample]
) -> None:
    # Eight bits find some recall below 1 however hard they are searched: ask for just that.
    most = decided(tmp_path, hard, index="IVF64,SQ8", min_recall=1.0).chosen
    assert most.recall < 1.0
    decision = decided(tmp_path, hard, index="IVF64,SQ8", min_recall=most.recall - 0.001)
    assert decision.chosen.shortfalls == frozenset()
    assert decision.chosen.recall >= most.recall - 0.001
    # … and with the least effort, as far as doubling and halving find it.
    effort = decision.effort.nprobe
    assert effort is not None
    less = [each for each in decision.chosen.trials if (each.effort.nprobe or 0) < effort]
    assert all(each.recall < most.recall - 0.001 for each in less)
    assert max(each.effort.nprobe or 0 for each in less) >= effort - max(1, effort // 8)


@pytest.mark.parametrize(
    ("passed", "worked", "seconds"),
    [
        (10.0, 19.0, 10.0),  # two threads of a host that does nothing else
        (90.0, 12.0, 12.0),  # others had the processors
    ],
)
def test_what_a_build_takes_is_told_as_on_a_host_that_does_nothing_else(
    monkeypatch: pytest.MonkeyPatch, passed: float, worked: float, seconds: float
) -> None:
    clock = {"passed": 5.0, "worked": 3.0}
    monkeypatch.setattr(selection, "perf_counter", lambda: clock["passed"])
    monkeypatch.setattr(selection, "process_time", lambda: clock["worked"])
    spent = selection._Spent()
    clock["passed"] += passed
    clock["worked"] += worked
    assert spent.seconds == seconds
