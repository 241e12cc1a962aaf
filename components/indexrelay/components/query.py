"""What any search is asked for, what it gives besides its hits, and what else entries are asked.

Callers give options by name (`TextKeywords`, `VectorKeywords`). They are checked once, and one
frozen value of them goes through all steps of a search (`QueryOptions`).

`Hits` are a list, so that nothing changes for who only reads hits; with ``explain=True`` they carry
an `Explanation`. `ManyHits` are those of several queries, made when they are read. `Entry` and
`Page` are the answers of ``get`` and ``scroll``. `Stopwatch` measures the stages of a query that is
explained; a query that is not makes none.
"""

import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from time import perf_counter
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    overload,
    runtime_checkable,
)

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit, Served, checked_k

MAX_IDS: Final = 10_000
"""Ids that one query may name: to leave out, or to get."""
_CANDIDATE_BYTES: Final = 16 << 20
"""Payloads of candidates may always have so many: they are larger here and smaller there."""
FilterObject = Mapping[str, Any]
"""A filter as JSON has it; see `schemas.filters`."""


class TextKeywords(TypedDict, total=False):
    """What any search takes by name, beside ``k``."""

    filter: FilterObject | None
    """A JSON object that entries must match (`indexrelay.schemas.filters`)."""
    without: Collection[str]
    """Ids of entries that must not be found."""
    group_by: str | None
    """A filterable field: of entries with the same value only the first ``per_group`` are given.
    Entries that lack it are not limited."""
    per_group: int
    """1, where it is not given."""
    explain: bool
    """Whether the hits carry an `Explanation`."""
    max_payload_bytes: int | None
    """The answer is refused where its payloads have more bytes of JSON; ``None``: any number."""


class VectorKeywords(TextKeywords, total=False):
    """What a search by vectors takes by name, beside ``k``."""

    diversity: float | None
    """From 0 to 1; how much being unlike the hits above counts, beside fitting
    (`indexrelay.components.arrangement`)."""


TEXT_KEYWORDS: Final = tuple(TextKeywords.__annotations__)
VECTOR_KEYWORDS: Final = tuple(VectorKeywords.__annotations__)


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


def _checked_without(without: Any) -> Collection[str]:
    return checked_ids(without, "without")


def _checked_per_group(per_group: Any) -> int:
    try:
        return checked_k(per_group)
    except InvalidQueryError:
        reason = f"per_group is a whole number and at least 1, not {per_group!r:.100}"
        raise InvalidQueryError(reason) from None


def _checked_diversity(diversity: Any) -> float | None:
    if diversity is None:
        return None
    if isinstance(diversity, numbers.Real) and not isinstance(diversity, bool):
        share = float(diversity)
        if math.isfinite(share) and 0 <= share <= 1:
            return share
    raise InvalidQueryError(f"diversity is a number from 0 to 1, not {diversity!r:.100}")


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """What one search is asked for, beside what it looks for; `of` checks it.

    `TextKeywords` and `VectorKeywords` say what each is. A filter and ``group_by`` are checked
    where the fields are known.
    """

    k: int = 10
    filter: FilterObject | None = None
    without: Collection[str] = ()
    group_by: str | None = None
    per_group: int = 1
    diversity: float | None = None
    explain: bool = False
    max_payload_bytes: int | None = None

    checks: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "without": _checked_without,
        "per_group": _checked_per_group,
        "diversity": _checked_diversity,
    }
    """What makes an option of what was given, by its name."""

    @classmethod
    def of(cls, k: Any, given: Mapping[str, Any], takes: Collection[str] = VECTOR_KEYWORDS) -> Self:
        """From the arguments of a search.

        Args:
            k: how many hits.
            given: the other options, by name.
            takes: the names that there are.

        Raises:
            InvalidQueryError: a value is not what it has to be.
            TypeError: there is no option of that name.
        """
        checks = cls.checks
        checked: dict[str, Any] = {"k": checked_k(k)}
        for name, value in given.items():
            if name not in takes:
                there = ", ".join(("k", *takes))
                raise TypeError(f"search takes no {name!r:.100}; it takes {there}")
            check = checks.get(name)
            checked[name] = value if check is None else check(value)
        # The constructor of a frozen class would set each field by itself, which takes 2 µs.
        options = object.__new__(cls)
        options.__dict__.update(checked)
        return options

    @property
    def is_plain(self) -> bool:
        """Whether any entry may be found, and nobody asks how."""
        return self.filter is None and not self.without and not self.explain

    def candidates(self, number: int, beyond: FilterObject | None = None) -> "QueryOptions":
        """The same for so many candidates for the hits, in no arrangement.

        Args:
            number: how many.
            beyond: a filter that they must match besides; ``None``: none.
        """
        return QueryOptions(
            k=number,
            filter=narrowed(self.filter, beyond),
            without=self.without,
            explain=self.explain,
            max_payload_bytes=of_candidates(self.max_payload_bytes, number, self.k),
        )

    def leaving_out(self, ids: Iterable[str]) -> Self:
        """The same, where ``ids`` are not to be found either."""
        return replace(self, without=frozenset((*self.without, *ids)))


def narrowed(asked: FilterObject | None, beyond: FilterObject | None) -> FilterObject | None:
    """The filter of a query, and another one besides; ``None``: there is none."""
    if asked is None or beyond is None:
        return beyond if asked is None else asked
    return {"$and": [asked, beyond]}


def of_candidates(max_payload_bytes: int | None, candidates: int, k: int) -> int | None:
    """What the payloads of candidates may have where those of ``k`` hits may have so much."""
    if max_payload_bytes is None:
        return None
    return max(max_payload_bytes * -(-candidates // k), _CANDIDATE_BYTES)


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
    degraded: str | None = None
    """Why the answer is less than what was asked for; ``None``: it is not."""


HitsT = TypeVar("HitsT", bound=Hits)


class ManyHits(Sequence[HitsT], Generic[HitsT]):
    """The hits of each of several queries, in the order of the queries.

    Those of a query are made when they are first read, and stay the same afterwards. All that they
    are made of was read before, so they outlive the version that was searched.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, queries: int, make: Callable[[int], HitsT]) -> None:
        """Let ``make`` give the hits of each of so many queries, by its number."""
        self._made: list[HitsT | None] = [None] * queries
        self._make = make

    def __len__(self) -> int:
        """How many queries there were."""
        return len(self._made)

    @overload
    def __getitem__(self, query: int) -> HitsT: ...
    @overload
    def __getitem__(self, query: slice) -> list[HitsT]: ...
    def __getitem__(self, query: int | slice) -> HitsT | list[HitsT]:
        if isinstance(query, slice):
            return [self[each] for each in range(len(self))[query]]
        made = self._made[query]
        if made is None:
            made = self._made[query] = self._make(range(len(self))[query])
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ManyHits | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[type[list[HitsT]], tuple[list[HitsT]]]:
        return list, (list(self),)


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
