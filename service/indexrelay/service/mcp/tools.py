"""What an agent can call: each tool, what it takes, and which requests of the HTTP API it is.

Descriptions are written for a model that chooses by them. Schemas are tight: every key is declared,
and every length and number has bounds, so that a client can refuse a call before it is sent. Here
all of it is checked again, by the same models. The hits of an answer are few by default, since an
agent pays for every word that it reads.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from indexrelay.schemas.names import Name, canonical_json
from indexrelay.schemas.session import MAX_CHARACTERS as MAX_SESSION
from indexrelay.service.bodies import (
    MAX_DIMENSION,
    MAX_LAG_SECONDS,
    MAX_PER_GROUP,
    MAX_TEXT,
    Body,
    EntryId,
    FilterObject,
)
from indexrelay.service.client.answers import (
    NotAllowedError,
    NotFoundError,
    ReaderError,
    RequestRefusedError,
)
from indexrelay.service.mcp.api import Api

MAX_K: Final = 100
MAX_IDS: Final = 100
MAX_HIT_TEXT: Final = 2_000
"""Characters of the text of one hit."""
_NO_SUCH_PATH: Final = "Not Found"
"""What is answered where there is no such route at all."""
MAX_RESULT_CHARACTERS: Final = 200_000
"""Of what a tool gives back: more would be most of what a model can read at all."""
MAX_ENTRY_TEXT: Final = 100_000
"""Characters of the text of one entry, written or read."""

Vector = Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIMENSION, fail_fast=True)]
NewId = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]
Ids = Annotated[list[EntryId], Field(min_length=1, max_length=MAX_IDS)]


class Arguments(Body):
    """What a tool takes; the docstring of a field is what a model reads of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class FreshArguments(Arguments):
    """How fresh an answer has to be; without any of them it has what was seen and written here."""

    session: Annotated[str, Field(min_length=1, max_length=MAX_SESSION)] | None = None
    """The `session` of an answer, yours or that of another agent: everything that it had seen or
    written is found."""
    consistency: Literal["eventual", "bounded", "session", "strong"] | None = None
    """`strong`: everything that was committed before this call; it may take a moment. `bounded`:
    all but the last `max_lag_seconds`."""
    max_lag_seconds: Annotated[FiniteFloat, Field(ge=0, le=MAX_LAG_SECONDS)] | None = None
    """With `bounded`."""


class SearchArguments(FreshArguments):
    """One question to a component."""

    component: Name
    """Which component is asked; `status` lists them, with what each can be asked."""
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    """Words, or a question in plain language."""
    id: EntryId | None = None
    """Instead of a text: an entry; finds those most like it."""
    like: Annotated[list[EntryId], Field(min_length=1, max_length=MAX_IDS)] | None = None
    """Instead of a text: ids of good examples."""
    unlike: Annotated[list[EntryId], Field(max_length=MAX_IDS)] | None = None
    """With `like`: ids of bad examples."""
    vector: Vector | None = None
    """Instead of a text, or beside it: an embedding of the collection's dimension. Leave it out
    unless you compute embeddings by yourself."""
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 5
    """How many hits."""
    filter: FilterObject | None = None
    """Only entries whose payload matches, such as {"topic": "billing"} or {"year": {"$gte": 2020}},
    by the fields that `status` lists. Operators: $eq $ne $gt $gte $lt $lte $in $nin $any $all
    $exists $and $or $not."""
    without: Annotated[list[EntryId], Field(max_length=MAX_IDS)] | None = None
    """Ids that are not to be found."""
    group_by: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A field: at most `per_group` hits (1) that have the same value of it."""
    per_group: Annotated[int, Field(ge=1, le=MAX_PER_GROUP)] | None = None
    """With `group_by`: hits of each group."""
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None
    """0: the best hits; towards 1: hits that differ from each other."""
    texts: bool = True
    """Whether hits have the beginning of their text, where the component knows it."""


class GetArguments(FreshArguments):
    """Entries by their ids."""

    component: Name
    """Which component is asked; `status` lists them."""
    ids: Ids
    """The ids of the entries."""


class StatusArguments(Arguments):
    """What there is."""

    collection: Name | None = None
    """Only this one; without it all are listed."""


class NewEntry(Arguments):
    """One entry to remember."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_ENTRY_TEXT)] | None = None
    """What is to be found again: self-contained, since others read it without your context."""
    id: NewId | None = None
    """An id of your choice, in one line; an entry that has it already gets what is given here, and
    keeps a text or payload that is not. Without one it follows from the content, so that the same
    entry twice is one."""
    payload: dict[str, Any] | None = None
    """Facts about it, as JSON. Fields that `status` lists for the collection can be filtered by,
    and must have the type that is listed."""
    vector: Vector | None = None
    """An embedding of the collection's dimension. Leave it out unless you compute embeddings by
    yourself: the collection embeds texts where it has an embedder."""


class RememberArguments(Arguments):
    """Entries to write."""

    collection: Name
    """Where to; `status` lists the collections."""
    entries: Annotated[list[NewEntry], Field(min_length=1, max_length=MAX_IDS)]
    """The entries; all of them are written, or none."""


class ForgetArguments(Arguments):
    """Entries to delete."""

    collection: Name
    """From where; `status` lists the collections."""
    ids: Ids
    """The ids of the entries."""


Run = Callable[[Api, Any], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class ToolDefinition:
    """One tool."""

    name: str
    title: str
    description: str
    arguments: type[Body]
    run: Run
    writes: bool = False
    destroys: bool = False
    """Whether what it takes away is gone."""

    @property
    def input_schema(self) -> dict[str, Any]:
        """What it takes, as JSON Schema."""
        return schema_of(self.arguments)


def _component(name: str, what: str) -> str:
    return f"/v1/components/{quote(name, safe='')}/{what}"


async def search(api: Api, asked: SearchArguments) -> dict[str, Any]:
    """The hits of one question, each with the beginning of its text."""
    answer = await api.ask("POST", _component(asked.component, "search"), _question(asked))
    found = {hit["id"]: hit for hit in answer["hits"]}
    if found and asked.texts:
        try:
            # Not from before these hits, whichever instance answers.
            body = {"ids": [*found], "session": answer.get("session") or None}
            # Another component may have stood in.
            held = await api.ask("POST", _component(answer["component"], "entries"), body)
        except RequestRefusedError:  # a kind of a user's own, which gives no entries
            return answer
        for entry in held["entries"]:
            if entry is not None and entry.get("text") is not None:
                found[entry["id"]]["text"] = _shortened(entry["text"], MAX_HIT_TEXT)
    return answer


def _question(asked: SearchArguments) -> dict[str, Any]:
    return asked.model_dump(exclude={"component", "texts"}, exclude_none=True)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… (of {len(text):,} characters)"


async def explain(api: Api, asked: SearchArguments) -> dict[str, Any]:
    """How a question is answered; of its hits ids and scores alone."""
    body = {**_question(asked), "explain": True}
    answer = await api.ask("POST", _component(asked.component, "search"), body)
    for hit in answer["hits"]:
        del hit["payload"]
    return answer


async def get(api: Api, asked: GetArguments) -> dict[str, Any]:
    """The entries that are there, and the ids of those that are not."""
    body = asked.model_dump(exclude={"component"}, exclude_none=True)
    answer = await api.ask("POST", _component(asked.component, "entries"), body)
    entries = answer["entries"]
    missing = [each for each, entry in zip(asked.ids, entries, strict=True) if entry is None]
    found = [each for each in entries if each is not None]
    for each in found:
        if each.get("text") is not None:
            each["text"] = _shortened(each["text"], MAX_ENTRY_TEXT)
    return {**answer, "entries": found, "missing": missing}


async def status(api: Api, asked: StatusArguments) -> dict[str, Any]:
    """Each collection, and what is not well."""
    try:
        listed = await api.ask("GET", "/v1/collections")
    except NotAllowedError as error:
        raise NotListedError(error) from error
    health = await api.ask("GET", "/health")
    collections = listed["collections"]
    if asked.collection is not None:
        if asked.collection not in collections:
            there = ", ".join(collections) or "none"
            raise NoSuchCollectionError(asked.collection, there)
        collections = {asked.collection: collections[asked.collection]}
    problems = [{"what": each["what"], "advice": each["advice"]} for each in health["problems"]]
    return {
        "well": health["well"],
        "problems": problems,
        "release": listed["release"],
        "collections": collections,
    }


class NotListedError(ReaderError):
    """Raised when a token may search, and not see what everybody has."""

    def __init__(self, error: NotAllowedError) -> None:
        super().__init__(f"{error}; search and get answer all the same: name the component")


class NotWritableError(ReaderError):
    """Raised when a reader takes no writes over HTTP."""

    def __init__(self) -> None:
        super().__init__("nothing can be written by this reader: that takes http.writes = true")


class NoSuchCollectionError(ReaderError):
    """Raised when a collection is asked for that the settings do not declare."""

    def __init__(self, collection: str, there: str) -> None:
        super().__init__(f"there is no collection {collection!r}; there is {there}")


async def remember(api: Api, asked: RememberArguments) -> dict[str, Any]:
    """Write entries; they are durable then."""
    entries = [
        {"id": each.id or content_id(each), **each.model_dump(exclude={"id"}, exclude_none=True)}
        for each in asked.entries
    ]
    answer = await _write(api, "PUT", asked.collection, "entries", {"entries": entries})
    return {**answer, "ids": [each["id"] for each in entries]}


def content_id(entry: NewEntry) -> str:
    """An id that follows from what an entry holds."""
    held = entry.model_dump(mode="json", exclude={"id"}, exclude_none=True)
    return f"m-{hashlib.sha256(canonical_json(held)).hexdigest()[:32]}"


async def forget(api: Api, asked: ForgetArguments) -> dict[str, Any]:
    """Delete entries."""
    return await _write(api, "POST", asked.collection, "entries/delete", {"ids": asked.ids})


async def _write(
    api: Api, method: str, collection: str, what: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    path = f"/v1/collections/{quote(collection, safe='')}/{what}"
    try:
        return await api.ask(method, path, body)
    except NotFoundError as error:
        raise NotWritableError if str(error) == _NO_SUCH_PATH else error from error


TOOLS: Final = (
    ToolDefinition(
        name="search",
        title="Search",
        description="Find the entries of a component that fit best: by `text` (words or a "
        "question), by the `id` of an entry, or by `like` examples; give exactly one of them. What "
        "other agents remembered is found within milliseconds where the collection is live. "
        "`degraded: true` in the answer means that it was found in a lesser way than usual, and "
        "says why. Call `status` first if you do not know which components there are.",
        arguments=SearchArguments,
        run=search,
    ),
    ToolDefinition(
        name="get",
        title="Get entries",
        description="Get entries by their ids, with payload and, where the component has it, text. "
        "Ids that are not there are listed in `missing`.",
        arguments=GetArguments,
        run=get,
    ),
    ToolDefinition(
        name="status",
        title="Collections and health",
        description="List the collections: dimension, filterable fields with their types, how many "
        "entries, and which components answer for each, by `text`, `id`, `like` or `vector`. Says "
        "also whether all is well, and if not what to do. Call it before the first search.",
        arguments=StatusArguments,
        run=status,
    ),
    ToolDefinition(
        name="explain",
        title="Explain a search",
        description="Run a search as `search` does, and say how it was answered: the plan, which "
        "layers were searched and how, how many entries the filter matched, and how long each "
        "stage took. For when hits are missing or slow; payloads are left out.",
        arguments=SearchArguments,
        run=explain,
    ),
    ToolDefinition(
        name="remember",
        title="Remember",
        description="Write entries into a collection that other agents search, all of them or "
        "none; the answer comes when they are durable. An entry of the same id gets what is given, "
        "and keeps a text or payload that is not. "
        "Without an id the same content is the same entry, so repeating a call changes nothing.",
        arguments=RememberArguments,
        run=remember,
        writes=True,
    ),
    ToolDefinition(
        name="forget",
        title="Forget",
        description="Delete entries by their ids, for everybody who uses the collection. An id "
        "that is not there is no error.",
        arguments=ForgetArguments,
        run=forget,
        writes=True,
        destroys=True,
    ),
)
"""Every tool, in the order in which they are listed."""


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of arguments, as short as it can be for whoever reads it.

    Titles repeat names, and what may be left out need not be null as well.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    plain = _plain(schema, definitions)
    del plain["description"]
    return plain


def _plain(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(schema)
    if "$ref" in given:
        given = {**definitions[given.pop("$ref").rpartition("/")[2]], **given}
    arms = [arm for arm in given.pop("anyOf", ()) if arm.get("type") != "null"]
    if arms:
        given = {**arms[0], **given}
    given.pop("title", None)
    if given.get("default", "") is None:
        del given["default"]
    if "description" in given:
        given["description"] = " ".join(given["description"].split())
    if "items" in given:
        given["items"] = _plain(given["items"], definitions)
    if "properties" in given:
        given["properties"] = {
            name: _plain(each, definitions) for name, each in given["properties"].items()
        }
    return given
