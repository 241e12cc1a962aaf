"""The JSON Schema (draft 2020-12) of everything that crosses a boundary.

pydantic generates it; what is changed is what pydantic cannot know: the sentences under the fields
become descriptions, an event's ``type`` and ``data`` belong together, and titles that only repeat
a field's name go.
"""

from typing import Any, Literal

from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema

from indexrelay.schemas.documents.descriptions import field_descriptions
from indexrelay.schemas.events import EVENT_TYPES, Event, EventData
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release, VersionManifest

DIALECT = GenerateJsonSchema.schema_dialect
FORMAT = "application/schema+json;version=draft-2020-12"
"""The media type by which AsyncAPI names this dialect."""

_MODELS: dict[str, type[BaseModel]] = {
    "manifest": VersionManifest,
    "reader_state": ReaderState,
    "rebuilder_state": RebuilderState,
    "release": Release,
    "settings": Settings,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its name: the events' types, and the other documents."""
    models = {name: _event(data) for name, data in EVENT_TYPES.items()} | _MODELS
    return {
        name: {"$schema": DIALECT, "$id": f"urn:indexrelay:{name}", **json_schema_of(model)}
        for name, model in sorted(models.items())
    }


def json_schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one model, with the sentences under its fields."""
    return model.model_json_schema(schema_generator=_Generator)


def _event(data: type[EventData]) -> type[BaseModel]:
    """The envelope for one type: its ``data`` is of that type and no other."""
    kind: Any = Literal[data.TYPE]
    return create_model(
        f"{data.__name__}Event", __base__=Event, __doc__=data.__doc__, type=(kind, ...), data=data
    )


class _Generator(GenerateJsonSchema):
    """Adds the descriptions, and leaves out the titles that say nothing."""

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
