"""What was asked for: a component as its user declares it."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from indexrelay.schemas.canonical import canonical_json, sha256_hex
from indexrelay.schemas.names import Name
from indexrelay.schemas.numbers import truths_as_text


def _as_tuple(value: Any) -> Any:
    """Let ``from = "tracks"`` stand for ``from = ["tracks"]``."""
    return (value,) if isinstance(value, str) else value


def _json_value(value: Any) -> Any:
    """Refuse what TOML has and JSON has not: the definition's digest is taken over JSON."""
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise ValueError("must be JSON: write a date as text, and no nan or inf") from error
    return value


def _as_written(schema: dict[str, Any]) -> None:
    """Describe the table as it stands in TOML: flat, and with one input as a plain text."""
    properties = schema["properties"]
    del properties["parameters"]
    inputs = properties["from"]
    properties["from"] = {
        "anyOf": [dict(inputs["items"]), inputs],
        "description": "One collection or component, or a list of them.",
    }
    schema["additionalProperties"] = True


class ComponentDefinition(BaseModel):
    """One table ``[components.NAME]``: the keys that every kind has, and the kind's own.

    Keys that are not listed here are the kind's parameters; the kind's own model checks them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_as_written
    )

    kind: Annotated[str, Field(min_length=1)]
    """An installed kind (``vector_index``), or ``module:Class``."""

    inputs: Annotated[
        tuple[Name, ...], Field(alias="from", min_length=1), BeforeValidator(_as_tuple)
    ]
    """The collections and components that it is made from, in the order the kind sees them."""

    group: Name | None = None
    """Components of one group are released and flip together, or not at all; ``None``: by itself.

    They agree on what they cover of every collection that they have in common. Those that read the
    same one are built side by side where ``rebuilder.workers`` are as many as they are, and one
    after another from one snapshot where there are fewer.
    """

    required: bool = True
    """Whether a reader is ready only when it serves this component."""

    max_shrink: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of entries that may vanish from one version to the next without ``--force``.

    Half: losing more is nearly always a broken source, and it costs one command to say it is not.
    """

    build_timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """The time limit of one build; ``None``: the rebuilder's."""

    build_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Private memory of one build beside what it makes; ``None``: the rebuilder's."""

    parameters: dict[str, Annotated[Any, AfterValidator(_json_value)]] = Field(default_factory=dict)
    """The kind's own keys, as given."""

    @model_validator(mode="before")
    @classmethod
    def _take_parameters(cls, data: Any) -> Any:
        """Move what is not a common key into ``parameters``: a table in TOML is flat."""
        if not isinstance(data, dict) or "parameters" in data:
            return data
        own = {field.alias or name for name, field in cls.model_fields.items()} | {"inputs"}
        common = {key: value for key, value in data.items() if key in own}
        rest = {key: value for key, value in data.items() if key not in own}
        return {**truths_as_text(cls, common), "parameters": rest}

    @property
    def digest(self) -> str:
        """The sha256 that says what a version was built *as*.

        Kind, inputs and parameters only: a changed time limit or group makes nothing due.
        """
        return sha256_hex(
            canonical_json(
                {"kind": self.kind, "from": list(self.inputs), "parameters": self.parameters}
            )
        )

    @classmethod
    def of(cls, kind: str, *inputs: str, **keys: Any) -> Self:
        """Declare a component in Python: ``ComponentDefinition.of("vector_index", "tracks")``."""
        return cls.model_validate({"kind": kind, "from": list(inputs), **keys})
