"""The filter language: which entries a search may find, by fields of their payloads.

A collection declares which fields those are and what type each has. A filter is a JSON object, as
in MongoDB, Pinecone and Chroma::

    {"year": {"$gte": 1990, "$lt": 2000}, "genre": "jazz", "tags": {"$all": ["live"]},
     "$or": [{"rating": {"$gt": 4}}, {"pinned": true}], "$not": {"label": {"$in": ["ad"]}}}

Several fields, or several operators of one field, mean *and*. A field that an entry lacks, or that
is ``null``, matches no condition; ``$ne``, ``$nin`` and ``$not`` are complements, so they match the
entries that lack it. A dot in a field's name goes into an object: ``album.year``.

`parse_filter` checks a filter against the declared fields and makes a `Filter` of it: frozen and
hashable, with every value as it is compared. `values_of` reads a field of a payload in the same
way. It is what the doors for entries, the columns of a version, and the gates go by.
"""

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from indexrelay.schemas.errors import InvalidQueryError, suggestion
from indexrelay.schemas.json_values import has_half_character

MAX_CONDITIONS: Final = 256
"""Operators in one filter: people write five, programs fifty."""
MAX_VALUES: Final = 10_000
"""Values in one filter, as in a long list of ``$in``."""
MAX_DEPTH: Final = 20
"""Filters inside filters."""
MAX_FIELDS: Final = 64
"""Fields that a collection may declare: each is a file of every version."""

_PART: Final = r"[^$.\x00-\x1f][^.\x00-\x1f]*"
FIELD_PATTERN: Final = rf"^{_PART}(\.{_PART})*$"
"""A key of a payload; a dot goes into an object. No part of it begins with a dollar sign."""
MAX_NAME: Final = 128


class FieldType(StrEnum):
    """What a filterable field holds."""

    NUMBER = "number"
    KEYWORD = "keyword"
    KEYWORDS = "keywords"
    DATETIME = "datetime"
    BOOLEAN = "boolean"


Fields = Mapping[str, FieldType]
"""The declared fields by name."""


def _check_names(fields: dict[str, FieldType]) -> dict[str, FieldType]:
    for name in fields:
        if len(name) > MAX_NAME or not re.fullmatch(FIELD_PATTERN[1:-1], name):
            raise ValueError(
                f"{name!r:.80} is no name of a field: it has at most {MAX_NAME} characters, and no "
                "part of it, between the dots, is empty or begins with $"
            )
    return fields


FilterableFields = Annotated[
    dict[str, FieldType],
    Field(
        max_length=MAX_FIELDS,
        json_schema_extra={"propertyNames": {"pattern": FIELD_PATTERN, "maxLength": MAX_NAME}},
    ),
    AfterValidator(_check_names),
]
"""The declared fields, as settings have them."""

Value = float | int | str | bool
"""As it is compared: a float64 for a number, microseconds since 1970 in UTC for a datetime."""

_SAMPLES: Final = {
    FieldType.NUMBER: "a number",
    FieldType.KEYWORD: "a text",
    FieldType.KEYWORDS: "a list of texts",
    FieldType.DATETIME: "a date or time as ISO 8601 text, such as 2024-05-01T12:00:00Z",
    FieldType.BOOLEAN: "true or false",
}


class InvalidFilterError(InvalidQueryError):
    """Raised when a filter cannot be answered; the message says where it is wrong, and what would
    be right."""

    def __init__(self, where: str, reason: str, fields: Fields) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        """The place in the filter: ``filter.$or[1].year.$gte``."""
        self.reason = reason
        self.fields: dict[str, FieldType] = dict(fields)
        """The fields that there are."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field has one of these values; a list of keywords has at least one of them."""

    field: str
    values: tuple[Value, ...]
    """Of the field's type, each once, in increasing order."""


@dataclass(frozen=True, slots=True)
class Between:
    """The field's value lies between two."""

    field: str
    low: Value | None
    """``None``: no limit."""
    high: Value | None
    above_low: bool
    """Whether ``low`` itself is left out."""
    below_high: bool
    """Whether ``high`` itself is left out."""


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there and is not ``null``."""

    field: str


@dataclass(frozen=True, slots=True)
class All:
    """Each part matches; without parts, every entry does."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part matches."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: "Condition"


Condition = AnyOf | Between | Exists | All | Some | Not


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was checked against the declared fields; hashable, and equal to its equals."""

    condition: Condition

    @property
    def everything(self) -> bool:
        """Whether it matches every entry, because it asks for nothing."""
        return self.condition == _EVERYTHING


_EVERYTHING: Final = All(())


def parse_filter(value: Any, fields: Fields) -> Filter:
    """Check a filter and turn its values into what is compared.

    Args:
        value: a JSON object as Python has it; a ``datetime`` may stand for its text, and a number
            of numpy for a number.
        fields: the declared fields.

    Raises:
        InvalidFilterError: it is none, names a field that is not declared, compares a field with
            what it cannot hold, or is larger than the limits.
    """
    return Filter(_Parser(fields).parse(value))


class _Parser:
    """Reads one filter."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._conditions = 0
        self._values = 0

    def parse(self, value: Any) -> Condition:
        return self._object(value, "filter", 1)

    def _object(self, value: Any, where: str, depth: int) -> Condition:
        if not isinstance(value, Mapping):
            raise self._error(where, f"a filter is an object, not {_shown(value)}")
        if depth > MAX_DEPTH:
            raise self._error(where, f"filters stand in filters at most {MAX_DEPTH} deep")
        parts: list[Condition] = []
        for key, inner in value.items():
            place = f"{where}.{key}" if isinstance(key, str) else where
            match key:
                case "$and" | "$or":
                    found = [
                        self._object(each, f"{place}[{number}]", depth + 1)
                        for number, each in enumerate(self._filters(inner, place))
                    ]
                    parts.append(_all(found) if key == "$and" else _some(found))
                case "$not":
                    parts.append(Not(self._object(inner, place, depth + 1)))
                case str() if key in _OPERATORS:
                    raise self._error(
                        place, f'write it behind a field: {{"FIELD": {{"{key}": …}}}}'
                    )
                case str() if key.startswith("$"):
                    raise self._error(place, "no such operator; there are $and, $or and $not")
                case str() if key in self._fields:
                    parts.append(self._field(key, inner, place, depth + 1))
                case _:
                    raise self._unknown(key, place)
        return _all(parts)

    def _filters(self, value: Any, where: str) -> Sequence[Any]:
        if not isinstance(value, list | tuple) or not value:
            raise self._error(where, "give a list of filters, one at least")
        self._count(where, len(value))
        return value

    def _field(self, field: str, value: Any, where: str, depth: int) -> Condition:
        if isinstance(value, Mapping):
            return self._operators(field, value, where, depth)
        if value is None:
            raise self._error(where, "for entries without it, write {$exists: false}")
        if isinstance(value, list | tuple):
            listed = self._fields[field] is FieldType.KEYWORDS
            raise self._error(
                where, f"for several values, write {'$any or $all' if listed else '$in'}"
            )
        return self._condition(field, "$eq", value, where)

    def _operators(self, field: str, given: Mapping[Any, Any], where: str, depth: int) -> Condition:
        if not given:
            raise self._error(where, "give at least one operator, such as $eq")
        if depth > MAX_DEPTH:
            raise self._error(where, f"filters stand in filters at most {MAX_DEPTH} deep")
        parts: list[Condition] = []
        limits: dict[str, Value] = {}
        for operator, operand in given.items():
            place = f"{where}.{operator}"
            if operator == "$not":
                if not isinstance(operand, Mapping):
                    raise self._error(place, "give an object of operators; for a value, write $ne")
                parts.append(Not(self._operators(field, operand, place, depth + 1)))
            elif operator in _LIMITS:
                limits[operator] = self._limit(field, operand, place)
            else:
                parts.append(self._condition(field, operator, operand, place))
        if limits:
            parts.append(_between(field, limits))
        return _all(parts)

    def _condition(self, field: str, operator: Any, operand: Any, where: str) -> Condition:
        self._count(where, 1)
        self._see_that_it_takes(field, operator, where)
        match operator:
            case "$exists":
                if not isinstance(operand, bool):
                    raise self._error(where, "write true or false")
                return Exists(field) if operand else Not(Exists(field))
            case "$eq":
                return AnyOf(field, (self._value(field, operand, where),))
            case "$ne":
                return Not(AnyOf(field, (self._value(field, operand, where),)))
            case "$nin":
                return Not(AnyOf(field, self._list(field, operand, where)))
            case "$all":
                values = self._list(field, operand, where)
                if not values:
                    raise self._error(where, "give at least one value")
                return _all([AnyOf(field, (each,)) for each in values])
            case _:  # $in, $any
                return AnyOf(field, self._list(field, operand, where))

    def _limit(self, field: str, operand: Any, where: str) -> Value:
        self._count(where, 1)
        self._see_that_it_takes(field, "$gt", where)
        return self._value(field, operand, where)

    def _see_that_it_takes(self, field: str, operator: Any, where: str) -> None:
        kind = self._fields[field]
        known = _operators_of(kind)
        if operator not in known:
            raise self._error(
                where, f"{field} is of the type {kind}, which takes {', '.join(known)}"
            )

    def _list(self, field: str, operand: Any, where: str) -> tuple[Value, ...]:
        if isinstance(operand, set | frozenset):
            operand = list(operand)
        if not isinstance(operand, list | tuple):
            raise self._error(where, "give a list of values")
        values = {
            self._value(field, each, f"{where}[{number}]") for number, each in enumerate(operand)
        }
        return tuple(sorted(values))

    def _value(self, field: str, operand: Any, where: str) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._error(where, f"a filter has at most {MAX_VALUES:,} values")
        kind = self._fields[field]
        kind = FieldType.KEYWORD if kind is FieldType.KEYWORDS else kind
        try:
            return _scalar(operand, kind)
        except ValueError as error:
            raise self._error(where, f"{field} is compared with {error}") from None

    def _count(self, where: str, conditions: int) -> None:
        self._conditions += conditions
        if self._conditions > MAX_CONDITIONS:
            raise self._error(where, f"a filter has at most {MAX_CONDITIONS} conditions")

    def _unknown(self, key: Any, where: str) -> InvalidFilterError:
        if not self._fields:
            reason = "no field can be filtered by: declare some in filterable of the collection"
            return self._error(where, reason)
        there = ", ".join(f"{name} ({kind})" for name, kind in sorted(self._fields.items()))
        near = suggestion(key, self._fields) if isinstance(key, str) else ""
        hint = near if near.startswith("; did you mean") else ""
        return self._error(where, f"{key!r:.80} is no filterable field{hint}; there is {there}")

    def _error(self, where: str, reason: str) -> InvalidFilterError:
        return InvalidFilterError(where[:_MAX_WHERE], reason, self._fields)


def matches(asked: Filter, payload: Any, fields: Fields) -> bool:
    """Whether one parsed payload matches a filter.

    A field that holds what its type does not counts as missing, as it does in a version.

    Args:
        asked: a filter over some of ``fields``.
        payload: a JSON value; ``None``: the entry has none.
        fields: the declared fields.
    """

    def holds(condition: Condition) -> bool:
        match condition:
            case AnyOf(field, values):
                return not frozenset(values).isdisjoint(given(field) or ())
            case Between():
                found = given(condition.field)
                return found is not None and lies_between(found[0], condition)
            case Exists(field):
                return given(field) is not None
            case Not(part):
                return not holds(part)
            case All(parts):
                return all(map(holds, parts))
            case Some(parts):
                return any(map(holds, parts))

    def given(field: str) -> tuple[Value, ...] | None:
        try:
            return values_of(payload, field, fields[field])
        except ValueError:
            return None

    return holds(asked.condition)


def lies_between(value: Any, limits: Between) -> bool:
    """Whether a value of the field's type lies between the limits."""
    low, high = limits.low, limits.high
    above = low is None or (value > low if limits.above_low else value >= low)
    return above and (high is None or (value < high if limits.below_high else value <= high))


_MAX_WHERE: Final = 200
_EQUALITY: Final = ("$eq", "$ne", "$in", "$nin", "$exists", "$not")
_LIMITS: Final = ("$gt", "$gte", "$lt", "$lte")
_LISTS: Final = ("$any", "$all")
_OPERATORS: Final = frozenset(_EQUALITY + _LIMITS + _LISTS)


def _operators_of(kind: FieldType) -> tuple[str, ...]:
    match kind:
        case FieldType.KEYWORDS:
            return _EQUALITY + _LISTS
        case FieldType.BOOLEAN:
            return _EQUALITY
        case _:
            return _EQUALITY + _LIMITS


def _all(parts: Sequence[Condition]) -> Condition:
    """One part is itself, and what is inside of another *and* stands beside the rest."""
    flat = [each for part in parts for each in (part.parts if isinstance(part, All) else (part,))]
    return flat[0] if len(flat) == 1 else All(tuple(flat))


def _some(parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Some(tuple(parts))


def _between(field: str, limits: Mapping[str, Value]) -> Condition:
    """One condition of all limits; where two say the same side, the narrower one holds."""
    low = max((limits[key] for key in ("$gt", "$gte") if key in limits), default=None)
    high = min((limits[key] for key in ("$lt", "$lte") if key in limits), default=None)
    return Between(
        field,
        low,
        high,
        above_low=low is not None and limits.get("$gt") == low,
        below_high=high is not None and limits.get("$lt") == high,
    )


def values_of(payload: Any, field: str, kind: FieldType) -> tuple[Value, ...] | None:
    """The values that a parsed payload has in a field, as they are compared; ``None``: it lacks it.

    Keywords are each given once, in increasing order, and may be none; any other field has one
    value.

    Raises:
        ValueError: it holds what its type does not; the message says what would be right.
    """
    value = payload
    for part in _path(field):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    if value is None:
        return None
    if kind is not FieldType.KEYWORDS:
        return (_scalar(value, kind),)
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{_SAMPLES[kind]}, not {_shown(value)}")
    return tuple(sorted(set(value)))


@lru_cache(maxsize=1024)
def _path(field: str) -> tuple[str, ...]:
    return tuple(field.split("."))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _scalar(value: Any, kind: FieldType) -> Value:
    """One value as it is compared; raises `ValueError` with what it would have to be."""
    match kind:
        case FieldType.NUMBER if isinstance(value, numbers.Real) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number + 0.0  # there is one zero
        case FieldType.KEYWORD if isinstance(value, str) and not has_half_character(value):
            return str(value)
        case FieldType.DATETIME if isinstance(value, str | datetime):
            moment = _moment(value)
            if moment is not None:
                return moment
        case FieldType.BOOLEAN if isinstance(value, bool):
            return value
    raise ValueError(f"{_SAMPLES[kind]}, not {_shown(value)}")


def _moment(value: str | datetime) -> int | None:
    """Microseconds since 1970; UTC where no zone is given. ``None``: it is no date."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def filter_schema(fields: Fields | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of filters; of those over ``fields`` where they are given."""
    definitions: dict[str, Any] = {}
    for kind in (None,) if fields is None else sorted(set(fields.values())):
        definitions |= _condition_schemas(kind)
    named = {name: {"$ref": f"#/$defs/{kind}"} for name, kind in sorted((fields or {}).items())}
    filters = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/filter"}}
    definitions["filter"] = {
        "type": "object",
        "description": "Fields and what each must be; all of it must hold.",
        "properties": {
            "$and": {**filters, "description": "Each of these filters matches."},
            "$or": {**filters, "description": "At least one of these filters matches."},
            "$not": {"$ref": "#/$defs/filter", "description": "This filter does not match."},
            **named,
        },
        **({"patternProperties": {"^[^$]": {"$ref": f"#/$defs/{_ANY}"}}} if fields is None else {}),
        "additionalProperties": False,
    }
    return {"$ref": "#/$defs/filter", "$defs": dict(sorted(definitions.items()))}


_ANY: Final = "condition"
_SCALARS: Final[Mapping[FieldType | None, dict[str, Any]]] = {
    FieldType.NUMBER: {"type": "number"},
    FieldType.KEYWORD: {"type": "string"},
    FieldType.KEYWORDS: {"type": "string"},
    FieldType.DATETIME: {"type": "string", "description": "ISO 8601; UTC without a zone."},
    FieldType.BOOLEAN: {"type": "boolean"},
    None: {"type": ["string", "number", "boolean"]},
}
_MEANINGS: Final = {
    "$eq": "It is this value; keywords hold it.",
    "$ne": "It is not, or the field is missing.",
    "$in": "It is one of these values; keywords hold one of them.",
    "$nin": "It is none of these values, or the field is missing.",
    "$gt": "It is greater.",
    "$gte": "It is greater or equal.",
    "$lt": "It is less.",
    "$lte": "It is less or equal.",
    "$exists": "Whether the field is there and not null.",
    "$any": "Keywords hold one of these.",
    "$all": "Keywords hold all of these.",
    "$not": "These operators do not all hold, or the field is missing.",
}


def _condition_schemas(kind: FieldType | None) -> dict[str, Any]:
    """What may stand behind a field of a type: a value, or operators; ``None``: of any type."""
    name, scalar = kind or _ANY, _SCALARS[kind]
    values = {"type": "array", "maxItems": MAX_VALUES, "items": scalar}
    operands: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("$in", "$nin", "$any"), values),
        "$all": {**values, "minItems": 1},
        "$exists": {"type": "boolean"},
        "$not": {"$ref": f"#/$defs/{name}_operators"},
    }
    operators = {
        "type": "object",
        "minProperties": 1,
        "properties": {
            each: {**operands.get(each, scalar), "description": meaning}
            for each, meaning in _MEANINGS.items()
            if kind is None or each in _operators_of(kind)
        },
        "additionalProperties": False,
    }
    either = {"anyOf": [scalar, {"$ref": f"#/$defs/{name}_operators"}]}
    return {str(name): either, f"{name}_operators": operators}
