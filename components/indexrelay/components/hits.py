"""One answer of a search, whatever was searched."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Hit:
    """An entry that was found.

    Every search makes its own, so nobody is harmed by what is done to one. Frozen it would cost
    three times as much to make, which ten hits of a query of 50 microseconds show.
    """

    id: str
    score: float
    """How well it fits; each search says in its docstring which way it counts."""
    payload: Any
    """The entry's JSON payload, parsed; ``None`` where it has none."""
