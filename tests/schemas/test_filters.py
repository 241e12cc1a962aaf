"""The filter language: what it accepts, what it refuses and where, and how values compare."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from jsonschema import Draft202012Validator

from indexrelay.schemas.errors import InvalidQueryError
from indexrelay.schemas.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    All,
    AnyOf,
    Between,
    Exists,
    FieldType,
    InvalidFilterError,
    Not,
    Some,
    filter_schema,
    matches,
    parse_filter,
    values_of,
)
from tests.components import filter_model

FIELDS = {
    "year": FieldType.NUMBER,
    "genre": FieldType.KEYWORD,
    "tags": FieldType.KEYWORDS,
    "added": FieldType.DATETIME,
    "live": FieldType.BOOLEAN,
    "album.label": FieldType.KEYWORD,
}
MAY_2024 = 1_714_521_600_000_000


def refusal(value: Any, fields: dict[str, FieldType] | None = None) -> InvalidFilterError:
    with pytest.raises(InvalidFilterError) as caught:
        parse_filter(value, FIELDS if fields is None else fields)
    return caught.value


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ({"genre": "jazz"}, AnyOf("genre", ("jazz",))),
        ({"genre": {"$in": ["rock", "jazz", "rock"]}}, AnyOf("genre", ("jazz", "rock"))),
        ({"genre": {"$ne": "jazz"}}, Not(AnyOf("genre", ("jazz",)))),
        ({"year": {"$nin": [1, 2]}}, Not(AnyOf("year", (1.0, 2.0)))),
        (
            {"year": {"$gte": 1990, "$lt": 2000}},
            Between("year", 1990.0, 2000.0, above_low=False, below_high=True),
        ),
        ({"tags": {"$all": ["a", "b"]}}, All((AnyOf("tags", ("a",)), AnyOf("tags", ("b",))))),
        ({"tags": {"$any": ["b", "a"]}}, AnyOf("tags", ("a", "b"))),
        ({"tags": "a"}, AnyOf("tags", ("a",))),
        ({"live": True}, AnyOf("live", (True,))),
        ({"live": {"$exists": True}}, Exists("live")),
        ({"live": {"$exists": False}}, Not(Exists("live"))),
        ({"added": "2024-05-01"}, AnyOf("added", (MAY_2024,))),
        ({"album.label": "ECM"}, AnyOf("album.label", ("ECM",))),
        ({"year": {"$not": {"$gt": 3}}}, Not(Between("year", 3.0, None, True, False))),
        ({"$not": {"genre": "jazz"}}, Not(AnyOf("genre", ("jazz",)))),
        (
            {"$or": [{"genre": "jazz"}, {"live": True}]},
            Some((AnyOf("genre", ("jazz",)), AnyOf("live", (True,)))),
        ),
        (
            {"$and": [{"genre": "jazz"}, {"live": True, "year": 1}]},
            All((AnyOf("genre", ("jazz",)), AnyOf("live", (True,)), AnyOf("year", (1.0,)))),
        ),
        ({"$or": [{"genre": "jazz"}]}, AnyOf("genre", ("jazz",))),
        ({"genre": {"$in": []}}, AnyOf("genre", ())),
    ],
)
def test_a_filter_becomes_conditions(given: Any, condition: Any) -> None:
    assert parse_filter(given, FIELDS).condition == condition


def test_a_filter_that_asks_for_nothing_matches_everything() -> None:
    assert parse_filter({}, FIELDS).everything
    assert parse_filter({"$and": [{}, {}]}, {}).everything
    assert not parse_filter({"genre": "jazz"}, FIELDS).everything


def test_filters_that_ask_for_the_same_are_one_key() -> None:
    one = parse_filter({"genre": {"$in": ["a", "b"]}, "year": 3}, FIELDS)
    other = parse_filter({"$and": [{"genre": {"$in": ("b", "a", "a")}}, {"year": 3.0}]}, FIELDS)
    assert one == other
    assert hash(one) == hash(other)


def test_of_two_limits_on_one_side_the_narrower_holds() -> None:
    condition = parse_filter({"year": {"$gt": 5, "$gte": 5, "$lt": 9, "$lte": 7}}, FIELDS).condition
    assert condition == Between("year", 5.0, 7.0, above_low=True, below_high=False)


def test_numbers_of_numpy_and_datetimes_may_stand_for_json() -> None:
    assert parse_filter({"year": np.int64(3)}, FIELDS) == parse_filter({"year": 3}, FIELDS)
    assert parse_filter({"year": np.float32(0.5)}, FIELDS) == parse_filter({"year": 0.5}, FIELDS)
    moment = datetime(2024, 5, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert parse_filter({"added": moment}, FIELDS).condition == AnyOf("added", (MAY_2024,))


@pytest.mark.parametrize(
    ("given", "where", "reason"),
    [
        ("jazz", "filter", "a filter is an object"),
        (["jazz"], "filter", "a filter is an object"),
        ({"gnre": "jazz"}, "filter.gnre", "did you mean 'genre'"),
        ({3: "jazz"}, "filter", "3 is no filterable field"),
        ({"genre": 3}, "filter.genre", "a text, not int 3"),
        ({"genre": None}, "filter.genre", "$exists: false"),
        ({"genre": ["jazz"]}, "filter.genre", "write $in"),
        ({"tags": ["live"]}, "filter.tags", "write $any or $all"),
        ({"genre": {}}, "filter.genre", "at least one operator"),
        ({"genre": {"$like": "j%"}}, "filter.genre.$like", "which takes $eq, $ne, $in"),
        ({"genre": {"$all": ["a"]}}, "filter.genre.$all", "of the type keyword"),
        ({"live": {"$gt": False}}, "filter.live.$gt", "of the type boolean"),
        ({"tags": {"$lt": "a"}}, "filter.tags.$lt", "of the type keywords"),
        ({"tags": {"$all": []}}, "filter.tags.$all", "at least one value"),
        ({"year": True}, "filter.year", "a number, not bool True"),
        ({"year": float("nan")}, "filter.year", "a number"),
        ({"year": 10**400}, "filter.year", "a number"),
        ({"year": {"$in": [1, "2"]}}, "filter.year.$in[1]", "a number, not str '2'"),
        ({"year": {"$in": 1}}, "filter.year.$in", "a list of values"),
        ({"live": 1}, "filter.live", "true or false"),
        ({"live": {"$exists": 1}}, "filter.live.$exists", "true or false"),
        ({"added": "yesterday"}, "filter.added", "ISO 8601"),
        ({"added": 3}, "filter.added", "ISO 8601"),
        ({"genre": "\ud800"}, "filter.genre", "a text"),
        ({"$or": []}, "filter.$or", "one at least"),
        ({"$and": {"genre": "a"}}, "filter.$and", "a list of filters"),
        ({"$or": [{}, {"year": "a"}]}, "filter.$or[1].year", "a number"),
        ({"$not": "jazz"}, "filter.$not", "a filter is an object"),
        ({"year": {"$not": 3}}, "filter.year.$not", "write $ne"),
        ({"$nor": []}, "filter.$nor", "$and, $or and $not"),
        ({"$gt": 3}, "filter.$gt", "behind a field"),
    ],
)
def test_a_mistake_is_named_with_its_place(given: Any, where: str, reason: str) -> None:
    error = refusal(given)
    assert error.where == where
    assert reason in error.reason
    assert str(error) == f"{where}: {error.reason}"
    assert error.fields == FIELDS
    assert isinstance(error, InvalidQueryError)


def test_an_unknown_field_lists_those_there_are() -> None:
    reason = refusal({"bpm": 3}).reason
    assert all(f"{name} ({kind})" in reason for name, kind in FIELDS.items())
    assert "declare some in filterable" in refusal({"bpm": 3}, {}).reason


def test_a_filter_has_a_bounded_size() -> None:
    values = list(range(MAX_VALUES))
    assert parse_filter({"year": {"$in": values}}, FIELDS)
    assert "10,000 values" in refusal({"year": {"$in": [*values, 1]}}).reason
    one = {"year": {"$gt": 1}}
    assert parse_filter({"$or": [one] * (MAX_CONDITIONS // 2)}, FIELDS)
    assert "conditions" in refusal({"$or": [one] * MAX_CONDITIONS}).reason
    deep: Any = {"year": 1}
    for _ in range(MAX_DEPTH - 2):
        deep = {"$not": deep}
    assert parse_filter(deep, FIELDS)
    assert "deep" in refusal({"$not": {"$not": deep}}).reason
    within: Any = {"$gt": 3}
    for _ in range(MAX_DEPTH):
        within = {"$not": within}
    assert "deep" in refusal({"year": within}).reason


def test_a_long_field_name_is_not_repeated_as_a_whole() -> None:
    assert len(str(refusal({"x" * 10_000: 3}))) < 1000


@pytest.mark.parametrize(
    ("payload", "field", "values"),
    [
        ({"year": 1990}, "year", (1990.0,)),
        ({"year": -0.0}, "year", (0.0,)),
        ({"year": None}, "year", None),
        ({}, "year", None),
        (None, "year", None),
        ([1], "year", None),
        ({"tags": []}, "tags", ()),
        ({"tags": ["b", "a", "b"]}, "tags", ("a", "b")),
        ({"live": False}, "live", (False,)),
        ({"album": {"label": "ECM"}}, "album.label", ("ECM",)),
        ({"album": "ECM"}, "album.label", None),
        ({"added": "2024-05-01T02:00:00+02:00"}, "added", (MAY_2024,)),
        ({"added": "2024-05-01T00:00:00Z"}, "added", (MAY_2024,)),
        ({"added": "1969-12-31T23:59:59.999999"}, "added", (-1,)),
    ],
)
def test_a_payload_is_read_as_filters_compare_it(
    payload: Any, field: str, values: tuple[Any, ...] | None
) -> None:
    found = values_of(payload, field, FIELDS[field])
    assert found == values
    assert str(found) == str(values), "the types are those that are stored, and there is one zero"


@pytest.mark.parametrize(
    ("payload", "field", "reason"),
    [
        ({"year": "1990"}, "year", "a number, not str '1990'"),
        ({"year": True}, "year", "a number"),
        ({"genre": ["jazz"]}, "genre", "a text, not list"),
        ({"tags": "live"}, "tags", "a list of texts, not str"),
        ({"tags": [1]}, "tags", "a list of texts"),
        ({"live": "yes"}, "live", "true or false"),
        ({"added": 1_714_521_600}, "added", "ISO 8601"),
    ],
)
def test_a_payload_of_another_type_says_what_would_be_right(
    payload: Any, field: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        values_of(payload, field, FIELDS[field])


GOOD = [
    {},
    {"genre": "jazz", "year": {"$gte": 1990, "$lt": 2000}},
    {"$or": [{"tags": {"$all": ["live"]}}, {"$not": {"live": True}}]},
    {"added": {"$gt": "2024-05-01"}, "album.label": {"$in": ["ECM"]}},
    {"year": {"$not": {"$exists": True}}},
]
BAD = [
    [],
    {"$nor": []},
    {"$or": []},
    {"genre": None},
    {"genre": {"$like": "j"}},
    {"genre": {}},
    {"year": {"$in": 3}},
]


@pytest.mark.parametrize("fields", [None, FIELDS], ids=["any", "declared"])
def test_the_schema_says_of_a_filter_what_the_parser_says(
    fields: dict[str, FieldType] | None,
) -> None:
    schema = filter_schema(fields)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for good in GOOD:
        assert validator.is_valid(good)
        parse_filter(good, FIELDS)
    for bad in BAD:
        assert not validator.is_valid(bad)
        refusal(bad)


def test_the_schema_of_declared_fields_knows_their_types() -> None:
    validator = Draft202012Validator(filter_schema(FIELDS))
    assert not validator.is_valid({"genre": 3})
    assert not validator.is_valid({"gnre": "jazz"})
    assert not validator.is_valid({"live": {"$gt": True}})


def test_a_moment_without_a_zone_is_utc() -> None:
    with_zone = parse_filter({"added": datetime(2024, 5, 1, tzinfo=UTC)}, FIELDS)
    assert parse_filter({"added": "2024-05-01 00:00"}, FIELDS) == with_zone


@drawn(payload=filter_model.payloads(), asked=filter_model.filters())
def test_one_payload_matches_what_the_filter_means(payload: Any, asked: dict[str, Any]) -> None:
    parsed = parse_filter(asked, filter_model.FIELDS)
    assert matches(parsed, payload, filter_model.FIELDS) == filter_model.fulfils(payload, asked)


def test_what_is_of_another_type_counts_as_missing() -> None:
    fields = {"year": FieldType.NUMBER}
    assert matches(parse_filter({"year": 1}, fields), {"year": 1}, fields)
    assert not matches(parse_filter({"year": 1}, fields), {"year": "1"}, fields)
    assert matches(parse_filter({"year": {"$ne": 1}}, fields), {"year": "1"}, fields)
