import dataclasses
import json
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from indexrelay.schemas.filters import FieldType
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidEntriesError
from indexrelay.storage.validation import (
    EntryRules,
    check_entries,
    check_listed_ids,
    check_payload_texts,
    encode_payloads,
)


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

    assert checked.payloads == ['{"a":"ä","z":1}', None, "false"]
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
        ([None, "a"], "id that is missing", (0,)),
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


class Column:
    """What a library's own array looks like to us (pandas, Arrow, polars)."""

    def __init__(self, *values: object, shape: tuple[int, ...] = (-1,)) -> None:
        self._array = np.array(values, dtype=object).reshape(shape)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._array


def generated() -> Iterator[str]:
    yield from ("a", "b")


COLUMNS: dict[str, Any] = {
    "ids": ["a", "b"],
    "vectors": [[1, 0], [0, 1]],
    "texts": ["x", "y"],
    "payloads": [{"n": 1}, {"n": 2}],
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "values",
    [
        {"a", "b"},
        frozenset({"a", "b"}),
        {"a": 1, "b": 2},
        MappingProxyType({"a": 1, "b": 2}),
        {"a": 1, "b": 2}.keys(),
        {"a": 1, "b": 2}.values(),
        {"a": 1, "b": 2}.items(),
        generated(),
        map(str, "ab"),
        "ab",
        b"ab",
        np.array("ab"),
        Column("a", "b", "c", "d", shape=(2, 2, 1)),
        7,
    ],
    ids=lambda values: type(values).__name__,
)
def test_what_has_no_order_is_refused_for_every_column(column: str, values: Any) -> None:
    error = refusal(**{**COLUMNS, column: values})
    assert str(error).startswith(column)
    assert "must" in str(error)


@pytest.mark.parametrize("column", ["ids", "texts", "payloads"])
@pytest.mark.parametrize(
    "values",
    [("a", "b"), deque("ab"), np.array(["a", "b"]), Column("a", "b")],
    ids=lambda values: type(values).__name__,
)
def test_every_kind_of_sequence_is_a_column(column: str, values: Any) -> None:
    checked = check(**{**COLUMNS, column: values})
    found: list[Any] = getattr(checked, column)
    assert found == (["a", "b"] if column != "payloads" else ['"a"', '"b"'])
    assert {type(value) for value in found} == {str}


@pytest.mark.parametrize("row", [{1.0, 2.0}, {1: 2.0}, {1.0: 2}.keys(), map(float, "12"), None])
def test_a_vector_without_an_order_is_named_by_its_row(row: Any) -> None:
    error = refusal(["a", "b"], [[1.0, 2.0], row])
    assert error.rows == (1,)


def test_ids_that_are_only_listed_may_come_in_a_set() -> None:
    for ids in ({"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}.keys(), ["b", "a"], deque("ab")):
        assert sorted(check_listed_ids(ids)) == ["a", "b"]
    for one in ("ab", {"a": 1}, generated(), {"a", ""}, {"a", 7}):
        with pytest.raises(InvalidEntriesError):
            check_listed_ids(one)  # type: ignore[arg-type] # that is what is tried


@pytest.mark.parametrize("column", COLUMNS)
def test_masked_values_are_refused_by_row_and_an_empty_mask_is_none(column: str) -> None:
    given: Any = np.array(COLUMNS[column], dtype=np.float64 if column == "vectors" else object)
    masked = np.ma.array(given, mask=np.zeros(given.shape, dtype=bool))
    assert len(check(**{**COLUMNS, column: masked})) == 2
    masked[1] = np.ma.masked
    error = refusal(**{**COLUMNS, column: masked})
    assert "with masked values" in str(error)
    assert error.rows == (1,)
    if column == "vectors":
        rows = [np.array([1.0, 0.0]), np.ma.array([0.0, 1.0], mask=[False, True])]
        for several in (rows, tuple(rows), deque(rows)):
            assert refusal(["a", "b"], several).rows == (1,)


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
        ([[1, 2], [1, 1e39]], "vector longer than 1e+18"),
        ([[1, 2], [1, "x"]], "not of real numbers: row 1 ('b')"),
        ([[1, None], [1, 2]], "not of real numbers: row 0 ('a')"),
        ([[1, 2], [1, 2j]], "not of real numbers: row 1 ('b')"),
        ([[True, False], [True, True]], "not of real numbers: row 0 ('a'), row 1 ('b')"),
    ],
)
def test_a_vector_that_cannot_be_one_is_named(vectors: Any, problem: str) -> None:
    assert problem in str(refusal(["a", "b"], vectors))


def test_a_vector_without_a_direction_is_refused_under_cosine_only() -> None:
    vectors = np.array([[1, 0], [0, 0]], np.float32)

    for metric in (Metric.L2, Metric.INNER_PRODUCT):
        assert len(check(["a", "b"], vectors, metric=metric)) == 2
    error = refusal(["a", "b"], vectors, metric=Metric.COSINE)
    assert str(error) == "zero vector, which has no direction under cosine: row 1 ('b')"


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        ([1e19, 0], "longer than 1e+18"),
        ([3e38, 3e38], "longer than 1e+18"),
        ([8e17, 8e17], "longer than 1e+18"),  # neither number alone, but their squares together
        ([-1.1e18, 0], "longer than 1e+18"),
        ([1e300, 0], "longer than 1e+18"),
        ([10**18 + 10**17, 0], "longer than 1e+18"),
        ([1e-19, 0], "shorter than 1e-18 and not zero"),
        ([1e-30, -1e-30], "shorter than 1e-18 and not zero"),
        ([1e-42, 0], "shorter than 1e-18 and not zero"),  # float32 has it, with few of its bits
        ([1e-60, 0], "shorter than 1e-18 and not zero"),  # zero as float32, but not as given
        ([5e-324, 0], "shorter than 1e-18 and not zero"),
    ],
)
def test_numbers_whose_squares_leave_float32_are_refused_under_each_metric(
    metric: Metric, vector: Any, problem: str
) -> None:
    error = refusal(["a", "b"], [[1, 0], vector], metric=metric)
    assert problem in str(error)
    assert error.rows == (1,)


@pytest.mark.parametrize("metric", Metric)
def test_the_distance_of_any_two_accepted_vectors_is_a_float32(metric: Metric) -> None:
    longest = [[7e17, 7e17], [-7e17, -7e17], [1e-18, 1e-18], [1, 1e-60]]
    checked = check(["a", "b", "c", "d"], longest, metric=metric).vectors
    assert np.isfinite(((checked[:1] - checked[1:2]) ** 2).sum())
    assert ((checked[2:3]) ** 2).sum() > 0


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
        (["x", np.nan], "text that is NaN; give None where there is none: row 1 ('b')"),
        (["x", "\0"], "text that holds a NUL character: row 1 ('b')"),
        (["\udfff", None], "text that holds a lone surrogate, which is no Unicode text: row 0"),
    ],
)
def test_a_text_that_cannot_be_one_is_named(texts: Any, problem: str) -> None:
    assert problem in str(refusal(["a", "b"], np.ones((2, 2)), texts))


class Colour(Enum):
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"


class Song(BaseModel):
    year: int


@dataclasses.dataclass
class Artist:
    name: str


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.int64(7), "numpy.int64 is no JSON type; give value.item()"),
        (np.float32(1), "numpy.float32 is no JSON type; give value.item()"),
        (np.bool_(True), "is no JSON type; give value.item()"),
        (np.datetime64("2026-01-01"), "numpy.datetime64 is no JSON type; give str(value)"),
        (np.ones(2), "numpy.ndarray is no JSON type; give value.tolist()"),
        (np.ma.masked, "give None for what is masked"),
        (datetime.now(UTC), "datetime.datetime is no JSON type; give value.isoformat()"),
        (date(2026, 1, 1), "datetime.date is no JSON type; give value.isoformat()"),
        (timedelta(1), "give value.total_seconds()"),
        (Decimal("1.5"), "decimal.Decimal is no JSON type; give float(value), or str(value)"),
        (UUID(int=7), "uuid.UUID is no JSON type; give str(value)"),
        (Path("x"), "is no JSON type; give str(value)"),
        (Colour.RED, "Colour is no JSON type; give value.value"),
        (Song(year=7), 'Song is no JSON type; give value.model_dump(mode="json")'),
        (Artist("x"), "Artist is no JSON type; give dataclasses.asdict(value)"),
        ({1, 2}, "builtins.set is no JSON type; give sorted(value)"),
        (b"x", "builtins.bytes is no JSON type; give value.decode(), or base64"),
        ({"a": 1}.keys(), "is no JSON type; give list(value)"),
        (MappingProxyType({}), "is no JSON type; give dict(value)"),
        (object(), "builtins.object is no JSON type"),
        (1j, "builtins.complex is no JSON type"),
        (float("nan"), "nan has no place in JSON; give None"),
        (float("-inf"), "-inf has no place in JSON"),
        (np.float64("nan"), "nan has no place in JSON"),
        ("\ud800", "holds half a character"),
        ("x\udfff", "holds half a character"),
        ({"\ud83c": 1}, "the key '\\ud83c' holds half a character"),
        ({1: "x"}, "the key 1 is not a string; give str(key)"),
        ({None: "x"}, "the key None is not a string"),
        ({True: 1, "true": 2}, "the key True is not a string"),
        ({(1, 2): "x"}, "the key (1, 2) is not a string"),
        (10**5000, "a whole number of thousands of digits; give a text"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else type(value).__name__,
)
def test_a_payload_that_json_has_no_form_for_says_where_and_what_to_give(
    value: Any, said: str
) -> None:
    for payload, path in (
        (value, "$"),
        ({"year": value}, "$.year"),
        ([{"tags": [0, {"x": value}]}], "$[0].tags[1].x"),
    ):
        error = refusal(["a", "b"], np.ones((2, 2)), None, [{"good": 1}, payload])
        assert str(error).startswith(f"payload that is no JSON value ({path}: ")
        assert said in str(error)
        assert error.rows == (1,)


def test_what_json_can_say_is_taken_whatever_it_is_called_in_python() -> None:
    given = {"a": (1, 2), "b": Shade.DARK, "c": np.float64(1.5), "d": None, "e": 10**400, "f": "\0"}
    (text,) = check(["a"], np.ones((1, 2)), None, [given]).payloads
    assert json.loads(text or "") == {**given, "a": [1, 2], "b": "dark"}
    assert check_payload_texts([text], ["a"]) == [text]


def test_a_payload_that_contains_itself_is_named() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert "$[1]: it contains itself" in str(refusal(["a"], np.ones((1, 2)), None, [circle]))
    assert "there are 1 ids but 2 payloads" in str(refusal(["a"], np.ones((1, 2)), None, [1, 2]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1 column 2"),
        ("", "line 1 column 1"),
        ("NaN", "NaN has no place in JSON"),
        ('{"a": [-Infinity]}', "-Infinity has no place in JSON"),
        ('{"a": 1e400}', "$.a: inf has no place in JSON"),
        ('{"a": [1, -2E+999]}', "$.a[1]: -inf has no place in JSON"),
        ("1" * 400 + ".5", "$: inf has no place in JSON"),
        ("1" * 290 + "e50", "$: inf has no place in JSON"),
        ("1" * 5000, "digits"),
        ("[1,]", "line 1 column"),
        ("nothing", "line 1 column 1"),
        ("[" * 60_000, "nested deeper than 100"),
        ('"\\ud800"', "$: '\\ud800' holds half a character"),
        ('{"a": ["x", "\\uDFFFy"]}', "$.a[1]: '\\udfffy' holds half a character"),
        ('{"\\uD83C": 1}', "the key '\\ud83c' holds half a character"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice in one object"),
        ('{"x": [{"a": ":", "a" : 3}]}', "the key 'a' is given twice in one object"),
    ],
    ids=lambda value: value[:40],
)
def test_a_stored_payload_is_refused_where_a_batch_would_refuse_its_value(
    text: str, said: str
) -> None:
    with pytest.raises(InvalidEntriesError) as refused:
        check_payload_texts(["{}", text], ["a", "b"])
    assert str(refused.value).startswith("payload that is no JSON value (")
    assert said in str(refused.value)
    assert refused.value.rows == (1,)


@pytest.mark.parametrize(
    "text",
    [
        '{"at": "12:30", "url": "https://x/?a=1", "a": {"b": ":"}}',
        '{"say": "\\": \\"", "x": 1}',
        '"\\ud83c\\udfb5 \\u0000"',
        '{"a": 1e308, "b": 123e12, "c": "1e999"}',
        ' [1, {"a" : {}}] ',
    ],
)
def test_a_stored_payload_that_only_looks_suspicious_is_taken_as_it_is(text: str) -> None:
    assert check_payload_texts([text], ["a"]) == [text]


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


FIELDS = {"year": FieldType.NUMBER, "tags": FieldType.KEYWORDS, "added": FieldType.DATETIME}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"year": "1990"}, "'year' is not what the collection declares (it must be a number"),
        ({"year": 10**400}, "'year' is not"),
        ({"year": True}, "'year' is not"),
        ({"tags": "live"}, "'tags' is not what the collection declares (it must be a list"),
        ({"added": "yesterday"}, "'added' is not what the collection declares (it must be a date"),
    ],
)
def test_a_filterable_field_of_another_type_is_refused_by_row_and_reason(
    payload: dict[str, Any], reason: str
) -> None:
    rules = EntryRules(fields=FIELDS)
    good = {"year": 1990, "tags": ["live"], "added": "2024-05-01T12:00:00Z", "other": "x"}
    for given, as_json in (
        ([good, payload, None], False),
        ([json.dumps(good), json.dumps(payload), None], True),
    ):
        with pytest.raises(InvalidEntriesError) as refused:
            check_entries(
                ["a", "b", "c"],
                np.ones((3, 2)),
                payloads=given,
                dimension=2,
                metric=Metric.L2,
                payloads_are_json=as_json,
                rules=rules,
            )
        assert reason in str(refused.value)
        assert refused.value.rows == (1,)
        assert "'b'" in str(refused.value)


@pytest.mark.parametrize("payload", [None, {}, {"year": None}, [1, 2], "text", {"years": "1990"}])
def test_a_filterable_field_may_be_missing(payload: Any) -> None:
    checked = encode_payloads([payload], ["a"], EntryRules(fields=FIELDS))
    assert checked == encode_payloads([payload], ["a"])
