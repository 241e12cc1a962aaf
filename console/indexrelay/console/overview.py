"""The whole installation on one page: what there is, what serves it, and what is wrong.

Facts only, frozen, and one JSON document: `collecting` fills it from the catalog, the artifacts and
presence, `judging` says what is wrong in sentences, `tables` shows it to a person.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Generation


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class CollectionFacts(_Fact):
    """One collection, as the catalog has it."""

    dimension: int
    metric: Metric
    source: str | None
    """Where its entries come from; ``None``: the settings do not declare it any more."""
    epoch: str | None = None
    """What its generations count in; ``None``: it is not in the catalog, or not any more."""
    generation: Generation
    entries: int
    conflict: str | None = None
    """How the settings contradict what the catalog holds; nothing is committed or built then."""


class Condition(StrEnum):
    """How a component stands; the first that is true, in this order."""

    UNDECLARED = "undeclared"
    """A release names it, the settings do not."""
    HELD = "held"
    PAUSED = "paused"
    BUILDING = "building"
    FAILED = "failed"
    MISSING = "missing"
    """Declared, never built."""
    CHANGED = "changed"
    """Declared differently than it was built."""
    BEHIND = "behind"
    CURRENT = "current"


class ComponentFacts(_Fact):
    """One component: what is released of it, against what is declared and committed."""

    kind: str
    condition: Condition
    version: Digest | None = None
    covers: dict[Name, Generation] = {}
    behind: dict[Name, int] = {}
    """For each collection that has moved on: by how many generations."""
    entries: int = 0
    bytes: int = 0
    built_at: datetime | None = None
    failures: int = 0
    error: str | None = None
    """Why the last build failed, or why it is held or paused."""


class Problem(_Fact):
    """One thing that is wrong, and what a person can do."""

    what: str
    advice: str


class Overview(_Fact):
    """Everything that ``indexrelay status`` shows."""

    healthy: bool
    release: int
    """The newest intact release in the artifact store; 0: none yet."""
    announced: int | None
    """The newest one that Redis was told of; ``None``: Redis does not answer."""
    collections: dict[Name, CollectionFacts]
    components: dict[Name, ComponentFacts]
    readers: dict[str, ReaderState]
    rebuilders: dict[str, RebuilderState]
    dead_letters: int
    """Events that could not be read and that nobody has dealt with."""
    problems: tuple[Problem, ...]
