"""What every table of the settings is made of: their base class, and the types that several have.

A key that a table does not know is a mistake. TOML has no null, so that ``false`` stands for "no
limit" where the default is one.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from indexrelay.schemas.names import truths_as_text

PositiveSeconds = Annotated[float, Field(gt=0)]
PositiveCount = Annotated[int, Field(gt=0)]


def _false_as_none(value: Any) -> Any:
    """TOML has no null: where the default is a limit, ``false`` means no limit."""
    if str(value).lower() == "true":  # or it would count as 1
        raise ValueError("must be a number, or false for no limit")
    return None if str(value).lower() == "false" else value


CountOrFalse = Annotated[
    PositiveCount | None,
    BeforeValidator(_false_as_none, json_schema_input_type=PositiveCount | Literal[False]),
]
SecondsOrFalse = Annotated[
    PositiveSeconds | None,
    BeforeValidator(_false_as_none, json_schema_input_type=PositiveSeconds | Literal[False]),
]

MillisecondsOrFalse = SecondsOrFalse

FunctionReference = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""``module:function``, both as Python spells them."""


def _at_home(path: Path) -> Path:
    """A leading ``~`` or ``~NAME`` is a home folder, as in a shell."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"there is no home folder {path.parts[0]!r}; write the path out"
        ) from error


UserPath = Annotated[Path, AfterValidator(_at_home)]


class Table(BaseModel):
    """One table of the file; a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truths_are_no_numbers(cls, table: Any) -> Any:
        return truths_as_text(cls, table)
