"""What a request may hold: a search, a batch of them, ids, a count, a page; or entries to write.

A body is checked in three steps, each of which costs little whatever it holds: the number of its
elements and colons, before it is parsed; its keys; then every value. A number in a string, or true
and false in place of numbers, is refused: an answer would hide the client's mistake. What a filter
says is checked by the component that it is for, which knows its fields.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
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
from indexrelay.schemas.names import Name
from indexrelay.schemas.session import MAX_CHARACTERS as MAX_SESSION
from indexrelay.storage.validation import refuse_repeated_keys

JSON: Final = "application/json"
VECTORS: Final = "application/octet-stream"
MAX_K: Final = 1000
MAX_DIMENSION: Final = 65_536
MAX_TEXT: Final = 10_000
MAX_EXAMPLES: Final = 100
"""Ids and vectors of ``like``, and of ``unlike``."""
MAX_IDS: Final = 1000
"""Ids that one request gets, or leaves out; also entries of a page."""
MAX_QUERIES: Final = 100
"""Searches of one batch; ids whose neighbours one request asks for."""
MAX_PER_GROUP: Final = 100
MAX_LAG_SECONDS: Final = 86_400
"""A day: who asks for less asks for nothing."""
MAX_COMPONENTS: Final = 1000
"""That one request for a rebuild names."""
MAX_ELEMENTS: Final = 100_000
"""Commas, brackets and braces of a body, those in texts included. Each may become a Python object;
a vector of the greatest dimension has fewer, and so has a text of nothing else."""
MAX_COLONS: Final = MAX_TEXT + 100
"""Of a body, those in texts included: a search has a few keys, and a batch a few hundred."""
MAX_WAIT_SECONDS: Final = 60.0
"""How long a write may wait to be visible, or released."""
_MAX_NAMED: Final = 5
_GREATEST: Final = float(np.finfo(np.float32).max)
ModelT = TypeVar("ModelT", bound="Body")


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 10.0 is 10."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Vector = Annotated[
    list[Annotated[FiniteFloat, Field(ge=-_GREATEST, le=_GREATEST)]],
    Field(min_length=1, max_length=MAX_DIMENSION, fail_fast=True),
]
"""Each number within float32."""
EntryId = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Ids = Annotated[list[EntryId], Field(max_length=MAX_IDS, fail_fast=True)]
Examples = Annotated[list[EntryId | Vector], Field(max_length=MAX_EXAMPLES, fail_fast=True)]
Count = Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_whole)]
Weight = Annotated[FiniteFloat, Field(ge=0, le=1e6)]
FilterObject = dict[str, Any]
"""In the filter language; the component checks it."""


class Body(BaseModel):
    """What a body may hold; a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    WANTED: ClassVar[str] = "of the keys that the description lists"
    """For the sentence about a body that is no object."""


class FreshnessOptions(Body):
    """How fresh the answer has to be; without any of them: as it is."""

    consistency: Literal["eventual", "bounded", "session", "strong"] | None = None
    """``strong``: with everything that was committed before the request came. The others go by what
    is given with them."""
    max_lag_seconds: Annotated[FiniteFloat, Field(ge=0, le=MAX_LAG_SECONDS)] | None = None
    """``bounded``: with everything that was committed so many seconds before it came."""
    session: Annotated[str, Field(min_length=1, max_length=MAX_SESSION)] | None = None
    """``session``: with everything that this session token names."""


class SearchOptions(Body):
    """How a search is to be answered, whatever is searched for.

    A component gets those that were given, and refuses what it does not know.
    """

    k: Count = 10
    """How many hits."""
    filter: FilterObject | None = None
    """Which entries may be found."""
    without: Ids | None = None
    """Ids that are not to be found."""
    group_by: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A field: hits with the same value of it are a group …"""
    per_group: Annotated[int, Field(ge=1, le=MAX_PER_GROUP), BeforeValidator(_whole)] | None = None
    """… of which so many are given."""
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None
    """0: the best hits; towards 1: hits that differ from each other."""
    weights: dict[Literal["vector", "text"], Weight] | None = None
    """Of the two parts of a search by vector and text."""
    fusion: Literal["ranks", "scores"] | None = None
    """What of the two parts is added: ``ranks`` (reciprocal rank fusion) or ``scores``."""
    rrf_k: Annotated[FiniteFloat, Field(ge=0, le=1e6)] | None = None
    """The constant of the fusion of ranks."""
    rerank: bool | None = None
    """``false``: without the function that scores the best hits again, where there is one."""
    explain: bool | None = None
    """Whether the answer says how it was found."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, and ``k``."""
        options = {name: getattr(self, name) for name in SearchOptions.model_fields}
        return {name: value for name, value in options.items() if value is not None}


_QUESTIONS: Final = ("vector", "id", "text", "like")
_FORMS: Final = (("vector",), ("id",), ("text",), ("vector", "text"), ("like",))
"""What may be asked for together."""


def _one_form(schema: dict[str, Any]) -> None:
    """What `_one_question` checks, as JSON Schema: one form is given, the others are null."""
    properties = schema["properties"]

    def given(name: str) -> dict[str, Any]:
        return next(arm for arm in properties[name]["anyOf"] if arm["type"] != "null")

    schema["oneOf"] = [
        {
            "required": list(form),
            "properties": {
                each: given(each) if each in form else {"type": "null"}
                for each in (*_QUESTIONS, *(() if "like" in form else ("unlike",)))
            },
        }
        for form in _FORMS
    ]


class SearchQuery(SearchOptions):
    """What is searched for: by ``vector``, by ``text`` or by both, by an ``id``, or by examples.

    ``like`` (and ``unlike``) are ids and vectors.
    """

    model_config = ConfigDict(json_schema_extra=_one_form)
    WANTED: ClassVar[str] = "with one of vector, id, text and like"

    vector: Vector | None = None
    id: EntryId | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    like: Annotated[Examples, Field(min_length=1)] | None = None
    unlike: Examples | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = tuple(name for name in _QUESTIONS if getattr(self, name) is not None)
        if asked not in _FORMS:
            said = " and ".join(asked) or "none of them"
            raise ValueError(
                f"give exactly one of vector, id and text, not {said}; or vector and text "
                "together, or like"
            )
        if self.unlike is not None and self.like is None:
            raise ValueError("unlike goes with like")
        return self


class SearchRequest(SearchQuery, FreshnessOptions):
    """One search."""

    model_config = ConfigDict(json_schema_extra=_one_form)


class BatchRequest(FreshnessOptions):
    """Several searches of one component; each gets an answer of its own, and all of one moment."""

    WANTED: ClassVar[str] = "with queries"

    queries: Annotated[list[SearchQuery], Field(min_length=1, max_length=MAX_QUERIES)]


class EntriesRequest(FreshnessOptions):
    """Entries by their ids."""

    WANTED: ClassVar[str] = "with ids"

    ids: Annotated[Ids, Field(min_length=1)]


class CountRequest(FreshnessOptions):
    """How many entries there are that a filter matches; without one: how many there are."""

    filter: FilterObject | None = None


class ScrollRequest(FreshnessOptions):
    """A page of entries in the order of their ids."""

    filter: FilterObject | None = None
    after: EntryId | None = None
    """The last id of the page before; it need not be there any more."""
    limit: Annotated[int, Field(ge=1, le=MAX_IDS), BeforeValidator(_whole)] = 100


class NeighboursRequest(FreshnessOptions):
    """The entries nearest to each of several."""

    WANTED: ClassVar[str] = "with ids"

    ids: Annotated[list[EntryId], Field(min_length=1, max_length=MAX_QUERIES)]
    k: Count = 10


class RebuildRequest(Body):
    """What is to be built; without names whatever is due."""

    components: Annotated[list[Name], Field(max_length=MAX_COMPONENTS)] = []
    force: bool = False
    """Also if more entries went than ``max_shrink`` allows."""
    full: bool = False
    """From scratch."""
    reason: Annotated[str, Field(max_length=1000)] = "over HTTP"
    """For those who read the result."""


class WriteOptions(Body):
    """What the answer to a write waits for, beside its commit."""

    wait: Annotated[str, Field(pattern="^(durable|released|visible:[1-9][0-9]{0,2})$")] = "durable"
    """``durable``: nothing else. ``visible:N``: N readers, this one for N = 1, have it in their
    answers. ``released``: every reader serves a release with it."""
    wait_seconds: Annotated[FiniteFloat, Field(ge=0, le=MAX_WAIT_SECONDS)] = 10.0
    """For how long at most; then the answer is 202, and the write stands."""


class WrittenEntry(Body):
    """One entry; a text or payload that is not given stays as it is."""

    id: EntryId
    vector: Vector | None = None
    """Of the collection's dimension. With a body that ends in float32 values it is among them."""
    text: str | None = None
    payload: Any = None
    """A JSON value."""


class UpsertRequest(WriteOptions):
    """Entries that are new, or replace those of the same id."""

    WANTED: ClassVar[str] = "with entries"

    entries: Annotated[list[WrittenEntry], Field(min_length=1, max_length=MAX_IDS)]


class DeleteRequest(WriteOptions):
    """Entries that are to go; an id that is not there is no error."""

    WANTED: ClassVar[str] = "with ids"

    ids: Annotated[Ids, Field(min_length=1)]


class PatchRequest(WriteOptions):
    """A new payload or text of one entry, whole; null takes it away, and what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["payload"]}, {"required": ["text"]}]}
    )
    WANTED: ClassVar[str] = "with payload or text"

    payload: Any = None
    """A JSON value."""
    text: str | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set & {"payload", "text"}:
            raise ValueError("give payload, text or both; null takes one away")
        return self


def read_write(body: bytes, model: type[ModelT]) -> ModelT:
    """The write that a body holds: as `read_body`, but payloads may have many keys, each once."""
    parsed = _object_of(body, model, max_colons=MAX_ELEMENTS)
    try:
        refuse_repeated_keys(body.decode(), parsed)
    except ValueError as error:
        raise InvalidQueryError(f"the body: {error}") from error
    return checked(parsed, model)


def read_upserts(
    body: bytes, kind: str
) -> tuple[UpsertRequest, Sequence[Any] | NDArray[np.float32]]:
    """Entries, and the vector of each.

    Args:
        body: of JSON; or one line of it, whose entries have no vectors, and behind the end of the
            line all vectors as float32 values, little-endian, in the order of the entries.
        kind: `JSON` or `VECTORS`.

    Returns:
        The request and its vectors: lists of numbers, ``None`` for an entry that has none, or an
        array of the shape ``(n, dimension)``.

    Raises:
        InvalidQueryError: as `read_body`; an entry has a vector in the wrong place.
    """
    if kind == JSON:
        request = read_write(body, UpsertRequest)
        return request, [entry.vector for entry in request.entries]
    line, end, values = body.partition(b"\n")
    if not end:
        raise InvalidQueryError("the body is no line of JSON with float32 values behind it")
    request = read_write(line, UpsertRequest)
    for number, entry in enumerate(request.entries):
        if entry.vector is not None:
            raise InvalidQueryError(
                f"entries.{number}.vector: the vectors of this body are the float32 values"
            )
    return request, read_vectors(values, len(request.entries))


def read_body(body: bytes, model: type[ModelT]) -> ModelT:
    """The request that a body holds.

    Raises:
        InvalidQueryError: it is no JSON, has too many elements, or is none of ``model``; its
            sentence is bounded in size.
    """
    return checked(_object_of(body, model, max_colons=MAX_COLONS), model)


def _object_of(body: bytes, model: type[Body], *, max_colons: int) -> dict[str, Any]:
    """The object that a body holds, whatever its keys; raises as `read_body`."""
    elements = sum(body.count(sign) for sign in b",[{")
    if elements > MAX_ELEMENTS:
        raise InvalidQueryError(f"the body may have at most {MAX_ELEMENTS} elements")
    if body.count(b":") > max_colons:
        raise InvalidQueryError(f"the body may have at most {max_colons} keys, or colons in texts")
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidQueryError(f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidQueryError(f"the body is no JSON object {model.WANTED}")
    return parsed


def checked(given: dict[str, Any], model: type[ModelT]) -> ModelT:
    """A request of these keys and values; raises as `read_body`."""
    known = model.model_fields
    count = len(given.keys() - known.keys())
    if count:
        unknown = (name for name in given if name not in known)
        named = ", ".join(repr(name[:40]) for name in itertools.islice(unknown, _MAX_NAMED))
        more = f" and {count - _MAX_NAMED} more" if count > _MAX_NAMED else ""
        # What every request may say comes last.
        there = sorted(known, key=lambda name: name in FreshnessOptions.model_fields)
        raise InvalidQueryError(f"unknown: {named}{more}; there are {', '.join(there)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidQueryError(mistakes_text(mistakes)) from error


def read_vectors(body: bytes, rows: int) -> NDArray[np.float32]:
    """The vectors of a body of float32 values, little-endian; shape ``(rows, dimension)``.

    Raises:
        InvalidQueryError: it holds none, not so many of one length, or what is no finite number.
    """
    if not body or len(body) % (4 * rows):
        many = f"{rows} vectors of one length" if rows > 1 else "one vector"
        raise InvalidQueryError(
            f"the body has {len(body)} bytes; {many} of float32 values, of 4 bytes each, have not"
        )
    vectors = np.frombuffer(body, dtype="<f4").astype(np.float32).reshape(rows, -1)
    if vectors.shape[1] > MAX_DIMENSION:
        raise InvalidQueryError(f"a vector may have at most {MAX_DIMENSION} numbers")
    if not np.isfinite(vectors).all():
        raise InvalidQueryError("the body holds a NaN or an infinity")
    return vectors


class RawOptions(SearchOptions, FreshnessOptions):
    """What stands in the address where the body is float32 values."""

    queries: Annotated[int, Field(ge=1, le=MAX_QUERIES)] = 1
    """How many vectors there are, in a batch."""


def read_options(given: Iterable[tuple[str, str]], *, many: bool) -> RawOptions:
    """The options in an address, name by name; raises as `read_body`.

    Lists are names that come several times, filters and weights are JSON; of ``many`` vectors it is
    said how many there are.
    """
    found: dict[str, Any] = {}
    for name, text in given:
        if name in found and name != "without":
            raise InvalidQueryError(f"{name[:40]!r} is given twice")
        if name == "without":
            found.setdefault(name, []).append(text)
        else:
            found[name] = _READERS.get(name, str)(text)
    if not many and "queries" in found:
        raise InvalidQueryError("queries is for a batch")
    return checked(found, RawOptions)


def _number(text: str) -> Any:
    """A number, where it is one; else the text, which the model then refuses."""
    try:
        return int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def _truth(text: str) -> Any:
    return {"true": True, "false": False}.get(text, text)


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "k": _number,
    "per_group": _number,
    "diversity": _number,
    "rrf_k": _number,
    "queries": _number,
    "max_lag_seconds": _number,
    "filter": _json,
    "weights": _json,
    "rerank": _truth,
    "explain": _truth,
}


def mistakes_text(mistakes: Sequence[Any], *, most: int = 5) -> str:
    """What pydantic found, in one sentence: where, and what would be right."""
    parts = []
    for mistake in mistakes[:most]:
        where = ".".join(str(step)[:100] for step in mistake["loc"])
        parts.append(f"{where}: {mistake['msg']}" if where else mistake["msg"])
    if len(mistakes) > most:
        parts.append(f"and {len(mistakes) - most} more")
    return "; ".join(parts)
