"""What the service says of itself: its OpenAPI document, complete and rendered once.

Bodies are read by threads and models of our own, and not by the framework; so are errors. Both are
described here.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from indexrelay.schemas.session import HEADER, MAX_CHARACTERS
from indexrelay.service.bodies import (
    JSON,
    VECTORS,
    BatchRequest,
    Body,
    CountRequest,
    DeleteRequest,
    EntriesRequest,
    NeighboursRequest,
    PatchRequest,
    RawOptions,
    RebuildRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
)
from indexrelay.service.entries import NeighboursAnswer
from indexrelay.service.problems import MEDIA_TYPE, ProblemDetails
from indexrelay.service.tokens import OPEN_PATHS

_EVERY_REQUEST: Final = (400, 405, 408, 413, 421, 500, 503)
"""No HTTP, another method, too slow, too large, another host, a fault of ours, no room."""
_WITH_TOKENS: Final = (401, 403)
"""No token, or one that may not."""
_REF: Final = "#/components/schemas/{model}"
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    SearchRequest,
    BatchRequest,
    EntriesRequest,
    CountRequest,
    ScrollRequest,
    NeighboursRequest,
    RebuildRequest,
)
_WRITES: Final[tuple[type[BaseModel], ...]] = (UpsertRequest, DeleteRequest, PatchRequest)


def refusals(
    *statuses: int, or_else: tuple[int, type[BaseModel]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its description.

    Args:
        statuses: beside those that every request may get.
        or_else: a status that also has an answer which is no problem.
    """
    schema = {"$ref": _REF.format(model=ProblemDetails.__name__)}
    found: dict[int | str, dict[str, Any]] = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted({*_EVERY_REQUEST, *statuses})
    }
    if or_else is not None:
        found[or_else[0]]["model"] = or_else[1]
    return found


def body_of(model: type[Body], *, raw: str = "") -> dict[str, Any]:
    """A body in JSON; ``raw``: what else it may be, as bytes, in words."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    if raw:
        schema = {"type": "string", "format": "binary", "description": raw}
        content[VECTORS] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


def body_or_vectors_of(model: type[Body], *, many: bool) -> dict[str, Any]:
    """A body in JSON, or float32 values with the options in the address."""
    what = "Vectors one after another" if many else "One vector"
    described = body_of(
        model,
        raw=f"{what}: float32 values, little-endian. The options stand in the address then; with a "
        "body in JSON there are none.",
    )
    described["parameters"] = [
        {"name": name, "in": "query", "required": False, **_parameter(schema)}
        for name, schema in _options_schema().items()
        if many or name != "queries"
    ]
    return described


def _options_schema() -> Mapping[str, Any]:
    properties: Mapping[str, Any] = RawOptions.model_json_schema()["properties"]
    return properties


def _parameter(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter in the address; what is an object is JSON there."""
    arms = [arm for arm in schema.get("anyOf", ()) if arm.get("type") != "null"]
    value = {**(arms[0] if arms else schema)}
    value.pop("title", None)
    if value.get("type") == "object":
        return {"content": {JSON: {"schema": value}}}
    return {"schema": value}


def describe(app: FastAPI, *, with_tokens: bool, with_writes: bool = False) -> dict[str, Any]:
    """The document of an application whose routes are all there.

    Args:
        app: whose routes are described.
        with_tokens: whether it answers to those who have a token.
        with_writes: whether entries may be written.
    """
    described = get_openapi(title=app.title, version=app.version, routes=app.routes)
    models: list[tuple[type[BaseModel], str]] = [
        (model, "validation") for model in (*_BODIES, *(_WRITES if with_writes else ()))
    ]
    models += [(ProblemDetails, "serialization"), (NeighboursAnswer, "serialization")]
    _, found = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type] # literals
    described["components"]["schemas"] |= found["$defs"]
    _describe_sessions(described)
    if with_tokens:
        _describe_tokens(described)
    return described


def _describe_sessions(described: dict[str, Any]) -> None:
    """The header of questions to a component, and of their answers."""
    schema = {"type": "string", "maxLength": MAX_CHARACTERS}
    asked = {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": "A session token: the answer contains everything that it names",
        "schema": schema,
    }
    answered = {"description": "The session token of whoever has seen the answer", "schema": schema}
    for path, operations in described["paths"].items():
        if "/components/{name}/" not in path or path.endswith("/document"):
            continue
        for operation in operations.values():
            operation.setdefault("parameters", []).append(asked)
            operation["responses"]["200"]["headers"] = {HEADER: answered}


def _describe_tokens(described: dict[str, Any]) -> None:
    described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    problems = refusals(*_WITH_TOKENS)
    for path, operations in described["paths"].items():
        for operation in operations.values():
            # A token that is shown has to be right, also where none is needed.
            shown: dict[str, list[str]] = {"token": []}
            operation["security"] = [shown, {}] if path in OPEN_PATHS else [shown]
            for status in (401,) if path in OPEN_PATHS else _WITH_TOKENS:
                operation["responses"][str(status)] = problems[status]
