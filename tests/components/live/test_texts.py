"""A text index with changes over it: scores compare, and every answer is that of a model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.live import released_of, texts
from indexrelay.components.live.rows import LiveRows
from indexrelay.components.live.texts import LiveTextSearch, ReleasedTexts
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.entries import TextEntries
from indexrelay.components.text_index.search import TextSearch
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Entries
from tests.components.jobs import make_job, make_snapshot, run

COVERS = 1
TEXTS: list[str | None] = [
    "a quiet river in spring",
    "the river bends twice, then the river ends",
    "quiet quiet nights",
    "spring nights by the sea",
    "C++ and rivers of memory",
    "naïve café",
    "...",
    None,
    "東京の川",
    "a longer text about the sea, the spring, the nights and whatever else there is to be told",
]
WORDS = ["river", "quiet", "spring", "sea", "nights", "naive", "川", "unheard", "of the"]
RELEASED = [f"e{place}" for place in range(len(TEXTS))]
NAMES = [*RELEASED, "n0", "n1", "é"]
Model = dict[str, tuple[str | None, int]]
Commit = Mapping[str, tuple[str | None, int] | None]


@dataclass(frozen=True)
class Bench:
    """One version, and the entries that it was built from."""

    index: TextSearch
    analyser: Analyser
    model: Model


@pytest.fixture(scope="module", params=["words", "english", "trigram"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    model: Model = {
        name: (text, place % 3)
        for place, (name, text) in enumerate(zip(RELEASED, TEXTS, strict=True))
    }
    snapshot = make_snapshot(
        np.ones((len(TEXTS), 2), dtype=np.float32),
        ids=RELEASED,
        texts=TEXTS,
        payloads=[json.dumps({"year": year}) for _, year in model.values()],
    )
    kind = TextIndex(TextIndexParameters(tokenizer=request.param, filterable={"year": "number"}))
    done = run(kind, make_job(Path(tmp_path_factory.mktemp("version")), snapshot))
    assert done.failed == []
    index = kind.load(done.files)
    assert index.analyser is not None
    yield Bench(index, index.analyser, model)
    index.close()


def changes_of(commit: Commit) -> Changes:
    kept = {name: each for name, each in commit.items() if each is not None}
    return Changes(
        upserts=Entries(
            ids=list(kept),
            vectors=np.ones((len(kept), 2), dtype=np.float32),
            texts=[text for text, _ in kept.values()],
            payloads=[json.dumps({"year": year}) for _, year in kept.values()],
        ),
        deletes=[name for name, each in commit.items() if each is None],
    )


def over(bench: Bench, *commits: Commit) -> LiveTextSearch:
    rows = LiveRows(epoch="e", floor=COVERS, dimension=2, metric=Metric.COSINE)
    released = ReleasedTexts(bench.index, COVERS, bench.analyser)
    for generation, commit in enumerate(commits, start=COVERS + 1):
        rows.append([changes_of(commit)], generation)
        released.index_rows(rows.view)
    return released.with_changes(rows.view)


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    """Few rows make a block, and few blocks a larger one: that is what most tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", 2)
        patch.setattr(texts, "JOINED", 2)
        yield


def test_a_live_text_has_the_score_that_it_would_have_in_the_version(bench: Bench) -> None:
    copies = {f"n{place}": (text, 0) for place, text in enumerate(TEXTS)}
    served = over(bench, copies)
    for words in ("river", "quiet nights", "spring river sea", "naïve", "川", "C++"):
        plain = {hit.id[1:]: hit.score for hit in bench.index.search(words, k=100)}
        hits = served.search(words, k=100)
        assert {hit.id[1:]: hit.score for hit in hits if hit.id[0] == "e"} == plain
        live = {hit.id[1:]: hit.score for hit in hits if hit.id[0] == "n"}
        assert live == pytest.approx(plain, rel=1e-9)


def test_whole_blocks_of_rows_score_as_single_rows_do(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: Commit = {f"n{place}": (text, 0) for place, text in enumerate(TEXTS)}
    monkeypatch.setattr(texts, "BLOCK", 1000)
    plain = over(bench, copies).search("the river in spring 川 quiet", k=100)
    monkeypatch.setattr(texts, "BLOCK", 3)
    rows = LiveRows(epoch="e", floor=COVERS, dimension=2, metric=Metric.COSINE)
    released = ReleasedTexts(bench.index, COVERS, bench.analyser)
    rows.append([changes_of(copies)], COVERS + 1)
    view = rows.view
    assert released.with_changes(view).search("the river in spring 川 quiet", k=100) == plain
    assert released.index_rows(view)
    assert not released.index_rows(view), "nothing is left to be joined"
    assert released.with_changes(view).search("the river in spring 川 quiet", k=100) == plain
    rows.append([changes_of({f"m{n}": ("a river", 0) for n in range(30)})], COVERS + 2)
    assert released.index_rows(rows.view)
    assert released.with_changes(view).search("the river in spring 川 quiet", k=100) == plain
    later = over(bench, copies, {"n0": None, "n1": ("quiet spring", 1)})
    assert len(later.search("quiet spring", k=100)) > 0
    assert "n0" not in {hit.id for hit in later.search("quiet river", k=100)}


def test_a_term_that_no_text_of_the_version_has_finds_live_rows(bench: Bench) -> None:
    served = over(bench, {"n0": ("something unheard by the river", 0)})
    assert [hit.id for hit in served.search("unheard", k=5)] == ["n0"]
    assert served.search("unheard river", k=5)[0].id == "n0"
    assert served.search("", k=5) == []
    assert served.search("...", k=5) == []


@settings(max_examples=40, deadline=None)
@given(
    commits=st.lists(
        st.dictionaries(
            st.sampled_from(NAMES),
            st.one_of(
                st.none(), st.tuples(st.sampled_from([*TEXTS, "unheard of"]), st.integers(0, 2))
            ),
            max_size=4,
        ),
        max_size=4,
    ),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    year=st.one_of(st.none(), st.integers(0, 2)),
    k=st.integers(1, 15),
    gone=st.lists(st.sampled_from(NAMES), max_size=2),
)
def test_every_answer_is_that_of_a_model(
    bench: Bench, commits: list[Any], words: list[str], year: int | None, k: int, gone: list[str]
) -> None:
    model = dict(bench.model)
    for commit in commits:
        model |= commit
        model = {name: each for name, each in model.items() if each is not None}
    served, query = over(bench, *commits), " ".join(words)
    asked = None if year is None else {"year": year}
    matching = {name for name, each in model.items() if year in (None, each[1])}
    # What a text scores alone in the version, it scores anywhere.
    scores = {hit.id: hit.score for hit in over(bench, dict(model)).search(query, k=100)}
    wanted = sorted(
        (score for name, score in scores.items() if name in matching and name not in gone),
        reverse=True,
    )
    held = {name: score for name, score in scores.items() if name in model}
    assert served.scores_of(query, NAMES) == pytest.approx(held)
    hits = served.search(query, k=k, filter=asked, without=gone)
    assert [hit.score for hit in hits] == pytest.approx(wanted[:k])
    for hit in hits:
        assert hit.id in matching
        assert hit.score == pytest.approx(scores[hit.id])
        assert hit.payload == {"year": model[hit.id][1]}
    assert len(served) == len(model)
    assert served.count(asked) == len(matching)
    assert [each and (each.id, each.text) for each in served.get(NAMES, filter=asked)] == [
        (name, model[name][0]) if name in matching else None for name in NAMES
    ]
    page = served.scroll(asked, limit=100)
    assert [(each.id, each.text) for each in page.entries] == [
        (name, model[name][0]) for name in sorted(matching, key=str.encode)
    ]
    for name in ("e0", "n0"):
        if name in model:
            assert served.text(name) == model[name][0]
        else:
            with pytest.raises(UnknownEntryError):
                served.text(name)


def test_live_entries_are_counted_without_reading_the_texts_that_they_replace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(TextEntries, "get")
    served = over(bench, {"n0": ("river", 1), "e0": None, "e1": ("sea", 2), "e2": ("sea", 2)})
    assert [served.count({"year": year}) for year in (0, 1, 2)] == [3, 3, 4]
    assert served.count() == len(served) == len(RELEASED)


def test_groups_and_explanations_take_live_rows_in(bench: Bench) -> None:
    served = over(bench, {"n0": ("river river", 1), "e0": None})
    hits = served.search("river", k=10, group_by="year")
    assert len({hit.payload["year"] for hit in hits}) == len(hits)
    explanation = served.search("river", filter={"year": 1}, explain=True).explanation
    assert explanation is not None
    assert explanation.layers[-1].name == "live"
    assert explanation.matches == served.count({"year": 1})


def test_what_cannot_be_asked_is_refused_as_by_a_version(bench: Bench) -> None:
    served = over(bench, {"n0": ("river", 1)})
    with pytest.raises(InvalidQueryError, match="a query is a str"):
        served.search(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidFilterError, match="colour"):
        served.search("river", filter={"colour": 1})
    with pytest.raises(InvalidQueryError, match="more than 5 bytes"):
        served.search("river", max_payload_bytes=5)


def test_a_version_from_before_there_was_an_analyser_takes_no_changes() -> None:
    class First:
        analyser = None

    assert released_of("text_index", First(), COVERS) is None
    assert released_of("json_cache", First(), COVERS) is None


def test_what_was_prepared_is_not_cut_again_by_a_query(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = LiveRows(epoch="e", floor=COVERS, dimension=2, metric=Metric.COSINE)
    rows.append([changes_of({"n0": ("river prepared", 0)})], COVERS + 1)
    released = ReleasedTexts(bench.index, COVERS, bench.analyser)
    released.prepare(rows.view)
    monkeypatch.delattr(texts.RowTerms, "of")
    for each in (released, ReleasedTexts(bench.index, COVERS, bench.analyser)):
        hits = each.with_changes(rows.view).search("prepared", k=5)
        assert [hit.id for hit in hits] == ["n0"]


def test_texts_of_rows_that_are_moved_are_not_cut_again_and_others_are_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = LiveRows(epoch="e", floor=COVERS, dimension=2, metric=Metric.COSINE)
    rows.append([changes_of({"n0": ("river", 0), "e1": None})], COVERS + 1)
    rows.append([changes_of({"e0": ("sea", 0), "e2": None})], COVERS + 2)
    ReleasedTexts(bench.index, COVERS, bench.analyser).prepare(rows.view)
    monkeypatch.delattr(texts.RowTerms, "of")
    for moved, found in ((rows.with_room([]), ["n0", "e0"]), (rows.above(COVERS + 1), ["e0"])):
        released = ReleasedTexts(bench.index, moved.floor, bench.analyser)
        weights = bench.index.weights("sea river")
        scores = released.scored(moved.view, weights)
        assert [moved.ids[row] for row in np.flatnonzero(scores).tolist()] == found
        assert len(moved.terms[bench.analyser]) == len(moved.ids)
