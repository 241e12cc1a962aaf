"""What a search gives besides its hits, and what is asked of any served entries alike.

`Hits` are a list, so that nothing changes for who only reads hits; with ``explain=True`` they carry
an `Explanation`. `Entry` and `Page` are the answers of ``get`` and ``scroll``. `Stopwatch` measures
the stages of a query that is explained; a query that is not makes none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from time import perf_counter
from typing import Any, Final, Protocol, runtime_checkable

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit, Served

MAX_IDS: Final = 10_000
"""Ids that one query may name: to leave out, or to get."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a query."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of a version that was searched."""

    name: str
    """``base`` or ``delta``; ``texts`` in a text index."""
    entries: int
    """How many of its entries are served."""
    how: str
    """By what: a FAISS factory string, ``scan``, ``bm25``."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How one query was answered."""

    plan: str
    """What was done about the filter. ``unfiltered``: there was none. ``nothing``: no entry
    matches. ``exact``: every match was compared. ``sketches``: the matches whose sketches are
    nearest were. ``selector``: the index was searched, and only matches were taken. ``hybrid``:
    see `arms`."""
    layers: tuple[Layer, ...] = ()
    """What was searched."""
    effort: Mapping[str, int] = field(default_factory=dict)
    """How hard: ``nprobe``, ``ef_search``, ``k_factor``; of the last round."""
    rounds: int = 1
    """How often it was searched, each time with more effort, because too few hits came back."""
    matches: int | None = None
    """How many entries the filter matches; ``None``: there was none."""
    candidates: int | None = None
    """How many entries were compared with the query; ``None``: the index does not say."""
    stages: tuple[Stage, ...] = ()
    """What took how long, in the order in which it happened."""
    arms: "Mapping[str, Explanation]" = field(default_factory=dict)
    """Of a hybrid search: how each arm was answered."""

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it; what is empty or unknown is left out."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found["layers"] = [
            {"name": each.name, "entries": each.entries, "how": each.how} for each in self.layers
        ]
        found["stages"] = [{"name": each.name, "seconds": each.seconds} for each in self.stages]
        found["effort"] = dict(self.effort)
        found["arms"] = {name: arm.as_json() for name, arm in self.arms.items()}
        found["seconds"] = self.seconds
        return {key: value for key, value in found.items() if value not in (None, [], {})}


class Hits(list[Hit]):
    """The hits of one query, the best first."""

    explanation: Explanation | None = None
    """How it was answered; ``None``: ``explain`` was not asked for."""


@dataclass(slots=True)
class Entry:
    """An entry as a version holds it; not frozen, as `Hit` is not."""

    id: str
    payload: Any
    """The entry's JSON payload, parsed; ``None`` where it has none."""
    text: str | None = None
    """Its text, from what indexes texts."""


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of their ids."""

    entries: list[Entry]
    after: str | None
    """What to give as ``after`` for the next page; ``None``: this is the last."""


@runtime_checkable
class EntriesServed(Served, Protocol):
    """Gives, counts and lists its entries, of which a filter may choose some."""

    def get(self, ids: Sequence[str], /) -> Sequence[Entry | None]:
        """The entry of each id; ``None`` where there is none."""
        ...

    def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002 - its name
        """How many entries match.

        Raises:
            InvalidQueryError: the filter is none.
        """
        ...

    def scroll(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page:
        """At most ``limit`` entries that match, in the order of their ids, behind ``after``.

        Raises:
            InvalidQueryError: the filter is none, or ``limit`` no number of entries.
        """
        ...


class Stopwatch:
    """Measures stages one after another; it starts when it is made."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: list[tuple[str, float]] = [("", perf_counter())]

    def stage(self, name: str) -> None:
        """End the stage ``name``, and begin the next one."""
        self._ends.append((name, perf_counter()))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that ended."""
        return tuple(Stage(name, end - begun) for (_, begun), (name, end) in pairwise(self._ends))


def checked_ids(ids: Any, name: str = "ids") -> Collection[str]:
    """The ids of a query; ``name`` is what its argument is called.

    Raises:
        InvalidQueryError: they are no list, tuple or set of at most `MAX_IDS` texts.
    """
    if not isinstance(ids, list | tuple | set | frozenset):
        raise InvalidQueryError(f"{name} is a list of ids, not a {type(ids).__name__}")
    if len(ids) > MAX_IDS:
        raise InvalidQueryError(f"{name} has at most {MAX_IDS:,} ids")
    if not all(isinstance(each, str) for each in ids):
        raise InvalidQueryError(f"{name} is a list of ids, and one of them is no text")
    return ids


def checked_without(without: Any) -> Collection[str]:
    """The ids that a query leaves out; raises as `checked_ids` does."""
    return checked_ids(without, "without")


MAX_PAGE: Final = 10_000
"""Entries of one page."""


def checked_after(after: Any) -> bytes | None:
    """The UTF-8 bytes of the id behind which a page begins; ``None``: it begins at the first.

    Half a surrogate pair has no UTF-8, and then it is simply not found.

    Raises:
        InvalidQueryError: it is no id.
    """
    if after is None:
        return None
    if not isinstance(after, str):
        raise InvalidQueryError(f"after is an id, not {after!r:.80}")
    return after.encode("utf-8", "surrogatepass")


def checked_limit(limit: Any) -> int:
    """How many entries a page has.

    Raises:
        InvalidQueryError: it is no whole number from 1 to `MAX_PAGE`.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise InvalidQueryError(
            f"limit is a whole number from 1 to {MAX_PAGE:,}, not {limit!r:.80}"
        )
    return limit
