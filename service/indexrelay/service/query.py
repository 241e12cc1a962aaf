"""A search over HTTP: what a request may hold, and which method of the served object answers it.

The protocols `VectorSearchable` and `TextSearchable` declare what a served object can search; the
objects of users' own kinds are searched when they have these methods.

A body is checked in three steps, each of which costs little whatever it holds: the number of its
elements and colons, before it is parsed; its keys; then every value. A number in a string, or true
and false in place of numbers, is refused: an answer would hide the client's mistake.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit, TextSearchable, VectorSearchable, takes_vector

MAX_K: Final = 1000
MAX_DIMENSION: Final = 65_536
MAX_TEXT: Final = 10_000
MAX_ELEMENTS: Final = 100_000
"""Commas, brackets and braces of a body, those in texts included. Each may become a Python object;
a vector of the greatest dimension has fewer, and so has a text of nothing else."""
MAX_COLONS: Final = MAX_TEXT + 100
"""Of a body, those in texts included: there are four keys, and one text or id."""
_MAX_NAMED: Final = 5
_LIMIT: Final = "max_payload_bytes"
_GREATEST: Final = float(np.finfo(np.float32).max)


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 10.0 is 10."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_of_three(schema: dict[str, Any]) -> None:
    """What `_one_question` checks, as JSON Schema: exactly one is given, the others are null."""
    properties = schema["properties"]
    names = ("vector", "id", "text")
    schema["oneOf"] = [
        {
            "required": [name],
            "properties": {
                each: next(arm for arm in properties[each]["anyOf"] if arm["type"] != "null")
                if each == name
                else {"type": "null"}
                for each in names
            },
        }
        for name in names
    ]


class SearchRequest(BaseModel):
    """Exactly one of ``vector``, ``id`` and ``text``, and how many hits."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra=_one_of_three
    )

    vector: (
        Annotated[
            list[Annotated[FiniteFloat, Field(ge=-_GREATEST, le=_GREATEST)]],
            Field(min_length=1, max_length=MAX_DIMENSION, fail_fast=True),
        ]
        | None
    ) = None
    """Each number within float32."""
    id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    k: Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_whole)] = 10

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = [name for name in ("vector", "id", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            asked = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of vector, id and text, not {asked}")
        return self


def search_request(body: bytes) -> SearchRequest:
    """The request that a body holds.

    Raises:
        InvalidQueryError: it is no JSON, has too many elements, or is no search; its sentence is
            bounded in size.
    """
    elements = sum(body.count(sign) for sign in b",[{")
    if elements > MAX_ELEMENTS:
        raise InvalidQueryError(f"the body may have at most {MAX_ELEMENTS} elements")
    if body.count(b":") > MAX_COLONS:
        raise InvalidQueryError(f"the body may have at most {MAX_COLONS} keys, or colons in texts")
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidQueryError(f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidQueryError("the body is no JSON object with one of vector, id and text")
    count = len(parsed.keys() - SearchRequest.model_fields.keys())
    if count:
        unknown = (name for name in parsed if name not in SearchRequest.model_fields)
        named = ", ".join(repr(name[:40]) for name in itertools.islice(unknown, _MAX_NAMED))
        more = f" and {count - _MAX_NAMED} more" if count > _MAX_NAMED else ""
        raise InvalidQueryError(
            f"unknown: {named}{more}; there are {', '.join(SearchRequest.model_fields)}"
        )
    try:
        return SearchRequest.model_validate(parsed)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidQueryError(mistakes_text(mistakes)) from error


def search(
    served: Any, request: SearchRequest, *, max_payload_bytes: int | None = None
) -> Sequence[Hit]:
    """Search the served object.

    Args:
        served: what a snapshot holds.
        request: what to search for.
        max_payload_bytes: of all hits together, for methods that take such a limit, as those of
            our own kinds do; ``None``: any number.

    Raises:
        InvalidQueryError: it cannot search for that, or not with these values.
        UnknownEntryError: it holds no entry of that id.
    """
    k = request.k
    if isinstance(served, VectorSearchable):
        if request.id is not None:
            limited = _limited(type(served).search_by_id, max_payload_bytes)
            return served.search_by_id(request.id, k=k, **limited)
        if request.vector is not None:
            vector = np.asarray(request.vector, dtype=np.float32)
            return served.search(vector, k=k, **_limited(type(served).search, max_payload_bytes))
        raise InvalidQueryError("this component answers a vector or an id")
    if isinstance(served, TextSearchable):
        if takes_vector(type(served).search):
            raise InvalidQueryError(
                "this component's search takes a vector, and it lacks search_by_id: it is "
                "asked in Python only"
            )
        if request.text is None:
            raise InvalidQueryError("this component answers a text")
        limited = _limited(type(served).search, max_payload_bytes)
        return served.search(request.text, k=k, **limited)
    raise InvalidQueryError("this component answers no search")


def _limited(method: Callable[..., Any], most: int | None) -> dict[str, int]:
    return {_LIMIT: most} if most is not None and _takes_limit(method) else {}


@functools.lru_cache(maxsize=100)
def _takes_limit(method: Callable[..., Any]) -> bool:
    return _LIMIT in inspect.signature(method).parameters


def mistakes_text(mistakes: Sequence[Any], *, most: int = 5) -> str:
    """What pydantic found, in one sentence: where, and what would be right."""
    parts = []
    for mistake in mistakes[:most]:
        where = ".".join(str(step)[:100] for step in mistake["loc"])
        parts.append(f"{where}: {mistake['msg']}" if where else mistake["msg"])
    if len(mistakes) > most:
        parts.append(f"and {len(mistakes) - most} more")
    return "; ".join(parts)
