"""One answer of a search, whatever was searched."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found."""

    id: str
    score: float
    """How well it fits; each search says in its docstring which way it counts."""
    payload: Any
    """The entry's JSON payload, parsed; ``None`` where it has none."""
