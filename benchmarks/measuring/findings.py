"""What a program found: figures with their targets, what was measured for them, and plots.

A *figure* is a ratio, since seconds belong to one machine and a ratio of two things done in turn on
the same one hardly does. What was measured stands beside it, with its spread, for orientation.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from measuring.plots import Plot

_DIGITS = 4
"""Significant digits that are told; the fifth is noise on any machine."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure should reach."""

    relation: Literal["≥", "≤"]
    bound: float

    def met_by(self, value: float) -> bool:
        """Whether ``value`` reaches it."""
        return value >= self.bound if self.relation == "≥" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


def at_least(bound: float) -> Target:
    """More is better."""
    return Target(relation="≥", bound=bound)


def at_most(bound: float) -> Target:
    """Less is better."""
    return Target(relation="≤", bound=bound)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio."""

    name: str
    value: float | None
    """``None``: it could not be measured here, and ``note`` says why."""
    target: Target | None = None
    """``None``: for orientation only."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.value is None and not self.note:
            raise ValueError(f"figure {self.name!r} has no value: its note must say why")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"figure {self.name!r} is {self.value}: that is no measurement")

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; ``None`` without a value or without a target."""
        if self.value is None or self.target is None:
            return None
        return self.target.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """Name, value, target and whether it holds; the note only where there is one."""
        told = {
            "name": self.name,
            "value": rounded(self.value),
            "target": None if self.target is None else str(self.target),
            "holds": self.holds,
        }
        return {**told, "note": self.note} if self.note else told


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The same thing, measured several times."""

    name: str
    unit: str
    values: tuple[float, ...]
    """One for each round, in their order; at least one."""

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Median and extremes, and of how many rounds."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": rounded(self.median),
            "low": rounded(min(self.values)),
            "high": rounded(max(self.values)),
            "rounds": len(self.values),
        }


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that one program found."""

    figures: tuple[Figure, ...]
    measured: tuple[Measured, ...] = ()
    plots: tuple[Plot, ...] = ()
    servers: dict[str, str] = field(default_factory=dict)
    """Versions of the servers that took part, by their names."""


def joined(parts: Iterable[Findings]) -> Findings:
    """The findings of several parts of one program, in their order."""
    together = tuple(parts)
    return Findings(
        figures=tuple(figure for part in together for figure in part.figures),
        measured=tuple(each for part in together for each in part.measured),
        plots=tuple(plot for part in together for plot in part.plots),
        servers={name: version for part in together for name, version in part.servers.items()},
    )


def shown(value: float | None) -> str:
    """For a person: whole above 1,000, with a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def rounded(value: float | None) -> float | None:
    """To four significant digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
