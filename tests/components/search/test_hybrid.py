"""Searching by vector and text at once, held against a fusion that is computed here."""

import copy
import json
import math
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from indexrelay.components.errors import (
    ClosedVersionError,
    InvalidQueryError,
    RerankFunctionError,
    UnknownEntryError,
)
from indexrelay.components.functions import OverdueError, TimedCalls
from indexrelay.components.registry import served
from indexrelay.components.search import ArmHit, HybridHit, HybridQuery, HybridSearch
from indexrelay.components.served import Hit
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.schemas.settings import Metric
from tests.components.changing_collection import WORDS as CHANGING_WORDS
from tests.components.changing_collection import ChangingCollection
from tests.components.jobs import Run
from tests.components.search.songs import DIMENSION, WORDS, kind_of, opened, songs

SONGS = songs()


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HybridSearch]:
    search = opened(tmp_path_factory.mktemp("search"), SONGS)
    yield search
    search.close()


def fused_by_hand(
    search: HybridSearch, vector: Any, text: str, *, weights: tuple[float, float], rrf_k: float
) -> dict[str, float]:
    """The score of every entry, from the whole rankings of both halves."""
    scores: dict[str, float] = {}
    for weight, hits in (
        (weights[0], search.by_vector.search(vector, k=len(search))),
        (weights[1], search.by_text.search(text, k=len(search))),
    ):
        if weight:
            for rank, hit in enumerate(hits, 1):
                scores[hit.id] = scores.get(hit.id, 0.0) + weight / (rrf_k + rank)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    k=st.integers(1, 20),
    weights=st.sampled_from([(1, 1), (2, 1), (0.3, 1), (1, 0), (0, 1)]),
    rrf_k=st.sampled_from([0, 1, 60]),
)
def test_the_answer_is_the_fusion_of_both_rankings(
    search: HybridSearch,
    seed: int,
    words: list[str],
    k: int,
    weights: tuple[float, float],
    rrf_k: float,
) -> None:
    vector, text = np.random.default_rng(seed).standard_normal(DIMENSION), " ".join(words)
    hits = search.search(
        vector=vector,
        text=text,
        k=k,
        weights={"vector": weights[0], "text": weights[1]},
        rrf_k=rrf_k,
    )
    if 0 in weights:
        alone = search.search(vector=vector, k=k) if weights[0] else search.search(text=text, k=k)
        assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in alone]
        return
    # There are 200 entries, and each half gave at least 100: what is deeper in one of them adds at
    # most its weight / (rrf_k + 101) to the fused score.
    exact = fused_by_hand(search, vector, text, weights=weights, rrf_k=rrf_k)
    missed = max(weights) / (rrf_k + 101)
    for hit in hits:
        assert hit.score == pytest.approx(hit.fused)
        assert exact[hit.id] - missed <= hit.score + 1e-12
        assert hit.score <= exact[hit.id] + 1e-12
        if len(hit.arms) == 2:
            assert hit.score == pytest.approx(exact[hit.id])
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    best = sorted(exact.values(), reverse=True)[:k]
    assert all(hit.score >= score - missed for hit, score in zip(hits, best, strict=True))


def fused_scores_by_hand(
    search: HybridSearch, vector: Any, text: str, *, share: float, among: set[str]
) -> dict[str, float]:
    """Of ``among``: ``share`` of the closeness, and the rest of BM25 in units of a rare word."""
    near = {hit.id: hit.score for hit in search.by_vector.search(vector, k=200) if hit.id in among}
    words = {hit.id: hit.score for hit in search.by_text.search(text, k=200) if hit.id in among}
    if search.by_vector.metric is Metric.L2:
        farthest, nearest = max(near.values(), default=0), min(near.values(), default=0)
        near = {each: (farthest - score) / (farthest - nearest) for each, score in near.items()}
    rare = 2.2 * math.log((search.by_text.findable - 1 + 0.5) / (1 + 0.5))
    return {each: share * near[each] + (1 - share) * words.get(each, 0.0) / rare for each in among}


def test_scores_are_fused_unless_ranks_are_asked_for(search: HybridSearch) -> None:
    vector = SONGS.rows["e000007"].vector
    found = [search.by_vector.search(vector, k=100), search.by_text.search("moon river", k=100)]
    among = {hit.id for hits in found for hit in hits}
    assert 100 < len(among) < 200
    scores = fused_scores_by_hand(search, vector, "moon river", share=0.75, among=among)
    hits = search.search(vector=vector, text="moon river", weights={"vector": 3}, k=20)
    expected = sorted(scores, key=lambda entry_id: -scores[entry_id])[:20]
    assert [hit.id for hit in hits] == expected
    assert [hit.score for hit in hits] == pytest.approx([scores[name] for name in expected])
    ranks = search.search(vector=vector, text="moon river", fusion="ranks", k=20)
    assert ranks[0].score == pytest.approx(
        sum(1 / (60 + (arm.rank or 0)) for arm in ranks[0].arms.values())
    )


def test_distances_are_scaled_between_the_nearest_and_the_farthest(tmp_path: Path) -> None:
    vector = SONGS.rows["e000007"].vector
    with closing(opened(tmp_path, songs(metric=Metric.L2))) as search:
        hits = search.search(vector=vector, text="moon", k=200)
        among = {hit.id for hit in hits}
        scores = fused_scores_by_hand(search, vector, "moon", share=0.5, among=among)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(scores, abs=1e-5)


def test_what_only_one_half_found_has_the_score_of_the_other_too(search: HybridSearch) -> None:
    vector = SONGS.rows["e000007"].vector
    far = {hit.id: hit.score for hit in search.by_vector.search(vector, k=200)}
    words = {hit.id: hit.score for hit in search.by_text.search("moon river", k=200)}
    hits = search.search(vector=vector, text="moon river", k=150)
    beyond = 0
    for hit in hits:
        assert hit.arms["vector"].score == pytest.approx(far[hit.id], rel=1e-5)
        assert ("text" in hit.arms) == (hit.id in words)
        if hit.id in words:
            assert hit.arms["text"].score == pytest.approx(words[hit.id])
        beyond += sum(arm.rank is None for arm in hit.arms.values())
    assert beyond, "some are beyond the depth of one half"


FILTERS: list[Any] = [
    None,
    {"artist": "Ada"},
    {"n": {"$gte": 20, "$lt": 60}},
    {"$or": [{"artist": {"$in": ["Bo", "Cy"]}}, {"n": {"$lt": 10}}]},
    {"$not": {"artist": {"$ne": "Di"}}},
    {"artist": "nobody"},
]


def matches(entry_id: str, asked: Any) -> bool:
    """The filters above, by hand."""
    payload = json.loads(SONGS.rows[entry_id].payload or "")
    found: list[bool] = [
        True,
        payload["artist"] == "Ada",
        20 <= payload["n"] < 60,
        payload["artist"] in ("Bo", "Cy") or payload["n"] < 10,
        payload["artist"] == "Di",
        False,
    ]
    return found[FILTERS.index(asked)]


@settings(max_examples=40, deadline=None)
@given(
    asked=st.sampled_from(FILTERS),
    without=st.lists(st.sampled_from(SONGS.ids), max_size=5),
    seed=st.integers(0, 100),
    word=st.sampled_from(WORDS),
    fusion=st.sampled_from(["ranks", "scores"]),
)
def test_a_filtered_answer_is_the_fusion_of_what_matches_in_both_halves(
    search: HybridSearch, asked: Any, without: list[str], seed: int, word: str, fusion: Any
) -> None:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    found = search.search(
        vector=vector, text=word, filter=asked, without=without, fusion=fusion, k=200
    )
    may_be = {each for each in SONGS.ids if matches(each, asked)} - set(without)
    assert {hit.id for hit in found} == may_be, "the vectors rank every entry"
    if fusion == "scores":
        by_hand = fused_scores_by_hand(search, vector, word, share=0.5, among=may_be)
    else:
        by_hand = {}
        for whole in (search.by_vector.search(vector, k=200), search.by_text.search(word, k=200)):
            for rank, hit in enumerate((hit for hit in whole if hit.id in may_be), 1):
                by_hand[hit.id] = by_hand.get(hit.id, 0.0) + 1 / (60 + rank)
    assert {hit.id: hit.score for hit in found} == pytest.approx(by_hand, abs=1e-5)


def test_an_explanation_tells_of_each_half_and_of_what_came_after(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    asked: dict[str, Any] = {"vector": vector, "text": "sea blue", "filter": {"artist": "Ada"}}
    hits = search.search(**asked, k=3, rerank=lambda _, found: range(len(found)), explain=True)
    explained = hits.explanation
    assert explained is not None
    assert explained.plan == "hybrid"
    assert [stage.name for stage in explained.stages] == [
        "vector",
        "text",
        "scores",
        "fusion",
        "texts",
        "rerank",
    ]
    assert {arm: each.plan for arm, each in explained.arms.items()} == {
        "vector": "exact",
        "text": "exact",
    }
    assert explained.arms["vector"].matches == 50
    grouped = search.search(**asked, k=3, group_by="n", explain=True).explanation
    assert grouped is not None
    assert [stage.name for stage in grouped.stages][-1] == "all rounds"
    alone = search.search(text="sea", explain=True).explanation
    assert alone is not None
    assert alone.layers[0].how == "bm25"
    assert search.search(**asked).explanation is None


def test_payloads_of_the_hits_have_a_limit_and_those_of_other_candidates_do_not_count(
    search: HybridSearch,
) -> None:
    vector = SONGS.rows["e000004"].vector
    asked: dict[str, Any] = {"vector": vector, "text": "sea", "k": 3}
    size = sum(len(hit.payload_json or b"") for hit in search.search(**asked))
    assert len(search.search(**asked, max_payload_bytes=size)) == 3
    further: list[dict[str, Any]] = [{}, {"diversity": 0.0}]
    for more in further:
        with pytest.raises(InvalidQueryError, match="have more than"):
            search.search(**asked, **more, max_payload_bytes=size - 1)


def test_entries_are_given_with_their_texts_and_counted_and_listed(search: HybridSearch) -> None:
    (song, nobody) = search.get(["e000004", "nobody"])
    assert song is not None
    assert (song.text, song.payload["n"], nobody) == (SONGS.rows["e000004"].text, 4, None)
    assert search.count({"artist": "Ada"}) == 50
    page = search.scroll({"artist": "Ada"}, limit=2)
    assert [entry.id for entry in page.entries] == ["e000000", "e000004"]
    assert page.after == "e000004"


def test_examples_and_neighbours_are_found_by_the_vectors(search: HybridSearch) -> None:
    alike = search.search_like(like=["e000001"], unlike=["e000002"], k=4, group_by="artist")
    theirs = search.by_vector.search_like(["e000001"], ["e000002"], k=4, group_by="artist")
    assert [(hit.id, hit.score) for hit in alike] == [(hit.id, hit.score) for hit in theirs]
    assert len({hit.payload["artist"] for hit in alike}) == 4
    near = search.neighbours(["e000001", "e000009"], k=3, filter={"artist": "Bo"})
    assert {hit.payload["artist"] for hits in near.values() for hit in hits} == {"Bo"}
    assert [hit.arms["vector"].rank for hit in near["e000009"]] == [1, 2, 3]


def test_one_half_alone_looks_behind_the_groups_that_are_full(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    for asked in ({"vector": vector}, {"text": "sea blue"}):
        hits = search.search(**asked, k=4, group_by="artist", explain=True)
        assert {hit.payload["artist"] for hit in hits} == {"Ada", "Bo", "Cy", "Di"}
        (arm,) = asked
        whole = search.search(**asked, k=200)
        firsts: dict[str, str] = {}
        for hit in whole:
            firsts.setdefault(hit.payload["artist"], hit.id)
        assert [hit.id for hit in hits] == list(firsts.values())
        assert [hit.arms[arm].rank for hit in hits] == [1, 2, 3, 4]


def test_many_vectors_are_answered_as_each_is(search: HybridSearch) -> None:
    vectors = np.array([SONGS.rows[each].vector for each in SONGS.ids[:3]])
    each = [search.search(vector=vector, k=4) for vector in vectors]
    many = search.search_many(vectors, k=4)
    assert [[hit.id for hit in hits] for hits in many] == [[hit.id for hit in one] for one in each]
    ids, scores = search.search_arrays(vectors, k=4)
    assert ids.tolist() == [[hit.id for hit in hits] for hits in many]
    assert scores.shape == (3, 4)


def test_a_hit_says_where_each_half_found_it(search: HybridSearch) -> None:
    vector = SONGS.rows["e000007"].vector
    by_vector = search.by_vector.search(vector, k=100)
    by_text = search.by_text.search("moon river", k=100)
    hits = search.search(vector=vector, text="moon river", k=20)
    for name, ranking in (("vector", by_vector), ("text", by_text)):
        places = {hit.id: ArmHit(rank, hit.score) for rank, hit in enumerate(ranking, 1)}
        found = {hit.id: hit.arms[name] for hit in hits if name in hit.arms}
        assert {each: arm for each, arm in found.items() if arm.rank} == {
            hit.id: places[hit.id] for hit in hits if hit.id in places
        }
    assert all(hit.payload == json.loads(SONGS.rows[hit.id].payload or "") for hit in hits)


def test_a_hit_is_copied_and_pickled_with_what_it_says(search: HybridSearch) -> None:
    hit = search.search(vector=SONGS.rows["e000007"].vector, text="sea", k=1)[0]
    for other in (copy.copy(hit), pickle.loads(pickle.dumps(hit))):  # noqa: S301 - its own
        assert other == hit
        assert (other.arms, other.fused) == (hit.arms, hit.fused)
        assert repr(other) == repr(hit)
    assert json.loads(hit.payload_json or b"") == hit.payload


def test_an_entry_that_both_halves_like_comes_before_the_best_of_one(search: HybridSearch) -> None:
    vector = SONGS.rows["e000000"].vector
    best = search.search(vector=vector, text=SONGS.rows["e000000"].text, k=1)[0]
    assert best.id == "e000000"
    assert set(best.arms) == {"vector", "text"}


@pytest.mark.parametrize("k", [1, 3, 20])
def test_fewer_hits_are_the_first_of_more(search: HybridSearch, k: int) -> None:
    vector = SONGS.rows["e000011"].vector
    more = search.search(vector=vector, text="blue sea", k=20)
    fewer = search.search(vector=vector, text="blue sea", k=k)
    assert fewer == more[:k]


def test_a_vector_alone_and_a_text_alone_are_answered_by_their_half(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    for hits, arm, alone in (
        (search.search(vector=vector, k=5), "vector", search.by_vector.search(vector, k=5)),
        (search.search(text="fire road", k=5), "text", search.by_text.search("fire road", k=5)),
    ):
        assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in alone]
        assert [hit.arms[arm].rank for hit in hits] == [1, 2, 3, 4, 5]
        assert [hit.fused for hit in hits] == [None] * 5


def test_a_text_that_finds_nothing_leaves_the_order_of_the_vectors(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    hits = search.search(vector=vector, text="zzz", k=10)
    assert [hit.id for hit in hits] == [hit.id for hit in search.by_vector.search(vector, k=10)]


def test_more_hits_than_entries_are_all_entries(search: HybridSearch) -> None:
    hits = search.search(vector=SONGS.rows["e000004"].vector, text="sea", k=1000)
    assert sorted(hit.id for hit in hits) == SONGS.ids


def test_an_entry_is_searched_by_its_id(search: HybridSearch) -> None:
    hits = search.search_by_id("e000004", k=3)
    assert [hit.id for hit in hits] == [
        hit.id for hit in search.by_vector.search_by_id("e000004", k=3)
    ]
    with pytest.raises(UnknownEntryError):
        search.search_by_id("nobody")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give a vector, a text, or both"),
        ({"vector": "sea"}, r"a text is given by name: search\(text=…\)"),
        ({"vector": [1.0]}, r"has the shape \(8,\), not \(1,\)"),
        ({"vector": [[1.0], []]}, "a query is an array of numbers"),
        ({"text": 3}, "a query is a str, not int"),
        ({"text": "sea", "k": 0}, "k is a whole number and at least 1"),
        ({"text": "sea", "weights": {"words": 1}}, "weights has 'words'; there are vector and"),
        ({"text": "sea", "weights": {"text": -1}}, "is a finite number from 0, not -1"),
        ({"text": "sea", "weights": {"text": float("nan")}}, "is a finite number from 0, not nan"),
        ({"text": "sea", "weights": {"text": 0}}, "the weight of text is 0: nothing is left"),
        ({"text": "sea", "weights": [1, 2]}, "weights are a dict"),
        ({"text": "sea", "rrf_k": -1}, "rrf_k is a finite number from 0, not -1"),
        ({"text": "sea", "fusion": "sum"}, "fusion is ranks or scores, not 'sum'"),
        ({"text": "sea", "rerank": "best"}, "rerank is a function, or False, not 'best'"),
        ({"text": "sea", "per_group": 2}, "per_group goes with group_by"),
        ({"text": "sea", "group_by": "artist", "per_group": 0}, "per_group is a whole number"),
        ({"text": "sea", "group_by": "tags"}, "tags holds lists of keywords"),
        ({"text": "sea", "diversity": 1.5}, "diversity is a number from 0 to 1, not 1.5"),
        ({"text": "sea", "diversity": True}, "diversity is a number from 0 to 1, not True"),
    ],
)
def test_a_query_that_cannot_be_answered_says_what_would_be_right(
    search: HybridSearch, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        search.search(**arguments)


def by_number(query: HybridQuery, hits: Sequence[HybridHit]) -> list[float]:
    """The last songs first; and the query is what was asked."""
    assert query.text == "sea"
    assert query.vector is not None
    return [hit.payload["n"] for hit in hits]


def test_a_function_of_the_settings_scores_the_best_hits_again(tmp_path: Path) -> None:
    name = f"{__name__}:by_number"
    vector = SONGS.rows["e000004"].vector
    with closing(opened(tmp_path, SONGS, rerank=name, rerank_hits=30)) as search:
        fused = search.search(vector=vector, text="sea", k=30, rerank=False)
        hits = search.search(vector=vector, text="sea", k=5)
    best = sorted((hit.payload["n"] for hit in fused), reverse=True)[:5]
    assert [hit.score for hit in hits] == best
    assert [hit.id for hit in hits] == [f"e{number:06d}" for number in best]
    assert all(hit.fused == {each.id: each.fused for each in fused}[hit.id] for hit in hits)


def test_a_function_of_the_query_scores_them_again(search: HybridSearch) -> None:
    asked: list[int] = []

    def backwards(_: HybridQuery, hits: Sequence[HybridHit]) -> Sequence[float]:
        asked.append(len(hits))
        return list(range(len(hits)))

    hits = search.search(text="sea blue", k=3, rerank=backwards)
    everything = search.search(text="sea blue", k=50)
    assert asked == [50]
    assert [hit.id for hit in hits] == [hit.id for hit in reversed(everything)][:3]


def test_a_function_may_give_an_order_by_what_it_sees_of_each_hit(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    seen: list[HybridHit] = []

    def by_text(_: HybridQuery, hits: Sequence[HybridHit]) -> list[str]:
        seen.extend(hits)
        return sorted((hit.id for hit in hits if "sea" in (hit.text or "")), reverse=True)

    hits = search.search(vector=vector, text="sea", k=10, rerank=by_text)
    assert {hit.id: hit.text for hit in seen} == {hit.id: SONGS.rows[hit.id].text for hit in seen}
    assert all(hit.arms and hit.fused and hit.payload for hit in seen)
    expected = sorted((hit.id for hit in seen if "sea" in (hit.text or "")), reverse=True)[:10]
    assert [hit.id for hit in hits] == expected
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda _, hits: [1.0] * (len(hits) - 1), "it gave 49 scores for 50 hits"),
        (lambda *_: [], "it gave 0 scores for 50 hits"),
        (
            lambda _, hits: [0.5, float("nan")] * (len(hits) // 2),
            "it gave nan as the score of hit 1, which is no finite number",
        ),
        (lambda _, hits: [(hit.id, 1.0) for hit in hits], r"it gave \('e\d+', 1.0\) as the score"),
        (lambda _, hits: [1.0, *(hit.id for hit in hits[1:])], "it gave 'e.*' as the score of hit"),
        (lambda _, hits: {hit.id: 1.0 for hit in hits}, "it gave a dict: return a list, with a"),
        (lambda _, hits: (1.0 for _ in hits), "it gave a generator: return a list"),
        (lambda _, hits: np.zeros((len(hits), 1)), r"it gave an array of the shape \(50, 1\)"),
        (lambda _, hits: hits[0].payload["missing"], "it raised KeyError: 'missing'"),
        (lambda *_: sys.exit(3), "it raised SystemExit: 3"),
        (lambda *_: None, "it gave nothing: return a list"),
        (lambda *_: 1.0, "it gave a float: return a list"),
        (lambda _, hits: [hits[0].id, "nowhere"], "it gave 'nowhere', which is none of the hits"),
        (lambda _, hits: [hits[0].id] * 2, "it gave an id twice"),
    ],
)
def test_a_function_that_gives_no_scores_is_named(
    search: HybridSearch, scores: Any, said: str
) -> None:
    with pytest.raises(RerankFunctionError, match=said):
        search.search(text="sea blue", rerank=scores)


def test_a_function_that_takes_too_long_leaves_the_order_without_it(tmp_path: Path) -> None:
    vector = SONGS.rows["e000004"].vector
    begun, may_end, ended = Event(), Event(), Event()
    late: list[HybridHit] = []

    def hangs(_: HybridQuery, hits: Sequence[HybridHit]) -> list[float]:
        begun.set()
        may_end.wait()
        late.extend(hits)
        for hit in hits:
            hit.score = -1.0
        ended.set()
        return [0.0] * len(hits)

    with closing(opened(tmp_path, SONGS, rerank_seconds=1e-9)) as search:
        asked: dict[str, Any] = {"vector": vector, "text": "sea", "k": 5}
        expected = search.search(**asked, rerank=False)
        while not begun.is_set():  # one that waits for a thread for so long is not begun
            hits = search.search(**asked, rerank=hangs, explain=True)
        grouped = search.search(**asked, rerank=hangs, group_by="artist")
        may_end.set()
        assert ended.wait(60)
    assert hits == expected
    assert [hit.score for hit in hits] == [hit.score for hit in expected], "late hits are others"
    assert {hit.id for hit in hits} <= {hit.id for hit in late}
    assert hits.degraded is not None
    assert hits.degraded.endswith(
        "hangs took longer than 1e-09 s (rerank_seconds): the order is the one without it"
    )
    assert grouped.degraded == hits.degraded
    assert expected.degraded is None
    assert hits.explanation is not None
    assert "rerank" in [stage.name for stage in hits.explanation.stages]


def test_a_search_of_several_rounds_gives_a_function_its_time_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def call(_: TimedCalls, function: Any, *arguments: Any, seconds: float) -> Any:
        waits.append(seconds)
        if len(waits) == 2:
            raise OverdueError
        return function(*arguments)

    def even(_: HybridQuery, hits: Sequence[HybridHit]) -> list[float]:
        return [1.0] * len(hits)

    monkeypatch.setattr(TimedCalls, "call", call)
    asked: dict[str, Any] = {"vector": SONGS.rows["e000004"].vector, "text": "sea"}
    with closing(opened(tmp_path, SONGS, rerank_hits=1, rerank_seconds=60)) as search:
        hits = search.search(**asked, k=5, group_by="artist", rerank=even)
    assert len(waits) == 2
    assert waits[1] < waits[0] == 60
    assert hits.degraded is not None


def test_each_group_has_so_many_places(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector
    hits = search.search(vector=vector, text="sea", k=4, group_by="artist", per_group=1)
    assert {hit.payload["artist"] for hit in hits} == {"Ada", "Bo", "Cy", "Di"}
    everything = search.search(vector=vector, text="sea", k=200)
    firsts: dict[str, str] = {}
    for hit in everything:
        firsts.setdefault(hit.payload["artist"], hit.id)
    assert hits[0].id in firsts.values()
    more = search.search(vector=vector, text="sea", k=10, group_by="artist", per_group=2)
    assert len(more) == 8, "all entries were looked at, and no artist has more places"


def test_a_field_that_is_not_declared_is_no_group(search: HybridSearch) -> None:
    with pytest.raises(InvalidFilterError, match="'title' is no filterable field; there are"):
        search.search(text="sea", group_by="title")


def test_diverse_hits_are_less_alike(search: HybridSearch) -> None:
    vector = SONGS.rows["e000004"].vector

    def alike(hits: Sequence[Hit]) -> float:
        vectors = np.array([search.by_vector.vector(hit.id) for hit in hits])
        similar = vectors @ vectors.T
        return float(similar[~np.eye(len(hits), dtype=bool)].mean())

    plain = search.search(vector=vector, text="sea", k=8)
    same = search.search(vector=vector, text="sea", k=8, diversity=0.0)
    diverse = search.search(vector=vector, text="sea", k=8, diversity=0.7)
    assert [hit.id for hit in same] == [hit.id for hit in plain]
    assert diverse[0].id == plain[0].id, "the first is always the best"
    assert alike(diverse) < alike(plain) - 0.1


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    search = opened(tmp_path, SONGS)
    served(kind_of(), search).close()
    with pytest.raises(ClosedVersionError):
        search.search(text="sea")


def test_an_empty_collection_finds_nothing(tmp_path: Path) -> None:
    empty = SONGS.commit(deletes=SONGS.ids)
    with closing(opened(tmp_path, empty)) as search:
        assert search.search(vector=np.ones(DIMENSION), text="sea") == []
        assert search.search(text="sea", group_by="artist") == []
        assert len(search) == 0
        assert search


class Changing(ChangingCollection):
    """After any changes a continued version answers as one that was built from scratch."""

    kind = kind_of()

    def compare(self, done: Run) -> None:
        continued = self.kind.load(done.files)
        whole = self.kind.load(self.built_in_full().files)
        assert len(continued) == len(whole) == self.snapshot.count
        for word in CHANGING_WORDS:
            vector = self.rng.standard_normal(3)
            for arguments in (
                {"vector": vector, "text": word},
                {"text": word},
                {"vector": vector, "text": word, "group_by": "n", "diversity": 0.5},
            ):
                ours = continued.search(k=5, **arguments)
                theirs = whole.search(k=5, **arguments)
                assert [hit.id for hit in ours] == [hit.id for hit in theirs]
                assert [hit.payload for hit in ours] == [hit.payload for hit in theirs]
        continued.close()
        whole.close()


def test_a_continued_version_answers_as_one_from_scratch() -> None:
    run_state_machine_as_test(
        Changing, settings=settings(max_examples=10, stateful_step_count=12, deadline=None)
    )
