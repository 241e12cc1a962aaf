"""What a component is made as: one table ``[components.NAME]``, and the digest of it.

The keys that every kind has are read here, and what else stands in the table is the kind's own. A
version says by the digest what it was built as, so that a changed definition is noticed.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from indexrelay.schemas.filters import FilterableFields
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.names import Name, canonical_json, sha256_hex, truths_as_text
from indexrelay.schemas.parameter_files import FILE_KEYS, digested, located


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
    properties["matrix"] = {
        "type": "object",
        "additionalProperties": {
            "type": "array",
            "minItems": 1,
            "items": {"type": ["string", "number", "boolean"]},
        },
        "description": "Several components at once, one for each combination: `{ horizon = [6, "
        '12], index = ["Flat", "SQ8"] }` makes `NAME_6h_flat` and three more. An axis is a key of '
        'the component, or is put in where a text names it in braces: `from = "maps_{horizon}"`.',
    }
    schema["additionalProperties"] = True


FILTERING_KINDS: Final = frozenset({"vector_index", "text_index", "search"})
"""Those of our kinds that index the filterable fields of their collection."""


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

    Half: losing more is nearly always a broken source, and one command overrides it.
    """

    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Of what is to be built at once, that with the greater number begins first."""

    build_timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """The time limit of one build; ``None``: the rebuilder's."""

    build_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Private memory of one build beside what it makes; ``None``: the rebuilder's."""

    max_consecutive_failures: Annotated[int, Field(gt=0)] | None = None
    """After so many failed builds in a row it is left alone; ``None``: the rebuilder's."""

    failure_cooldown_seconds: Annotated[float, Field(gt=0)] | None = None
    """The wait before a failed build is first retried; ``None``: the rebuilder's. For how long a
    schedule leaves it alone is said in the schedule."""

    gates: GateSettings = GateSettings()
    """What a new version has to show before it is released."""

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
    def names_files(self) -> bool:
        """Whether files are among its parameters (`indexrelay.schemas.parameter_files`)."""
        return any(key in self.parameters for key in FILE_KEYS)

    @property
    def digest(self) -> str:
        """The sha256 of what a version was built *as*.

        Kind, inputs and parameters only, files by their content: a changed time limit or group
        makes nothing due.
        """
        given = digested(self.parameters) if self.names_files else self.parameters
        document = {"kind": self.kind, "from": list(self.inputs), "parameters": given}
        return sha256_hex(canonical_json(document))

    def filtering_by(self, fields: FilterableFields) -> Self:
        """The same with these ``filterable`` fields of its collection among its parameters.

        Raises:
            ValueError: it names other ones by itself.
        """
        declared = {name: str(kind) for name, kind in fields.items()}
        own = self.parameters.get("filterable")
        if own is not None and own != declared:
            raise ValueError(
                "filterable is declared once, in the collection; leave it out of the component"
            )
        if not declared:
            return self
        return self.model_copy(update={"parameters": {**self.parameters, "filterable": declared}})

    @classmethod
    def of(cls, kind: str, *inputs: str, **keys: Any) -> Self:
        """Declare a component in Python: ``ComponentDefinition.of("vector_index", "tracks")``.

        Files that ``keys`` name are relative to the current folder, and read here.
        """
        keys = located(keys, Path.cwd())
        return cls.model_validate({"kind": kind, "from": list(inputs), **keys})
