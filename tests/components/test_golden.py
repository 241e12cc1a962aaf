"""Golden queries: their file, their figures, and how they judge a version."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.golden import (
    HIT_RATE,
    KNOWN,
    MAX_QUERIES,
    NDCG,
    GoldenFileError,
    GoldenParameters,
    GoldenQuery,
    golden_gates,
    hits,
    ndcg,
    read_golden,
)
from indexrelay.components.kind import READ_FILES, Kind
from indexrelay.components.registry import check_kind, trial_of
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.parameter_files import FileChangedError, ParameterFile
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from indexrelay.schemas.versions import Check
from tests.components.jobs import as_previous, clustered, make_job, make_snapshot, run

ANY_FORM = frozenset({"text", "vector", "id"})


def file_of(folder: Path, *lines: Any, name: str = "queries.jsonl") -> ParameterFile:
    """A file with these lines: text as it is, everything else as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return ParameterFile.at(folder, name)


def test_ndcg_is_that_of_jarvelin_and_kekalainen_with_an_exponential_gain() -> None:
    grades = {"a": 3.0, "b": 2.0, "c": 1.0}
    best = 7 / math.log2(2) + 3 / math.log2(3) + 1 / math.log2(4)
    found = 3 / math.log2(2) + 7 / math.log2(4)
    assert ndcg(["b", "x", "a"], grades, k=10) == pytest.approx(found / best)
    assert ndcg(["a", "b", "c"], grades, k=10) == 1.0
    assert ndcg(["a"], grades, k=1) == 1.0
    assert ndcg(["x", "y"], grades, k=10) == 0.0


def test_a_hit_beyond_k_counts_for_nothing() -> None:
    assert ndcg(["x", "a"], {"a": 1.0}, k=1) == 0.0
    assert ndcg(["x", "a"], {"a": 1.0}, k=2) == pytest.approx(1 / math.log2(3))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    grades=st.dictionaries(
        st.sampled_from("abcdefgh"), st.integers(0, 5).map(float), min_size=1
    ).filter(lambda grades: any(grades.values())),
    found=st.permutations("abcdefghij"),
    k=st.integers(1, 12),
)
def test_ndcg_lies_between_0_and_1_and_only_the_best_order_reaches_1(
    grades: dict[str, float], found: list[str], k: int
) -> None:
    measured = ndcg(found, grades, k=k)
    assert 0 <= measured <= 1 + 1e-12
    best = sorted(grades, key=lambda each: -grades[each])
    assert ndcg(best, grades, k=k) == pytest.approx(1)
    gains = [grades.get(each, 0) for each in found[:k]]
    ideal = sorted(grades.values(), reverse=True)[:k]
    is_best = gains[: len(ideal)] == ideal and not any(gains[len(ideal) :])
    assert (measured == pytest.approx(1, abs=1e-12)) == is_best
    assert (measured > 0) == hits(found[:k], grades)


def test_a_line_is_asked_by_what_it_gives_and_expects_ids_or_grades(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        {"text": "read a csv file", "expected": ["csv", "pandas"]},
        "",
        {"vector": [1, 2.5], "expected": {"a": 3, "b": 0}},
        {"id": "a", "expected": ["b"]},
    )
    text, vector, like = read_golden(file, forms=ANY_FORM)
    assert (text.line, text.form, text.grades) == (1, "text", {"csv": 1.0, "pandas": 1.0})
    assert (vector.line, vector.form, vector.grades) == (3, "vector", {"a": 3.0, "b": 0.0})
    assert vector.vector is not None
    np.testing.assert_array_equal(vector.vector, np.array([1, 2.5], dtype=np.float32))
    assert (like.line, like.form, like.id) == (4, "id", "a")


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "expected": ["b"]}\r\n\r\n{"id": "b", "expected": ["a"]}'
    )
    asked = read_golden(ParameterFile.at(tmp_path, path.name), forms=ANY_FORM)
    assert [(each.line, each.id) for each in asked] == [(1, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "must be an object"),
        ({"text": "a"}, 'lacks "expected"'),
        ({"text": "a", "expected": ["b"], "grade": 1}, "has no key 'grade'"),
        ({"expected": ["b"]}, "is asked by nothing"),
        ({"text": "a", "id": "b", "expected": ["c"]}, r"is asked by text\+id"),
        ({"text": " ", "expected": ["b"]}, "text must be a text that is not empty"),
        ({"id": 7, "expected": ["b"]}, "id must be a text"),
        ('{"text": "\\ud800", "expected": ["b"]}', "half of a character"),
        ({"text": "a", "expected": []}, "expected must name an id"),
        ({"text": "a", "expected": {"b": 0}}, "with a grade above 0"),
        ({"text": "a", "expected": {"b": -1}}, "the grade of 'b' must be a number from 0 to 20"),
        ({"text": "a", "expected": {"b": True}}, "the grade of 'b'"),
        ({"text": "a", "expected": {"b": 21}}, "the grade of 'b'"),
        ('{"text": "a", "expected": {"b": NaN}}', "holds NaN"),
        ('{"text": "a", "expected": {"b": 1, "b": 2}}', "gives 'b' twice"),
        ({"text": "a", "expected": ["b", "b"]}, "names an id twice"),
        ({"text": "a", "expected": "b"}, "a list of ids, or an object"),
        ({"text": "a", "expected": [["b"]]}, "each a text"),
        ({"text": "a", "expected": [str(n) for n in range(1001)]}, "more than 1,000 ids"),
        ({"vector": [], "expected": ["b"]}, "vector must be a list of numbers"),
        ({"vector": ["1"], "expected": ["b"]}, "vector must be a list of numbers"),
        ({"vector": [True], "expected": ["b"]}, "vector must be a list of numbers"),
        ({"vector": [1e300], "expected": ["b"]}, "float32 does not reach"),
        ({"vector": [10**400], "expected": ["b"]}, "float32 does not reach"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, line: Any, mistake: str) -> None:
    file = file_of(tmp_path, {"id": "a", "expected": ["b"]}, line)
    with pytest.raises(GoldenFileError, match=rf"^queries\.jsonl: line 2: .*{mistake}"):
        read_golden(file, forms=ANY_FORM)


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'{"id": "a", "expected": ["b"]}\n{"id": "\xff", "expected": ["b"]}')
    with pytest.raises(GoldenFileError, match="line 2: is not UTF-8"):
        read_golden(ParameterFile.at(tmp_path, path.name), forms=ANY_FORM)


def test_some_mistakes_are_named_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(GoldenFileError, match=r"line 1: .*; line 5: .*; and 2 more$"):
        read_golden(file_of(tmp_path, *["{}"] * 7), forms=ANY_FORM)


def test_a_file_has_a_query_and_not_too_many(tmp_path: Path) -> None:
    with pytest.raises(GoldenFileError, match="there are no queries in it"):
        read_golden(file_of(tmp_path, "", " "), forms=ANY_FORM)
    line = json.dumps({"id": "a", "expected": ["b"]})
    assert len(read_golden(file_of(tmp_path, *[line] * MAX_QUERIES), forms=ANY_FORM)) == MAX_QUERIES
    with pytest.raises(GoldenFileError, match="line 10001: there are more than 10,000 queries"):
        read_golden(file_of(tmp_path, *[line] * (MAX_QUERIES + 1)), forms=ANY_FORM)


def test_content_that_changed_after_the_settings_were_read_is_not_used(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"id": "a", "expected": ["b"]})
    file_of(tmp_path, {"id": "a", "expected": ["c"]})
    with pytest.raises(FileChangedError, match=r"queries\.jsonl has changed since"):
        read_golden(file, forms=ANY_FORM)


class Shelf:
    """Answers by a dict; what is not in it finds nothing, and an empty question is refused."""

    def __init__(self, answers: dict[str, Sequence[str]], *ids: str) -> None:
        self.answers = answers
        self.ids = ids
        self.asked: list[tuple[str | None, int]] = []
        self.closed = 0

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.ids

    def close(self) -> None:
        self.closed += 1

    def ask(self, query: GoldenQuery, k: int) -> Iterable[str]:
        self.asked.append((query.text, k))
        if query.text == "!":
            raise InvalidQueryError("there is no word in it")
        return list(self.answers.get(query.text or "", ()))[:k]


def judged(
    shelf: Shelf, file: ParameterFile, *, gates: Sequence[Check] = (), **keys: Any
) -> dict[str, Check]:
    parameters = ByText.model_validate({"golden": file, **keys})
    checks = golden_gates(
        gates, parameters, load=lambda: shelf, ask=lambda served, query, k: served.ask(query, k)
    )
    return {check.name: check for check in checks}


class ByText(GoldenParameters):
    golden_by = frozenset({"text"})


def test_both_figures_are_means_over_the_queries(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        {"text": "first", "expected": ["a"]},
        {"text": "second", "expected": ["a"]},
        {"text": "nothing", "expected": ["a"]},
    )
    shelf = Shelf({"first": "abc", "second": "bac"}, *"abc")
    checks = judged(shelf, file)
    assert checks[HIT_RATE].measured == pytest.approx(2 / 3)
    assert checks[NDCG].measured == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert checks[KNOWN].measured == 1
    assert [(check.passed, check.limit) for check in checks.values()] == [(True, None)] * 3
    assert shelf.asked == [("first", 10), ("second", 10), ("nothing", 10)]
    assert shelf.closed == 1


def test_k_is_that_of_the_parameters(tmp_path: Path) -> None:
    shelf = Shelf({"q": "bca"}, *"abc")
    file = file_of(tmp_path, {"text": "q", "expected": ["a"]})
    assert judged(shelf, file, golden_k=2)[HIT_RATE].measured == 0
    assert judged(shelf, file, golden_k=3)[HIT_RATE].measured == 1


@pytest.mark.parametrize(
    ("floors", "failed"),
    [
        ({}, []),
        ({"min_hit_rate": 0.5, "min_ndcg": 0.4}, []),
        ({"min_hit_rate": 0.6}, [HIT_RATE]),
        ({"min_ndcg": 0.6}, [NDCG]),
    ],
)
def test_a_floor_fails_the_version_and_without_one_nothing_does(
    tmp_path: Path, floors: dict[str, Any], failed: list[str]
) -> None:
    file = file_of(
        tmp_path, {"text": "good", "expected": ["a"]}, {"text": "bad", "expected": ["a"]}
    )
    checks = judged(Shelf({"good": "ab", "bad": "b"}, *"ab"), file, **floors)
    assert [name for name, check in checks.items() if not check.passed] == failed
    for name in failed:
        assert "the worst are in line 2, line 1" in checks[name].detail


def test_expected_ids_that_are_not_there_are_named_and_left_out(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        {"text": "q", "expected": {"a": 1, "gone": 3}},
        {"text": "lost", "expected": ["gone", "away"]},
    )
    shelf = Shelf({"q": "a"}, "a")
    checks = judged(shelf, file)
    assert (checks[HIT_RATE].measured, checks[NDCG].measured) == (1, 1)
    assert checks[KNOWN].measured == pytest.approx(1 / 4)
    assert "'gone', 'away' are expected and not in the collection" in checks[KNOWN].detail
    assert "1 of 2 queries could not be asked; line 2: nothing that it" in checks[NDCG].detail
    assert shelf.asked == [("q", 10)]
    with_floor = judged(Shelf({"q": "a"}, "a"), file, min_ndcg=0.5)
    assert [name for name, check in with_floor.items() if not check.passed] == [KNOWN]


def test_where_nothing_can_be_asked_a_floor_fails(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"text": "!", "expected": ["a"]})
    checks = judged(Shelf({}, "a"), file, min_hit_rate=0.1)
    assert {name: check.passed for name, check in checks.items()} == {
        KNOWN: True,
        HIT_RATE: False,
        NDCG: True,
    }
    assert checks[NDCG].measured is None
    assert "there is no word in it" in checks[HIT_RATE].detail


def test_golden_queries_are_asked_of_no_version_that_failed_already(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"text": "q", "expected": ["a"]})
    shelf = Shelf({}, "a")
    gates = [Check(name="count", passed=False), Check(name="later", passed=True)]
    assert list(judged(shelf, file, gates=gates)) == ["count", "later"]
    assert (shelf.asked, shelf.closed) == ([], 0)


def test_without_golden_queries_the_gates_are_the_kinds_own(tmp_path: Path) -> None:
    done = run(
        VectorIndex(VectorIndexParameters()),
        make_job(tmp_path, make_snapshot(np.eye(4, dtype=np.float32))),
    )
    assert not any(check.name.startswith("golden") for check in done.checks)


@pytest.mark.parametrize("key", ["min_hit_rate", "min_ndcg"])
def test_a_floor_without_queries_is_a_mistake(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} does nothing without golden"):
        VectorIndexParameters.model_validate({key: 0.5})


def test_a_vector_index_is_asked_by_vectors_and_by_ids(tmp_path: Path) -> None:
    vectors = clustered(300, 8)
    snapshot = make_snapshot(vectors)
    similarities = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranking = np.argsort(-(similarities @ similarities[0]))
    nearest = [f"e{row:06d}" for row in ranking[1:6]]
    file = file_of(
        tmp_path,
        {"vector": vectors[0].tolist(), "expected": ["e000000"]},
        {"id": "e000000", "expected": nearest},
        {"id": "e000000", "expected": [f"e{ranking[-1]:06d}"]},
        {"id": "unknown", "expected": ["e000000"]},
    )
    kind = VectorIndex(VectorIndexParameters(golden=file, golden_k=5, min_hit_rate=0.6))
    done = run(kind, make_job(tmp_path / "build", snapshot))
    assert done.failed == []
    assert done.check(HIT_RATE).measured == pytest.approx(2 / 3)
    assert done.check(NDCG).measured == pytest.approx(2 / 3)
    assert "1 of 4 queries could not be asked; line 4" in done.check(NDCG).detail


def test_a_text_index_is_asked_by_texts_after_each_batch(tmp_path: Path) -> None:
    texts: list[str | None] = ["read a csv file", "write a json document", "sort a list"]
    ids = ["csv", "json", "sort"]
    snapshot = make_snapshot(np.eye(3, dtype=np.float32), ids=ids, texts=texts)
    file = file_of(tmp_path, {"text": "csv rows", "expected": ["csv"]})
    kind = TextIndex(TextIndexParameters(golden=file, min_ndcg=0.9))
    first = make_job(tmp_path / "first", snapshot)
    done = run(kind, first)
    assert (done.failed, done.check(NDCG).measured) == ([], 1)
    gone = make_job(
        tmp_path / "second", snapshot.commit(deletes=["csv"]), previous=as_previous(first, done)
    )
    after = run(kind, gone)
    assert KNOWN in after.failed
    assert "'csv' is expected and not in the collection" in after.check(KNOWN).detail


DOCS = {"docs": CollectionSettings(dimension=4)}


def definition(kind: str, file: ParameterFile | str) -> ComponentDefinition:
    golden = file if isinstance(file, str) else file.model_dump(mode="json")
    return ComponentDefinition.model_validate({"kind": kind, "from": "docs", "golden": golden})


@pytest.mark.parametrize(
    ("kind", "line", "right"),
    [
        ("vector_index", {"text": "a", "expected": ["b"]}, "this kind is asked by: id, vector"),
        ("text_index", {"id": "a", "expected": ["b"]}, "this kind is asked by: text"),
        ("text_index", {"text": "a"}, 'line 1: lacks "expected"'),
    ],
)
def test_a_check_of_the_settings_names_line_and_mistake(
    tmp_path: Path, kind: str, line: dict[str, Any], right: str
) -> None:
    (mistake,) = check_kind("find", definition(kind, file_of(tmp_path, line)))
    assert (mistake.key, mistake.value) == ("components.find.golden", "queries.jsonl")
    assert right in mistake.right


def test_a_file_that_is_not_there_is_a_mistake_of_the_settings() -> None:
    (mistake,) = check_kind("find", definition("vector_index", "no-such.jsonl"))
    assert (mistake.key, mistake.value) == ("components.find.golden", "no-such.jsonl")
    assert "names no file that can be read" in mistake.right


def test_a_vector_of_another_length_than_the_collections_is_found_by_a_trial(
    tmp_path: Path,
) -> None:
    file = file_of(
        tmp_path,
        {"vector": [1, 0, 0, 0], "expected": ["a"]},
        {"vector": [1, 0], "expected": ["a"]},
    )
    kind: Kind[Any, Any] = VectorIndex(VectorIndexParameters(golden=file))
    (wrong,) = trial_of(kind, DOCS).wrong
    assert "line 2: the vector has 2 values, and those of docs have 4" in wrong


def test_parameters_of_a_manifest_need_no_file(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"id": "a", "expected": ["b"]}).moved(None)
    parameters = {"golden": file.model_dump(mode="json", exclude={"path"})}
    assert VectorIndexParameters.model_validate(parameters).golden == file
    with pytest.raises(ValueError, match="was not kept"):
        VectorIndexParameters.model_validate(parameters, context={READ_FILES: True})
