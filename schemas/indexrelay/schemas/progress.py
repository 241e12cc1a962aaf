"""How far a build is: its step, and the share of it that is done."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, OnErrorOmit

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


ProgressByComponent = Annotated[
    dict[OnErrorOmit[Name], OnErrorOmit[BuildProgress]], Field(max_length=MAX_COMPONENTS)
]
"""By component. An entry that is not understood, such as a step that a newer version added, is left
out: the message is as good without it."""
