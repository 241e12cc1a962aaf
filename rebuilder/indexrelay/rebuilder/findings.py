"""What a reconciliation found: one difference each between what is and what should be."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Standing(StrEnum):
    """What became of a difference."""

    MENDED = "mended"
    """It was put right just now."""
    WAITING = "waiting"
    """A running process puts it right by itself."""
    DECIDED = "decided"
    """A person wants it so: held, or paused."""
    LEFT = "left"
    """It stays until a person does something."""


class Finding(BaseModel):
    """One difference."""

    model_config = ConfigDict(frozen=True)

    about: str
    """``store``, ``release``, ``redis``, ``group``, ``events``, ``lease``, ``reader``,
    ``component``, ``collection`` or ``dead_letters``."""
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

    @property
    def needs_a_person(self) -> bool:
        """Whether something stays until somebody does something."""
        return any(each.standing is Standing.LEFT for each in self.findings)
