"""The messages and settings as documents for readers who do not read Python.

One JSON Schema for each event, for what lies on disk and in presence, and for the settings file;
and an AsyncAPI document of who sends which event where. All of it is generated from the models:
``python -m indexrelay.schemas.documents docs`` writes it, ``--check`` compares it.

pydantic generates the schemas (draft 2020-12). The sentences under the fields, which Python throws
away, are read from the source and become descriptions.
"""

import argparse
import ast
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from indexrelay.schemas.backups import BackupManifest
from indexrelay.schemas.filters import filter_schema
from indexrelay.schemas.messages import (
    EVENT_TYPES,
    FIELD,
    BatchCompleted,
    ChangesCommitted,
    EventData,
    ReaderState,
    RebuilderState,
    RebuildFinished,
    RebuildRequested,
    ReleaseApplied,
    ReleasePublished,
    event_class,
)
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import SCHEMA_VERSION, Release, VersionManifest


def field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """For each field that has one: the sentence under it, its classes' parents included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel and _has_source(cls):
            found |= _in_class(cls)
    return found


def _has_source(cls: type[BaseModel]) -> bool:
    """Not so for a model that was put together at run time."""
    return getattr(sys.modules[cls.__module__], cls.__name__, None) is cls


def _in_class(cls: type[BaseModel]) -> dict[str, str]:
    body = _class_body(cls)
    return {
        field.target.id: inspect.cleandoc(sentence.value.value)
        for field, sentence in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(sentence, ast.Expr)
        and isinstance(sentence.value, ast.Constant)
        and isinstance(sentence.value.value, str)
    }


def _class_body(cls: type[Any]) -> list[ast.stmt]:
    statement = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    return statement.body if isinstance(statement, ast.ClassDef) else []


DIALECT = GenerateJsonSchema.schema_dialect
FORMAT = "application/schema+json;version=draft-2020-12"
"""The media type by which AsyncAPI names this dialect."""

_MODELS: dict[str, type[BaseModel]] = {
    "backup": BackupManifest,
    "manifest": VersionManifest,
    "reader_state": ReaderState,
    "rebuilder_state": RebuilderState,
    "release": Release,
    "settings": Settings,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its name: the events' types, and the other documents."""
    models = {name: event_class(data) for name, data in EVENT_TYPES.items()} | _MODELS
    schemas = {name: json_schema_of(model) for name, model in models.items()}
    schemas["filter"] = {"description": "The filter of a search.", **filter_schema()}
    return {
        name: {"$schema": DIALECT, "$id": f"urn:indexrelay:{name}", **schema}
        for name, schema in sorted(schemas.items())
    }


def json_schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one model, with the sentences under its fields."""
    return model.model_json_schema(schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    """Adds the descriptions, and leaves out titles that repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        generated = super().model_schema(schema)
        model = schema["cls"]
        fields = model.model_fields
        for name, sentence in field_descriptions(model).items():
            written = (fields[name].alias or name) if name in fields else name
            described = generated.get("properties", {}).get(written)
            if described is not None:
                described.setdefault("description", " ".join(sentence.split()))
        return generated


Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One stream: what travels on it, from which role to which."""

    description: str
    messages: tuple[type[EventData], ...]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    """What follows the name in the stream's key, beside the tag before it."""


CHANNELS: Final = {
    "events": Channel(
        description="Something may be due; read by the consumer group `rebuilder`.",
        messages=(BatchCompleted, RebuildRequested),
        senders=("producer", "console"),
        receivers=("rebuilder",),
    ),
    "results": Channel(
        description="What came of each rebuild, for operators.",
        messages=(RebuildFinished,),
        senders=("rebuilder",),
        receivers=("console",),
    ),
    "reloads": Channel(
        description="There is a new release; every reader reads all of it, with its own cursor.",
        messages=(ReleasePublished,),
        senders=("rebuilder",),
        receivers=("reader",),
    ),
    "reports": Channel(
        description="What the readers under one label made of each release.",
        messages=(ReleaseApplied,),
        senders=("reader",),
        receivers=("console",),
        parameters=("label",),
    ),
    "changes": Channel(
        description="What changed in a live collection; every reader that lays it over its release "
        "reads all of it, with its own cursor.",
        messages=(ChangesCommitted,),
        senders=("producer",),
        receivers=("reader",),
        parameters=("collection",),
    ),
}
"""By the name in the stream's key."""


def asyncapi_document() -> Document:
    """The whole document; payloads refer to the JSON Schema files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "indexrelay",
            "version": SCHEMA_VERSION,
            "description": (
                'Events that say "look now" between analysis jobs, the rebuilder and the readers. '
                "An event never carries truth: a lost, repeated or reordered one costs time, never "
                "correctness. Each is a CloudEvents 1.0 message in JSON, the one field of a Redis "
                "stream entry. Fields that a newer minor version added are to be ignored."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {name: _channel(name, channel) for name, channel in CHANNELS.items()},
        "operations": dict(_operations()),
        "components": {
            "messages": {_camel(data): _message(data) for data in EVENT_TYPES.values()},
            "parameters": {
                "tag": {
                    "description": "The namespace in braces: one hash tag for all of its keys.",
                    "default": "{indexrelay}",
                    "examples": ["{indexrelay}"],
                },
                "label": {
                    "description": "What a reader is called; each label has a stream of its own.",
                    "examples": ["web-1"],
                },
                "collection": {
                    "description": "The name of a collection; each has a stream of its own.",
                    "examples": ["tracks"],
                },
            },
        },
    }


def _channel(name: str, channel: Channel) -> Document:
    address = ":".join(["{tag}", name, *(f"{{{each}}}" for each in channel.parameters)])
    return {
        "address": address,
        "description": channel.description,
        "parameters": {
            each: {"$ref": f"#/components/parameters/{each}"}
            for each in ("tag", *channel.parameters)
        },
        "messages": {
            _camel(data): {"$ref": f"#/components/messages/{_camel(data)}"}
            for data in channel.messages
        },
        "x-redis": {"type": "stream", "field": FIELD.decode()},
    }


def _operations() -> list[tuple[str, Document]]:
    """One for each role and stream: what that role does there."""
    return [
        (
            f"{role}_{action}s_{name}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [
                    {"$ref": f"#/channels/{name}/messages/{_camel(data)}"}
                    for data in channel.messages
                ],
                "tags": [{"name": role}],
            },
        )
        for name, channel in CHANNELS.items()
        for action, roles in (("send", channel.senders), ("receive", channel.receivers))
        for role in roles
    ]


def _message(data: type[EventData]) -> Document:
    return {
        "name": data.TYPE,
        "title": (data.__doc__ or "").splitlines()[0],
        "contentType": "application/cloudevents+json",
        "payload": {"schemaFormat": FORMAT, "schema": {"$ref": f"schemas/{data.TYPE}.json"}},
    }


def _camel(data: type[EventData]) -> str:
    return data.__name__[0].lower() + data.__name__[1:]


def contents() -> dict[str, str]:
    """Every file by its path below the folder; the same models give the same bytes."""
    documents: dict[str, Any] = {
        f"schemas/{name}.json": schema for name, schema in json_schemas().items()
    }
    documents["asyncapi.json"] = asyncapi_document()
    return {
        path: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for path, document in documents.items()
    }


def differences(folder: Path) -> Iterator[str]:
    """What differs, one sentence for each file."""
    wanted = contents()
    for path, text in wanted.items():
        file = folder / path
        if not file.is_file():
            yield f"{file} is missing"
        elif file.read_text(encoding="utf-8") != text:
            yield f"{file} is not what the models say"
    for file in sorted((folder / "schemas").glob("*.json")):
        if f"schemas/{file.name}" not in wanted:
            yield f"{file} belongs to no model"


def write(folder: Path) -> None:
    """Write every file, and remove the schemas that belong to no model any more."""
    wanted = contents()
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        (folder / path).write_text(text, encoding="utf-8")
    for file in (folder / "schemas").glob("*.json"):
        if f"schemas/{file.name}" not in wanted:
            file.unlink()


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare; 1 when something differs."""
    parser = argparse.ArgumentParser(
        prog="python -m indexrelay.schemas.documents",
        description="Generate the JSON Schema files and the AsyncAPI document from the models.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where they lie (docs)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    given = parser.parse_args(arguments)
    if not given.check:
        write(given.folder)
        return 0
    found = list(differences(given.folder))
    if found:
        sys.stderr.write("\n".join([*found, "write them again with: make docs"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
