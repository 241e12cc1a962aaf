"""How far a build is: its step, and the share of it that is done."""

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from indexrelay.schemas.names import MAX_COMPONENTS, Name


class BuildStep(StrEnum):
    """The steps of one build, in their order."""

    WAITING = "waiting"
    """For memory, or for a process."""
    READING = "reading"
    """Its inputs and the version before it are opened."""
    BUILDING = "building"
    """The kind makes its files; the share is what it reports."""
    VERIFYING = "verifying"
    """The files are hashed, and the gates measure them."""
    STORING = "storing"
    """What passed is put into the store."""
    RELEASING = "releasing"
    """It is built, and waits for the release that has it."""


class BuildProgress(BaseModel):
    """How far one build is."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    step: BuildStep
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the step that is done; ``None``: that is not known."""
    started_at: AwareDatetime
    """When the build began, not its step."""


def _understood(given: object) -> object:
    """What of a message's progress is understood here; the message is as good without the rest."""
    if not isinstance(given, Mapping):
        return given
    found: dict[object, BuildProgress] = {}
    for name, each in islice(given.items(), MAX_COMPONENTS):
        with suppress(ValidationError):
            found[_NAME.validate_python(name)] = BuildProgress.model_validate(_known(each))
    return found


def _known(given: object) -> object:
    """The same in the words of this version.

    A step that a newer one added is some part of the build, and its share not known; a share that
    was rounded out of 0 to 1 is put right.
    """
    if not isinstance(given, Mapping):
        return given
    step, share = given.get("step"), given.get("share")
    if isinstance(step, str) and step not in set(BuildStep):
        return {**given, "step": BuildStep.BUILDING, "share": None}
    if not isinstance(share, int | float):
        return {**given, "share": None}
    # NaN is not equal to itself; math.isnan fails on a whole number larger than any float.
    return {**given, "share": min(max(share, 0), 1) if share == share else None}


_NAME: Final = TypeAdapter[str](Name)
ProgressByComponent = Annotated[dict[Name, BuildProgress], BeforeValidator(_understood)]
"""By component; entries that are not understood are left out."""
