"""A version with changes over it answers as a brute-force model of all of them does."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.live.codes import CodeSizes
from indexrelay.components.live.rows import LiveRows, LiveView
from indexrelay.components.live.vectors import LiveVectorSearch, ReleasedVectors
from indexrelay.components.query import Hits, ManyHits
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.filters import FieldType, InvalidFilterError, parse_filter
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Entries, Vectors
from tests.components.filter_model import FIELDS, filters, fulfils, payloads
from tests.components.jobs import make_job, make_snapshot, run

DIMENSION = 4
COVERS = 1
RELEASED = [f"e{number}" for number in range(12)] + ["é", "\U0001f600"]
NAMES = [*RELEASED, "n0", "n1", "n2", "ê", "zz"]
POOL = np.random.default_rng(5).standard_normal((40, DIMENSION)).astype(np.float32)
PAYLOADS = [None, {"year": 1, "genre": "jazz"}, {"year": 2, "tags": ["a", "b"]}, {"live": True}]

Model = dict[str, tuple[Vectors, Any]]


@dataclass(frozen=True)
class Bench:
    """One version, and the entries that it was built from."""

    metric: Metric
    index: VectorSearch
    model: Model
    sizes: CodeSizes


@pytest.fixture(
    scope="module",
    params=[(Metric.COSINE, "Flat"), (Metric.COSINE, "HNSW8"), (Metric.L2, "HNSW8")],
    ids=" ".join,
)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    metric, index = request.param
    model: Model = {
        name: (POOL[place], PAYLOADS[place % len(PAYLOADS)]) for place, name in enumerate(RELEASED)
    }
    snapshot = make_snapshot(
        np.array([vector for vector, _ in model.values()]),
        ids=list(model),
        payloads=[None if each is None else json.dumps(each) for _, each in model.values()],
        metric=metric,
    )
    job = make_job(Path(tmp_path_factory.mktemp("version")), snapshot)
    kind = VectorIndex(
        VectorIndexParameters(index=index, filterable={n: str(k) for n, k in FIELDS.items()})
    )
    done = run(kind, job)
    assert done.failed == []
    # A few rows get codes here, which is what the tests are about.
    return Bench(metric, VectorSearch(done.files), model, CodeSizes(first=2, step=1))


Commit = dict[str, tuple[int, Any] | None]
COMMITS = st.lists(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(st.none(), st.tuples(st.integers(0, len(POOL) - 1), payloads())),
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


def changes_of(commit: Commit) -> Changes:
    kept = {name: each for name, each in commit.items() if each is not None}
    vectors = [POOL[place] for place, _ in kept.values()]
    return Changes(
        upserts=Entries(
            ids=list(kept),
            vectors=np.array(vectors, dtype=np.float32).reshape(len(kept), DIMENSION),
            texts=[None] * len(kept),
            payloads=[None if each is None else json.dumps(each) for _, each in kept.values()],
        ),
        deletes=[name for name, each in commit.items() if each is None],
    )


def applied(model: Model, commit: Commit) -> Model:
    rest = {name: each for name, each in model.items() if name not in commit}
    return rest | {n: (POOL[each[0]], each[1]) for n, each in commit.items() if each is not None}


def new_rows(bench: Bench, *, capacity: int = 64, floor: int = COVERS) -> LiveRows:
    return LiveRows(
        epoch="e", floor=floor, dimension=DIMENSION, metric=bench.metric, capacity=capacity
    )


def over(bench: Bench, view: LiveView) -> LiveVectorSearch:
    released = ReleasedVectors(bench.index, COVERS, sizes=bench.sizes)
    released.index_rows(view)
    return released.with_changes(view)


def unit(vectors: Vectors, metric: Metric) -> Vectors:
    if metric is not Metric.COSINE:
        return vectors
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def expected(
    model: Model, query: Vectors, metric: Metric, *, asked: Any = None, gone: Sequence[str] = ()
) -> list[tuple[float, str]]:
    """Every score and id that may be found, the best first."""
    found = []
    for name, (vector, payload) in model.items():
        if name in gone or (asked is not None and not fulfils(payload, asked)):
            continue
        mine, other = unit(query, metric), unit(vector, metric)
        score = np.linalg.norm(mine - other) if metric is Metric.L2 else mine @ other
        found.append((float(score), name))
    return sorted(found, reverse=metric is not Metric.L2)


def assert_found(hits: Hits, wanted: list[tuple[float, str]], k: int, model: Model) -> None:
    """The right scores; and each hit has the score and the payload of its entry."""
    assert np.allclose([hit.score for hit in hits], [s for s, _ in wanted[:k]], atol=1e-5)
    scores = {name: score for score, name in wanted}
    assert len({hit.id for hit in hits}) == len(hits)
    for hit in hits:
        assert abs(scores[hit.id] - hit.score) < 1e-5
        assert hit.payload == model[hit.id][1]


@settings(max_examples=60, deadline=None)
@given(
    commits=COMMITS,
    looked_at=st.integers(0, 5),
    dropped=st.integers(0, 6),
    asked=st.one_of(st.none(), filters()),
    k=st.integers(1, 20),
    query=st.integers(0, len(POOL) - 1),
    gone=st.lists(st.sampled_from(NAMES), max_size=3),
)
def test_every_answer_is_that_of_a_model_at_the_moment_of_its_view(
    bench: Bench,
    commits: list[Commit],
    looked_at: int,
    dropped: int,
    asked: dict[str, Any] | None,
    k: int,
    query: int,
    gone: list[str],
) -> None:
    rows, models = new_rows(bench), [bench.model]
    views = [rows.view]
    for generation, commit in enumerate(commits, start=COVERS + 1):
        if dropped == generation:  # as where there is no room left
            rows = rows.above(COVERS)
        rows.append([changes_of(commit)], generation)
        views.append(rows.view)
        models.append(applied(models[-1], commit))
    place = min(looked_at, len(commits))
    served, model, vector = over(bench, views[place]), models[place], POOL[query]

    hits = served.search(vector, k=k, filter=asked, without=gone)
    assert_found(hits, expected(model, vector, bench.metric, asked=asked, gone=gone), k, model)
    everything = expected(model, vector, bench.metric)
    scores = served.scores_of(vector, NAMES)
    assert scores == pytest.approx({name: score for score, name in everything}, abs=1e-5)
    [hits] = served.search_many(vector[None, :], k=k, filter=asked)
    assert_found(hits, expected(model, vector, bench.metric, asked=asked), k, model)

    assert len(served) == len(model)
    matching = {n for n, (_, each) in model.items() if asked is None or fulfils(each, asked)}
    assert served.count(asked) == len(matching)
    assert [n for n in NAMES if n in served] == [n for n in NAMES if n in model]
    got = served.get(NAMES, filter=asked)
    assert [None if each is None else (each.id, each.payload) for each in got] == [
        (name, model[name][1]) if name in matching else None for name in NAMES
    ]
    pages, after = [], None
    while True:
        page = served.scroll(asked, after=after, limit=3)
        pages += [(each.id, each.payload) for each in page.entries]
        after = page.after
        if after is None:
            break
    assert pages == [(name, model[name][1]) for name in sorted(matching, key=str.encode)]
    assert list(served.ids) == sorted(model, key=str.encode)

    for name in NAMES[:: len(NAMES) // 4]:
        if name not in model:
            with pytest.raises(UnknownEntryError):
                served.search_by_id(name, k=k)
            continue
        own = model[name][0]
        wanted = expected(model, own, bench.metric, asked=asked, gone=[name])
        assert_found(served.search_by_id(name, k=k, filter=asked), wanted, k, model)
        assert_found(served.neighbours([name], k=k, filter=asked)[name], wanted, k, model)
        assert np.allclose(served.vector(name), unit(own, bench.metric), atol=1e-6)
        assert served.payload(name) == model[name][1]


def changed(bench: Bench, commit: Commit) -> LiveVectorSearch:
    rows = new_rows(bench)
    rows.append([changes_of(commit)], COVERS + 1)
    return over(bench, rows.view)


def test_a_version_that_covers_some_of_the_rows_takes_the_others_only(bench: Bench) -> None:
    rows = new_rows(bench, floor=0)
    rows.append([changes_of({"e0": None, "n0": (30, None)})], COVERS)  # it has other ones itself
    rows.append([changes_of({"n1": (31, None)})], COVERS + 1)
    served = over(bench, rows.view)
    assert "e0" in served
    assert "n0" not in served
    assert "n1" in served


def test_enough_is_found_where_all_near_entries_were_deleted(bench: Bench) -> None:
    near = [name for _, name in expected(bench.model, POOL[0], bench.metric)][:12]
    hits = changed(bench, dict.fromkeys(near)).search(POOL[0], k=2)
    assert len(hits) == 2
    assert not {hit.id for hit in hits} & set(near)


def test_groups_and_diversity_are_those_of_all_entries(bench: Bench) -> None:
    served = changed(
        bench, {"n0": (0, {"genre": "jazz"}), "n1": (1, {"genre": "jazz"}), "n2": (2, None)}
    )
    hits = served.search(POOL[0], k=20, group_by="genre")
    assert [hit.payload.get("genre") for hit in hits if hit.payload].count("jazz") == 1
    assert hits[0].id in {"n0", "e0"}
    various = served.search(POOL[0], k=5, diversity=0.9)
    assert len({hit.id for hit in various}) == 5


def test_examples_may_be_live_entries_and_are_left_out(bench: Bench) -> None:
    served = changed(bench, {"n0": (0, None), "e3": None})
    hits = served.search_like(["n0"], [POOL[7]], k=20)
    assert {hit.id for hit in hits} == {*RELEASED, "n0"} - {"n0", "e3"}
    with pytest.raises(UnknownEntryError):
        served.search_like(["e3"])


def test_arrays_are_as_wide_as_there_are_entries(bench: Bench) -> None:
    served = changed(bench, {"n0": (0, None)})
    ids, scores = served.search_arrays(POOL[:2], k=100)
    assert ids.shape == scores.shape == (2, len(RELEASED) + 1)
    assert ids[0].tolist() == [hit.id for hit in served.search(POOL[0], k=100)]


def test_an_explanation_counts_live_rows_and_what_matches_of_both(bench: Bench) -> None:
    served = changed(bench, {"n0": (0, {"genre": "jazz"}), "e1": None})
    explanation = served.search(POOL[0], filter={"genre": "jazz"}, explain=True).explanation
    assert explanation is not None
    assert [(layer.name, layer.entries) for layer in explanation.layers][-1] == ("live", 1)
    assert explanation.matches == served.count({"genre": "jazz"})
    assert explanation.stages[-1].name == "live"


def test_what_cannot_be_asked_is_refused_as_by_a_version(bench: Bench) -> None:
    served = changed(bench, {"n0": (35, {"other": "x" * 1000})})
    with pytest.raises(InvalidFilterError, match="colour"):
        served.search(POOL[0], filter={"colour": 1})
    with pytest.raises(InvalidFilterError, match="colour"):
        served.count({"colour": 1})
    with pytest.raises(InvalidQueryError, match="shape"):
        served.search([1.0, 2.0])
    with pytest.raises(InvalidQueryError, match="k is a whole number"):
        served.search(POOL[0], k=0)
    for ask in (
        lambda: served.search(POOL[35], k=1, max_payload_bytes=100),
        lambda: served.search_many(POOL[35:36], k=1, max_payload_bytes=100),
        lambda: served.get(["n0"], max_payload_bytes=100),
        lambda: served.scroll(max_payload_bytes=100),
    ):
        with pytest.raises(InvalidQueryError, match="more than 100 bytes"):
            ask()


def test_no_more_payloads_of_the_version_are_read_than_candidates_may_have(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, limits = changed(bench, {"n0": (0, None)}), []
    search_many = VectorSearch.search_many

    def ask(self: VectorSearch, vectors: Vectors, **options: Any) -> ManyHits[Hits]:
        limits.append(options.get("max_payload_bytes"))
        return search_many(self, vectors, **options)

    monkeypatch.setattr(VectorSearch, "search_many", ask)
    served.search_many(POOL[:2], k=3, max_payload_bytes=1 << 30)
    served.search_many(POOL[:2], k=3)
    assert limits == [2 << 30, None]


def test_an_older_view_does_not_see_what_came_later(bench: Bench) -> None:
    rows = new_rows(bench)
    rows.append([changes_of({"n0": (0, {"year": 1})})], COVERS + 1)
    early = over(bench, rows.view)
    assert early.count({"year": 1}) == 5
    rows.append([changes_of({"n0": None, "n1": (0, {"year": 1})})], COVERS + 2)
    assert "n0" in early
    assert "n1" not in early
    assert early.count({"year": 1}) == 5
    assert over(bench, rows.view).get(["n0", "n1"])[0] is None


def test_a_filter_matches_live_rows_by_the_fields_of_the_version_that_is_asked() -> None:
    rows = LiveRows(epoch="e", floor=COVERS, dimension=DIMENSION, metric=Metric.L2)
    rows.append([changes_of({"n0": (0, {"year": 1990})})], COVERS + 1)
    for kind in (FieldType.KEYWORD, FieldType.NUMBER, FieldType.KEYWORD):
        kinds = {"year": kind}
        asked = parse_filter({"year": {"$exists": True}}, kinds)
        assert rows.matching(asked, kinds, 1).tolist() == [kind is FieldType.NUMBER]


def test_rows_that_a_release_covers_are_dropped_with_those_that_died(bench: Bench) -> None:
    rows = new_rows(bench)
    for generation in range(COVERS + 1, COVERS + 11):
        rows.append([changes_of({"n0": (generation, None)})], generation)
    rows.append([changes_of({"n1": None})], COVERS + 11)
    kept = rows.above(COVERS + 5)
    assert kept.ids == ["n0", "n1"]
    assert kept.view.generation == COVERS + 11
    assert kept.floor == COVERS + 5
    assert rows.above(COVERS + 11).ids == []
    assert rows.above(COVERS + 20).view.generation == COVERS + 20


def test_no_question_starts_threads_where_openmp_may_have_several(tmp_path: Path) -> None:
    draw = np.random.default_rng(8)
    vectors = draw.standard_normal((800, 16)).astype(np.float32)
    names = [f"e{number}" for number in range(len(vectors))]
    payload = json.dumps({"genre": "jazz"})
    version = make_snapshot(
        vectors[:300], ids=names[:300], payloads=[payload] * 300, metric=Metric.L2
    )
    parameters = VectorIndexParameters(index="HNSW8", filterable={"genre": "keyword"})
    done = run(VectorIndex(parameters), make_job(tmp_path, version))
    rows = LiveRows(epoch="e", floor=COVERS, dimension=16, metric=Metric.L2)
    later = Entries(
        ids=names[250:], vectors=vectors[250:], texts=[None] * 550, payloads=[payload] * 550
    )
    rows.append([Changes(upserts=later, deletes=["e3"])], COVERS + 1)
    released = ReleasedVectors(
        VectorSearch(done.files), COVERS, min_recall=0.5, sizes=CodeSizes(first=100, step=50)
    )
    assert released.index_rows(rows.view)
    served, query = released.with_changes(rows.view), vectors[700]
    assert served.searched_by != "scan"
    questions: dict[str, Callable[[], Any]] = {
        "nearest": lambda: served.search(query),
        "more than by codes": lambda: served.search(query, k=600),
        "filter": lambda: served.search(query, filter={"genre": "jazz"}),
        "without": lambda: served.search(query, without=["e700"]),
        "groups": lambda: served.search(query, group_by="genre"),
        "diversity": lambda: served.search(query, diversity=0.5),
        "by id": lambda: served.search_by_id("e5"),
        "like": lambda: served.search_like(["e5", "e700"], ["e6"]),
        "many": lambda: served.search_many(vectors[:40]),
        "many with a filter": lambda: served.search_many(vectors[:40], filter={"genre": "jazz"}),
        "neighbours": lambda: served.neighbours(names[:2] + names[700:]),
        "arrays": lambda: served.search_arrays(vectors[:40]),
        "scores": lambda: served.scores_of(query, names),
    }
    teams = {name: team_of(ask) for name, ask in questions.items()}
    assert teams == dict.fromkeys(questions, 0)
    flat = faiss.IndexFlatL2(16)
    flat.add(vectors)
    assert team_of(lambda: flat.search(vectors, 5)) == 2


def team_of(ask: Callable[[], object]) -> int:
    """How many threads a call starts besides Python's, on a thread that may have two more."""

    def threads() -> set[int]:
        own = {each.native_id for each in threading.enumerate()}
        return {int(each.name) for each in Path("/proc/self/task").iterdir()} - own

    def counted() -> int:
        faiss.omp_set_num_threads(3)
        before = threads()
        ask()
        assert faiss.omp_get_max_threads() == 3
        return len(threads() - before)

    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(counted).result()
