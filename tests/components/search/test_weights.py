"""The weights of both halves are what golden queries choose, in a version and by hand."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.golden import GoldenQuery
from indexrelay.components.registry import check_kind
from indexrelay.components.search.kind import WEIGHTS
from indexrelay.components.search.weights import FEWEST, SHARES, LearnedWeights, Learning, learned
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import BlobRef
from tests.components.jobs import Run, as_previous, make_job, run
from tests.components.search.songs import DIMENSION, kind_of, songs
from tests.components.test_golden import file_of

SONGS = songs()
NOISE = np.random.default_rng(1).standard_normal((40, DIMENSION))


def lines(count: int, *, by: str) -> list[dict[str, Any]]:
    """Golden queries that ask for an entry by what only one half can know; the other has noise."""
    found = []
    for number, entry_id in enumerate(SONGS.ids[:count]):
        row = SONGS.rows[entry_id]
        vector = row.vector if by == "vector" else NOISE[number]
        text = row.text if by == "text" else "sea"
        expected = [entry_id]
        if by == "text":  # others have the same words
            words = sorted((row.text or "").split())
            expected = [
                each for each in SONGS.ids if sorted((SONGS.rows[each].text or "").split()) == words
            ]
        found.append({"text": text, "vector": vector.tolist(), "expected": expected})
    return found


def version(folder: Path, *, by: str, count: int = 30, **parameters: Any) -> Run:
    folder.mkdir(parents=True)
    golden = file_of(folder, *lines(count, by=by)).model_dump(mode="json")
    return run(kind_of(golden=golden, **parameters), make_job(folder / "work", SONGS))


@pytest.mark.parametrize("by", ["vector", "text"])
def test_the_half_that_finds_what_is_expected_gets_the_weight(tmp_path: Path, by: str) -> None:
    done = version(tmp_path / "1", by=by)
    assert done.failed == []
    weights = LearnedWeights.model_validate(done.built.details["weights"])
    assert weights.weights[by] > 0.6
    assert weights.vector + weights.text == pytest.approx(1)
    assert weights.ndcg >= max(weights.ndcg_vector, weights.ndcg_text)
    with closing(kind_of().load(done.files)) as search:
        assert search.weights == weights.weights
        query = lines(1, by=by)[0]
        asked = {"vector": query["vector"], "text": query["text"]}
        as_learned = search.search(**asked)
        assert as_learned == search.search(**asked, weights=weights.weights)
        assert as_learned != search.search(**asked, weights={})
    assert done.check("golden_ndcg").measured == pytest.approx(weights.ndcg, abs=0.02)


def test_weights_of_the_settings_win_and_few_queries_choose_none(tmp_path: Path) -> None:
    done = version(tmp_path / "1", by="text", weights={"vector": 2})
    assert WEIGHTS not in done.files
    with closing(kind_of(weights={"vector": 2}).load(done.files)) as search:
        assert search.weights == {"vector": 2.0, "text": 1.0}
    few = version(tmp_path / "2", by="text", count=FEWEST - 1)
    assert WEIGHTS not in few.files
    with closing(kind_of().load(few.files)) as search:
        assert search.weights == {"vector": 1.0, "text": 1.0}


def test_a_small_batch_keeps_the_weights_and_other_queries_choose_others(tmp_path: Path) -> None:
    by_text = file_of(tmp_path, *lines(30, by="text")).model_dump(mode="json")
    job = make_job(tmp_path / "1", SONGS)
    first = run(kind_of(golden=by_text), job)
    following = make_job(tmp_path / "2", SONGS, previous=as_previous(job, first))
    kept = run(kind_of(golden=by_text), following)
    assert isinstance(kept.built.files[WEIGHTS], BlobRef)
    assert kept.built.details["weights"] == first.built.details["weights"]
    by_vector = file_of(tmp_path, *lines(30, by="vector")).model_dump(mode="json")
    other = run(kind_of(golden=by_vector), following)
    assert isinstance(other.built.files[WEIGHTS], Path)
    assert other.built.details["weights"]["vector"] > 0.6
    assert all(
        isinstance(file, BlobRef) for name, file in other.built.files.items() if name != WEIGHTS
    )


def test_shares_are_tried_from_one_half_to_the_other() -> None:
    def shares(query: GoldenQuery) -> dict[str, dict[str, float]]:
        return {"vector": {"a": 1.0, "b": 0.2}, "text": {"b": 1.0, "a": 0.5, "c": 0.9}}

    def known(entry_id: str) -> bool:
        return entry_id != "z"

    queries = [
        GoldenQuery(line=line, grades={wanted: 1}, text="x", vector=np.ones(2, np.float32))
        for line, wanted in enumerate(["a", "b", "z"])
    ]
    learning = Learning.of(queries, k=1, shares=shares, known=known)
    # a: s + (1 - s) / 2; b: 0.2 s + 1 - s; they meet at s = 5 / 13.
    a_first = SHARES > 5 / 13
    np.testing.assert_array_equal(learning.gains, [a_first, ~a_first])
    assert SHARES[learning.best(slice(0, 1))] > 5 / 13 > SHARES[learning.best(slice(1, 2))]
    assert learning.held_out() == 0, "each query would choose against the other"
    assert learned(queries, k=1, golden="", shares=shares, known=known) is None


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-2], lambda text: text.replace('"vector":', '"vector":7')]
)
def test_a_damaged_file_of_weights_is_corrupt(tmp_path: Path, damage: Callable[[str], str]) -> None:
    file = tmp_path / WEIGHTS
    LearnedWeights(
        vector=0.25,
        text=0.75,
        golden="x",
        k=10,
        queries=20,
        ndcg=0.5,
        ndcg_held_out=0.5,
        ndcg_vector=0.1,
        ndcg_text=0.5,
    ).save(file)
    file.write_text(damage(file.read_text()))
    with pytest.raises(CorruptFileError):
        LearnedWeights.load(file)


def test_weights_of_which_none_counts_are_a_mistake() -> None:
    definition = ComponentDefinition.of("search", "songs", weights={"vector": 0, "text": 0})
    (mistake,) = check_kind("find", definition)
    assert "one of them must be above 0" in str(mistake)
