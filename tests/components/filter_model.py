"""What a filter means, spelled out entry by entry, and any filters and payloads to try it on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from indexrelay.schemas.filters import FieldType

FIELDS = {
    "year": FieldType.NUMBER,
    "genre": FieldType.KEYWORD,
    "tags": FieldType.KEYWORDS,
    "added": FieldType.DATETIME,
    "live": FieldType.BOOLEAN,
    "album.label": FieldType.KEYWORD,
}
_TEXTS = ["", "a", "b", "jazz", "é", "\U0001f600", "Z"]
_DATES = [
    "2024-05-01",
    "2024-05-01T00:00:00Z",
    "2024-05-01T02:00:00+02:00",
    "1960-01-01",
    "2025-01-01",
]

_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.NUMBER: st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -0.0, 1e300, 2**60])),
    FieldType.KEYWORD: st.sampled_from(_TEXTS),
    FieldType.KEYWORDS: st.sampled_from(_TEXTS),
    FieldType.DATETIME: st.sampled_from(_DATES),
    FieldType.BOOLEAN: st.booleans(),
}


def held_by(payload: Any, field: str) -> list[Any] | None:
    """The values that a payload has in a field, comparable; ``None``: it lacks it."""
    value = payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return None
    values = value if FIELDS[field] is FieldType.KEYWORDS else [value]
    return [comparable(each, field) for each in values]


def comparable(value: Any, field: str) -> Any:
    if FIELDS[field] is not FieldType.DATETIME:
        return float(value) if FIELDS[field] is FieldType.NUMBER else value
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fulfils(payload: Any, asked: dict[str, Any]) -> bool:
    """Whether an entry with this payload matches."""
    return all(_key(payload, key, value) for key, value in asked.items())


def _key(payload: Any, key: str, value: Any) -> bool:
    match key:
        case "$and":
            return all(fulfils(payload, each) for each in value)
        case "$or":
            return any(fulfils(payload, each) for each in value)
        case "$not":
            return not fulfils(payload, value)
    operators = value if isinstance(value, dict) else {"$eq": value}
    return _operators(payload, key, operators)


def _operators(payload: Any, field: str, operators: dict[str, Any]) -> bool:
    held = held_by(payload, field)
    return all(_operator(payload, held, field, *each) for each in operators.items())


_POSITIVE: dict[str, Callable[[list[Any], Any], bool]] = {
    "$eq": lambda held, value: value in held,
    "$in": lambda held, values: any(value in held for value in values),
    "$any": lambda held, values: any(value in held for value in values),
    "$all": lambda held, values: all(value in held for value in values),
    "$gt": lambda held, value: held[0] > value,
    "$gte": lambda held, value: held[0] >= value,
    "$lt": lambda held, value: held[0] < value,
    "$lte": lambda held, value: held[0] <= value,
}
_COMPLEMENTS = {"$ne": "$eq", "$nin": "$in"}


def _operator(
    payload: Any, held: list[Any] | None, field: str, operator: str, operand: Any
) -> bool:
    if operator == "$not":
        return not _operators(payload, field, operand)
    if operator == "$exists":
        return (held is not None) is operand
    if operator in _COMPLEMENTS:
        return not _operator(payload, held, field, _COMPLEMENTS[operator], operand)
    several = isinstance(operand, list)
    value = [comparable(each, field) for each in operand] if several else comparable(operand, field)
    return held is not None and _POSITIVE[operator](held, value)


def _payload(parts: tuple[Any, ...]) -> Any:
    year, genre, tags, added, live, label, other = parts
    found = {"year": year, "genre": genre, "tags": tags, "added": added, "live": live}
    found |= {"album": label, "other": other}
    return {key: value for key, value in found.items() if value != "absent"}


def _or_lacking(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just("absent"), st.none(), values, values)


def payloads() -> st.SearchStrategy[Any]:
    """Of entries: some lack fields, hold ``null``, or are no objects at all."""
    objects = st.tuples(
        _or_lacking(_VALUES[FieldType.NUMBER]),
        _or_lacking(_VALUES[FieldType.KEYWORD]),
        _or_lacking(st.lists(_VALUES[FieldType.KEYWORDS], max_size=3)),
        _or_lacking(_VALUES[FieldType.DATETIME]),
        _or_lacking(_VALUES[FieldType.BOOLEAN]),
        _or_lacking(
            st.one_of(st.fixed_dictionaries({"label": st.sampled_from(_TEXTS)}), st.just("none"))
        ),
        st.integers(0, 3),
    ).map(_payload)
    return st.one_of(st.none(), st.just([1, 2]), objects, objects, objects)


def _of_field(field: str) -> st.SearchStrategy[dict[str, Any]]:
    kind = FIELDS[field]
    value = _VALUES[kind]
    several = st.lists(value, max_size=3)
    operators: dict[str, st.SearchStrategy[Any]] = {
        "$eq": value,
        "$ne": value,
        "$in": several,
        "$nin": several,
        "$exists": st.booleans(),
    }
    if kind is FieldType.KEYWORDS:
        operators |= {"$any": several, "$all": st.lists(value, min_size=1, max_size=3)}
    elif kind is not FieldType.BOOLEAN:
        operators |= dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), value)
    some = st.lists(
        st.sampled_from(sorted(operators)), min_size=1, max_size=2, unique=True
    ).flatmap(lambda names: st.fixed_dictionaries({name: operators[name] for name in names}))
    within = st.one_of(some, some.map(lambda inner: {"$not": inner}), value)
    return within.map(lambda inner: {field: inner})


def filters() -> st.SearchStrategy[dict[str, Any]]:
    """Any filters over `FIELDS`."""
    leaves = st.one_of(*map(_of_field, FIELDS), st.just({}))

    def deeper(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        several = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(
            several.map(lambda parts: {"$and": parts}),
            several.map(lambda parts: {"$or": parts}),
            inner.map(lambda part: {"$not": part}),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        )

    return st.recursive(leaves, deeper, max_leaves=6)
