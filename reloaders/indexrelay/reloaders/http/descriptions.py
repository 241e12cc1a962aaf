"""What OpenAPI says of the service: every answer's shape, and every status of every route."""

from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from indexrelay.health.verdict import Problem
from indexrelay.reloaders.http.problems import MEDIA_TYPE, ProblemDetails
from indexrelay.reloaders.querying import SearchRequest
from indexrelay.schemas.versions import VersionManifest

_EVERYWHERE: Final = (400, 405, 408, 413, 500, 503)
"""What any request may meet: no HTTP, another method, too slow, too large, a fault, no room."""
_REF: Final = "#/components/schemas/{model}"


class Health(BaseModel):
    """Whether the reader is well; that it answers says that it is alive."""

    status: Literal["alive"] = "alive"
    well: bool
    problems: tuple[Problem, ...]


class Ready(BaseModel):
    """Whether every required component is served."""

    ready: bool


class Accepted(BaseModel):
    """It will be done."""

    accepted: Literal[True] = True


class Component(BaseModel):
    """One version that is served."""

    kind: str
    version: str
    covers: dict[str, int]
    entries: int
    bytes: int
    created_at: datetime

    @classmethod
    def of(cls, version: str, manifest: VersionManifest) -> "Component":
        """As its manifest says; ``version`` is the id that the release gives, since a manifest of
        a newer minor version has fields that are unknown here."""
        return cls(
            kind=manifest.kind,
            version=version,
            covers=dict(manifest.covers),
            entries=manifest.entries,
            bytes=manifest.size,
            created_at=manifest.created_at,
        )


class Components(BaseModel):
    """All of them, and the release that they are of."""

    release: int
    components: dict[str, Component]


def refusals(
    *statuses: int, or_else: tuple[int, type[BaseModel]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its description.

    Args:
        statuses: those beside what any request may meet.
        or_else: a status that also has an answer which is no problem.
    """
    schema = {"$ref": _REF.format(model=ProblemDetails.__name__)}
    found: dict[int | str, dict[str, Any]] = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted({*_EVERYWHERE, *statuses})
    }
    if or_else is not None:
        found[or_else[0]]["model"] = or_else[1]
    return found


def search_body() -> dict[str, Any]:
    """The body of a search, which is read by a thread and not by the framework."""
    schema = {"$ref": _REF.format(model=SearchRequest.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Add the models that no route names by itself."""
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(get_openapi(title=app.title, version=app.version, routes=app.routes))
            models = [(SearchRequest, "validation"), (ProblemDetails, "serialization")]
            _, found = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type] # literals
            described["components"]["schemas"] |= found["$defs"]
        return described

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it
