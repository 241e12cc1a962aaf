import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidEntriesError
from indexrelay.storage.validation import check_entries, check_payload_texts


def check(
    ids: Any, vectors: Any, texts: Any = None, payloads: Any = None, metric: Metric = Metric.L2
) -> Entries:
    return check_entries(ids, vectors, texts, payloads, dimension=2, metric=metric)


def refusal(
    ids: Any, vectors: Any, texts: Any = None, payloads: Any = None, metric: Metric = Metric.L2
) -> InvalidEntriesError:
    with pytest.raises(InvalidEntriesError) as refused:
        check(ids, vectors, texts, payloads, metric)
    return refused.value


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], np.int8),
        np.array([[1, 2], [3, 4]], ">f8"),
        np.array([[1, 3], [2, 4]], np.float32).T,
        [np.array([1, 2]), np.array([3, 4])],
    ],
)
def test_whatever_holds_real_numbers_becomes_contiguous_float32(vectors: Any) -> None:
    checked = check(["a", "b"], vectors)

    assert checked.vectors.tolist() == [[1, 2], [3, 4]]
    assert checked.vectors.dtype == np.float32
    assert checked.vectors.flags.c_contiguous


def test_payloads_become_json_text_and_none_stays_none() -> None:
    checked = check(
        ["a", "b", "c"], np.ones((3, 2)), payloads=[OrderedDict(z=1, a="ä"), None, False]
    )

    assert checked.payloads == ['{"z":1,"a":"ä"}', None, "false"]
    assert checked.texts == [None] * 3


def test_nothing_is_valid() -> None:
    assert check([], []).vectors.shape == (0, 2)
    assert len(check([], np.empty((0, 2)), [], [])) == 0


def test_ids_of_a_numpy_array_become_plain_strings() -> None:
    assert {type(id_) for id_ in check(np.array(["a", "b"]), np.ones((2, 2))).ids} == {str}


@pytest.mark.parametrize(
    ("ids", "problem", "rows"),
    [
        (["a", ""], "id that is empty", (1,)),
        (["a", 7], "id that is no string", (1,)),
        ([None, "a"], "id that is no string", (0,)),
        (["a", "b\0"], "id that holds a NUL character", (1,)),
        (["a", "\ud800"], "id that holds a lone surrogate", (1,)),
        (["a", "x" * 1025], "id that is longer than 1024 bytes", (1,)),
        (["a", "ä" * 513], "id that is longer than 1024 bytes", (1,)),
        (["a", "a"], "id given more than once", (1,)),
    ],
)
def test_an_id_that_cannot_be_one_is_named(ids: Any, problem: str, rows: tuple[int]) -> None:
    error = refusal(ids, np.ones((2, 2)))

    assert str(error).startswith(problem)
    assert f"row {rows[0]} (" in str(error)
    assert (error.rows, error.total) == (rows, 1)


def test_the_longest_id_is_valid() -> None:
    assert check(["x" * 1024, "ä" * 512], np.ones((2, 2))).ids[1] == "ä" * 512


@pytest.mark.parametrize("ids", ["ab", b"ab"])
def test_one_string_is_no_column_of_ids(ids: Any) -> None:
    assert "not one string" in str(refusal(ids, np.ones((2, 2))))


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[1, 2, 3], [1, 2, 3]], r"vectors have shape (2, 3), they must have (2, 2)"),
        ([1, 2], r"vectors have shape (2,)"),
        ([[1, 2]], "there are 2 ids but 1 vectors"),
        ([[1, 2], [1, 2, 3]], "vector whose length is not 2: row 1 ('b')"),
        ([[1, 2], [1, [2]]], "vector whose length is not 2: row 1 ('b')"),
        ([[1, 2], [1, np.nan]], "vector holds NaN or infinity: row 1 ('b')"),
        ([[1, -np.inf], [1, 2]], "vector holds NaN or infinity: row 0 ('a')"),
        ([[1, 2], [1, 1e39]], "vector holds NaN or infinity: row 1 ('b')"),
        ([[1, 2], [1, "x"]], "not of real numbers: row 1 ('b')"),
        ([[1, None], [1, 2]], "not of real numbers: row 0 ('a')"),
        ([[1, 2], [1, 2j]], "not of real numbers: row 1 ('b')"),
        ([[True, False], [True, True]], "not of real numbers: row 0 ('a'), row 1 ('b')"),
    ],
)
def test_a_vector_that_cannot_be_one_is_named(vectors: Any, problem: str) -> None:
    assert problem in str(refusal(["a", "b"], vectors))


def test_a_vector_without_a_direction_is_refused_under_cosine_only() -> None:
    vectors = np.array([[1, 0], [0, 0], [1e-30, 0], [3e38, 3e38]], np.float32)
    ids = ["a", "b", "c", "d"]

    assert len(check(ids, vectors)) == 4
    error = refusal(ids, vectors, metric=Metric.COSINE)
    assert "zero vector" in str(error)
    assert error.rows == (1, 2)
    error = refusal(["a", "d"], vectors[[0, 3]], metric=Metric.COSINE)
    assert str(error) == "vector too long for its length in float32: row 1 ('d')"


def test_the_first_few_offending_rows_are_named_and_all_are_counted() -> None:
    vectors = np.ones((100, 2))
    vectors[10:] = np.nan

    error = refusal([f"{row}" for row in range(100)], vectors)

    assert error.rows == (10, 11, 12, 13, 14)
    assert error.total == 90
    assert str(error).endswith("row 14 ('14') … 90 rows in all")


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["x"], "there are 2 ids but 1 texts"),
        (["x", 1], "text that is no string: row 1 ('b')"),
        (["x", "\0"], "text that holds a NUL character: row 1 ('b')"),
        (["\udfff", None], "text that holds a lone surrogate, which is no Unicode text: row 0"),
    ],
)
def test_a_text_that_cannot_be_one_is_named(texts: Any, problem: str) -> None:
    assert problem in str(refusal(["a", "b"], np.ones((2, 2)), texts))


@pytest.mark.parametrize("payload", [{1, 2}, b"x", float("nan"), "\ud800", np.float32(1), object])
def test_a_payload_that_json_has_no_form_for_is_named(payload: Any) -> None:
    error = refusal(["a", "b"], np.ones((2, 2)), None, [None, payload])
    assert str(error) == "payload that is no JSON value, or nested deeper than 100: row 1 ('b')"


def test_a_payload_that_contains_itself_is_named() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "no JSON value" in str(refusal(["a"], np.ones((1, 2)), None, [circle]))
    assert "there are 1 ids but 2 payloads" in str(refusal(["a"], np.ones((1, 2)), None, [1, 2]))


@pytest.mark.parametrize("text", ["{", "", "NaN", "[1,]", "nothing", "[" * 100_000])
def test_a_stored_payload_that_is_no_json_is_named(text: str) -> None:
    with pytest.raises(
        InvalidEntriesError, match=r"payload that is no JSON text, .*: row 1 \('b'\)"
    ):
        check_payload_texts(["{}", text], ["a", "b"])


@pytest.mark.parametrize("nest", ["[{}]", '{{"a":{}}}'])
def test_a_payload_that_a_reader_could_not_parse_is_refused(nest: str) -> None:
    def nested(levels: int) -> str:
        text = "1"
        for _ in range(levels):
            text = nest.format(text)
        return text

    for text in (nested(100), "[" + "[]," * 5000 + "[]]"):
        assert check_payload_texts([text], ["a"]) == [text]
        assert check(["a"], np.ones((1, 2)), None, [json.loads(text)]).payloads == [text]
    for text in (nested(101), nested(500)):
        with pytest.raises(InvalidEntriesError, match="deeper than 100"):
            check_payload_texts([text], ["a"])
        assert "deeper than 100" in str(refusal(["a"], np.ones((1, 2)), None, [json.loads(text)]))


@pytest.mark.parametrize(
    ("column", "given"),
    [("texts", "ab"), ("texts", b"ab"), ("payloads", "ab"), ("payloads", {"a": 1, "b": 2})],
)
def test_one_value_is_not_taken_for_a_column(column: str, given: Any) -> None:
    columns = {"texts": None, "payloads": None, column: given}
    error = refusal(["a", "b"], np.ones((2, 2)), **columns)
    assert str(error).startswith(f"{column} must be a sequence, one for each id")
