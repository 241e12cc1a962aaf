"""What a reconciliation repaired, and what it would have repaired and could not yet."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Standing(StrEnum):
    """What became of a difference."""

    MENDED = "mended"
    """It was put right just now."""
    WAITING = "waiting"
    """A running process puts it right by itself."""
    LEFT = "left"
    """It stays until a person does something."""


class Finding(BaseModel):
    """One difference."""

    model_config = ConfigDict(frozen=True)

    about: str
    """``store``, ``release``, ``redis``, ``key``, ``group`` or ``lease``."""
    what: str
    standing: Standing
    advice: str = ""
    """What comes next, or what a person can do."""


class Reconciliation(BaseModel):
    """Everything that was found at one look."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...] = ()

    @property
    def mended(self) -> tuple[str, ...]:
        """What was put right, a sentence each."""
        return tuple(each.what for each in self.findings if each.standing is Standing.MENDED)
