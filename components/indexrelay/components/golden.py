"""Golden queries: questions with the answers that people expect, asked of every version.

``golden = "queries.jsonl"`` names a file with one JSON object in each line: what is asked, as the
kind takes it (``text``, ``vector`` or ``id``), and ``expected``: the ids that should be found, or
an object that gives each its grade. A kind whose parameters derive from `GoldenParameters` puts
`golden_gates` behind its own. They ask what was built, in a fresh handle, and record two figures:

- *hit rate@k*: the share of queries that find at least one expected entry among the first ``k``;
- *nDCG@k* (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002), the
  mean over the queries: the gain of a hit is ``2**grade - 1``, divided by ``log2(1 + rank)``, and
  the sum is divided by that of the best possible order.

The measured recall says how much of what an exact search finds an index keeps. These figures say
whether that is what people look for, so they catch what a comparison with the last version lets
through: a slow decay, other embeddings, a source that gives other texts.

Entries come and go. An expected id that is not in the collection is left out of both figures, since
no index could find it, and it is counted and named in a check of its own. With a floor, half of the
expected ids must be there: fewer mean another collection, or ids of another form.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Protocol, TypeVar

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.kind import READ_FILES, KindParameters, Verdict, judge
from indexrelay.components.served import Served
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.parameter_files import MAX_FILE_BYTES, FileChangedError, ParameterFile
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Vectors

MAX_QUERIES: Final = 10_000
"""Of one file. A few hundred say as much: every build asks all of them."""
MAX_EXPECTED: Final = 1_000
"""Expected entries of one query."""
MAX_GRADE: Final = 20
"""The gain doubles with each grade."""
MIN_KNOWN: Final = 0.5
"""Share of the expected ids that must be in the collection where there is a floor."""
MAX_K: Final = 1_000
_NAMED: Final = 5
"""Lines or ids that a message names."""
_ASKED_BY: Final = ("text", "vector", "id")

KNOWN: Final = "golden_known"
HIT_RATE: Final = "golden_hit_rate"
NDCG: Final = "golden_ndcg"
"""Names of the checks."""


class GoldenFileError(IndexRelayError):
    """Raised when a file of golden queries is not understood; it names lines and mistakes."""

    def __init__(self, file: str, mistakes: Sequence[str]) -> None:
        more = len(mistakes) - _NAMED
        named = "; ".join(mistakes[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(f"{file}: {named}")
        self.file = file
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, kw_only=True)
class GoldenQuery:
    """One line of the file."""

    line: int
    """Counted from 1."""
    grades: Mapping[str, float]
    """How well each expected entry fits, from 0 (not at all) to `MAX_GRADE`; at least one is
    greater than 0, and 1 where the file gives none."""
    text: str | None = None
    vector: Vectors | None = None
    """Shape ``(dimension,)``, float32."""
    id: str | None = None
    """An entry; it is not expected to find itself."""

    @property
    def form(self) -> str:
        """What it is asked by: ``text``, ``vector``, ``id``, or ``text+vector``."""
        return "+".join(each for each in _ASKED_BY if getattr(self, each) is not None)


def _as_file(value: Any) -> Any:
    if isinstance(value, str):  # a file that can be read is a table by now
        raise ValueError(  # noqa: TRY004 - pydantic takes no other
            "names no file that can be read: it is relative to the settings file, and has at most "
            f"{MAX_FILE_BYTES:,} bytes"
        )
    return value


class GoldenParameters(KindParameters):
    """The keys of a kind whose answers are compared with golden queries; derive from it."""

    golden_by: ClassVar[frozenset[str]] = frozenset({"vector", "id"})
    """The forms that a query of the kind may have; see `GoldenQuery.form`."""

    golden: Annotated[
        ParameterFile | None, BeforeValidator(_as_file, json_schema_input_type=str | None)
    ] = None
    """A file of golden queries, one JSON object in each line: what is asked, and the ids that are
    expected; relative to the settings file. Every build asks them, and hit rate and nDCG are
    recorded with the version. Absent: none are asked."""

    golden_k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    """The k of hit rate@k and nDCG@k."""

    min_hit_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the golden queries that must find an expected entry among the first ``golden_k``,
    or the version is not released. Absent: it is recorded and never fails."""

    min_ndcg: Annotated[float, Field(ge=0, le=1)] | None = None
    """nDCG@``golden_k`` that the golden queries must reach, or the version is not released. Absent:
    it is recorded and never fails."""

    @field_validator("golden")
    @classmethod
    def _is_understood(
        cls, golden: ParameterFile | None, info: ValidationInfo
    ) -> ParameterFile | None:
        """Where settings are checked, the queries are read; a version's parameters have no file."""
        if golden is not None and (info.context or {}).get(READ_FILES):
            try:
                read_golden(golden, forms=cls.golden_by)
            except (GoldenFileError, FileChangedError) as error:
                raise ValueError(str(error)) from error
        return golden

    @field_validator("min_hit_rate", "min_ndcg")
    @classmethod
    def _has_queries(cls, floor: float | None, info: ValidationInfo) -> float | None:
        refused = "golden" not in info.data
        if floor is not None and not refused and info.data["golden"] is None:
            raise ValueError(f"{info.field_name} does nothing without golden, the file of queries")
        return floor


GOLDEN_KEYS: Final = frozenset(GoldenParameters.model_fields)
"""For `Kind.gate_parameters`: what is built does not depend on them."""


def read_golden(file: ParameterFile, *, forms: Collection[str]) -> tuple[GoldenQuery, ...]:
    """Read and check the queries.

    Args:
        forms: that a query may have, as in `GoldenParameters.golden_by`.

    Raises:
        GoldenFileError: naming lines and mistakes.
        FileChangedError: its content is not the one that the settings mean.
    """
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise GoldenFileError(file.file, [f"line {line}: is not UTF-8"]) from error
    queries: list[GoldenQuery] = []
    mistakes: list[str] = []
    for number, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        if len(queries) == MAX_QUERIES:
            mistakes.append(f"line {number}: there are more than {MAX_QUERIES:,} queries")
            break
        try:
            queries.append(_query(number, row, forms))
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    if not queries and not mistakes:
        mistakes.append("there are no queries in it")
    if mistakes:
        raise GoldenFileError(file.file, mistakes)
    return tuple(queries)


def dimension_mistakes(
    parameters: GoldenParameters, collections: Mapping[str, CollectionSettings]
) -> tuple[str, ...]:
    """For `Kind.trial`: that vectors are as long as those of the collections, a sentence if not."""
    if parameters.golden is None or parameters.golden.path is None:
        return ()
    queries = read_golden(parameters.golden, forms=parameters.golden_by)
    lengths = {len(each.vector): each.line for each in queries if each.vector is not None}
    return tuple(
        f"golden: {parameters.golden.file}: line {line}: the vector has {length} values, and those "
        f"of {name} have {collection.dimension}"
        for name, collection in collections.items()
        for length, line in lengths.items()
        if length != collection.dimension
    )


class Searched(Served, Protocol):
    """What golden queries are asked of."""

    def __contains__(self, entry_id: object, /) -> bool:
        """Whether an entry is in it."""
        ...


SearchedT = TypeVar("SearchedT", bound=Searched)


def golden_gates(
    gates: Iterable[Check],
    parameters: GoldenParameters,
    *,
    load: Callable[[], SearchedT],
    ask: Callable[[SearchedT, GoldenQuery, int], Iterable[str]],
) -> Iterator[Check]:
    """The kind's own ``gates``, and behind them, if all passed, those of the golden queries.

    Args:
        load: opens what was built; it is closed in here.
        ask: gives the ids of the ``k`` best answers to one query, the best first.
    """
    passed = True
    for check in gates:
        passed &= check.passed
        yield check
    if parameters.golden is None or not passed:
        return
    queries = read_golden(parameters.golden, forms=parameters.golden_by)
    with closing(load()) as served:
        asking = Asking(
            queries=queries,
            k=parameters.golden_k,
            floor=parameters.min_hit_rate is not None or parameters.min_ndcg is not None,
            ask=lambda query, k: ask(served, query, k),
            known=served.__contains__,
        )
        yield judge(KNOWN, asking.known_ids)
        yield judge(HIT_RATE, lambda: asking.reaches(asking.hit_rate, parameters.min_hit_rate))
        yield judge(NDCG, lambda: asking.reaches(asking.ndcg, parameters.min_ndcg))


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one query found, where it could be asked."""

    grades: Mapping[str, float]
    """Of the expected entries that are in the collection."""
    found: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Asks every query once, when a figure is first wanted."""

    queries: Sequence[GoldenQuery]
    k: int
    floor: bool
    """Whether a figure may fail the version."""
    ask: Callable[[GoldenQuery, int], Iterable[str]]
    known: Callable[[str], bool]

    def known_ids(self) -> Verdict:
        """The share of the expected ids that is in the collection; the others are named."""
        unknown: dict[str, None] = {}
        named = 0
        for query in self.queries:
            named += len(query.grades)
            unknown |= dict.fromkeys(each for each in query.grades if not self.known(each))
        missing = sum(each in unknown for query in self.queries for each in query.grades)
        share = 1 - missing / named
        detail = ""
        if unknown:
            some = ", ".join(repr(each) for each in list(unknown)[:_NAMED])
            more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
            are = "is" if len(unknown) == 1 else "are"
            detail = (
                f"{some}{more} {are} expected and not in the collection; "
                "the figures leave out what no search can find"
            )
        limit = MIN_KNOWN if self.floor else None
        return Verdict(limit is None or share >= limit, detail, measured=share, limit=limit)

    def reaches(self, figure: Callable[[], float], floor: float | None) -> Verdict:
        """A figure over what could be asked, and whether it reaches the floor."""
        detail = self._left_out()
        if not self._answers:
            nothing = "no query could be asked" + (f": {detail}" if detail else "")
            return Verdict(floor is None, nothing, limit=floor)
        measured = figure()
        if floor is None or measured >= floor:
            return Verdict(True, detail, measured=measured, limit=floor)
        worst = ", ".join(f"line {line}" for line in self._worst())
        below = f"the golden queries find less than that; the worst are in {worst}"
        return Verdict(
            False, f"{below}; {detail}" if detail else below, measured=measured, limit=floor
        )

    def hit_rate(self) -> float:
        """The share of queries with an expected entry among the first ``k``."""
        return float(np.mean([hits(each.found, each.grades) for each in self._answers.values()]))

    def ndcg(self) -> float:
        """The mean nDCG@k."""
        return float(
            np.mean([ndcg(each.found, each.grades, k=self.k) for each in self._answers.values()])
        )

    @cached_property
    def _asked(self) -> tuple[dict[int, _Answer], dict[int, str]]:
        """By line: the answers, and why there is none."""
        answers: dict[int, _Answer] = {}
        refused: dict[int, str] = {}
        for query in self.queries:
            grades = {each: grade for each, grade in query.grades.items() if self.known(each)}
            if not any(grades.values()):
                refused[query.line] = "nothing that it expects is in the collection"
                continue
            try:
                found = list(self.ask(query, self.k))
            except (InvalidQueryError, UnknownEntryError) as error:
                refused[query.line] = str(error)
            else:
                answers[query.line] = _Answer(grades=grades, found=found)
        return answers, refused

    @property
    def _answers(self) -> Mapping[int, _Answer]:
        return self._asked[0]

    def _left_out(self) -> str:
        """Which queries the figures leave out, and why; empty: none."""
        refused = self._asked[1]
        if not refused:
            return ""
        line, reason = next(iter(refused.items()))
        count = f"{len(refused):,} of {len(self.queries):,} queries"
        return f"{count} could not be asked; line {line}: {reason}"

    def _worst(self) -> list[int]:
        scores = {
            line: ndcg(each.found, each.grades, k=self.k) for line, each in self._answers.items()
        }
        return sorted(scores, key=lambda line: (scores[line], line))[:_NAMED]


def hits(found: Iterable[str], grades: Mapping[str, float]) -> bool:
    """Whether anything of a grade above 0 is among ``found``."""
    return any(grades.get(each, 0) > 0 for each in found)


def ndcg(found: Sequence[str], grades: Mapping[str, float], *, k: int) -> float:
    """nDCG@k of one query, from 0 to 1.

    Args:
        found: ids, the best first, each once.
        grades: of what can be found; at least one is greater than 0.
    """
    gains = [2.0 ** grades.get(each, 0) - 1 for each in found[:k]]
    best = sorted((2.0**grade - 1 for grade in grades.values()), reverse=True)[:k]
    return _discounted(gains) / _discounted(best)


def _discounted(gains: Iterable[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _query(number: int, line: str, forms: Collection[str]) -> GoldenQuery:
    """One line; raises `ValueError` with what is wrong."""
    try:
        given = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("is not JSON of a query: it is nested too deeply") from error
    if not isinstance(given, dict):
        example = '{"text": …, "expected": ["id", …]}'
        raise ValueError(f"must be an object: {example}")  # noqa: TRY004 - a mistake in a file
    unknown = given.keys() - {*_ASKED_BY, "expected"}
    if unknown:
        raise ValueError(f"has no key {min(unknown)!r}; there are text, vector, id, expected")
    if "expected" not in given:
        raise ValueError('lacks "expected": ids, or an object of ids and grades')
    query = GoldenQuery(
        line=number,
        grades=_grades(given["expected"]),
        text=_text("text", given),
        vector=_vector(given),
        id=_text("id", given),
    )
    if query.form not in forms:
        may = ", ".join(sorted(forms))
        raise ValueError(f"is asked by {query.form or 'nothing'}; this kind is asked by: {may}")
    return query


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"gives {twice!r} twice")
    return found


def _no_number(constant: str) -> Any:
    raise ValueError(f"holds {constant}, which is no number")


def _text(key: str, given: Mapping[str, Any]) -> str | None:
    if key not in given:
        return None
    value = given[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key} holds half of a character, which is no text") from error
    return value


def _vector(given: Mapping[str, Any]) -> Vectors | None:
    if "vector" not in given:
        return None
    value = given["vector"]
    if not isinstance(value, list) or not value or not all(map(_is_number, value)):
        raise ValueError("vector must be a list of numbers")
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(each) for each in value]).astype(np.float32)
    except OverflowError:  # a whole number of hundreds of digits
        vector = np.array([np.inf], dtype=np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("vector holds a number that float32 does not reach")
    return vector


def _grades(expected: Any) -> dict[str, float]:
    if not isinstance(expected, list | dict):
        raise ValueError(  # noqa: TRY004 - a mistake in a file
            "expected must be a list of ids, or an object of ids and grades"
        )
    if isinstance(expected, list):
        if not all(isinstance(each, str) and each for each in expected):
            raise ValueError("expected must be ids, each a text that is not empty")
        if len(set(expected)) < len(expected):
            raise ValueError("expected names an id twice")
        grades = dict.fromkeys(expected, 1.0)
    else:
        wrong = [
            each
            for each, grade in expected.items()
            if not each or not _is_number(grade) or not 0 <= grade <= MAX_GRADE
        ]
        if wrong:
            raise ValueError(f"the grade of {wrong[0]!r} must be a number from 0 to {MAX_GRADE}")
        grades = {each: float(grade) for each, grade in expected.items()}
    if not any(grades.values()):
        raise ValueError("expected must name an id" + (" with a grade above 0" if grades else ""))
    if len(grades) > MAX_EXPECTED:
        raise ValueError(f"expected names more than {MAX_EXPECTED:,} ids")
    return grades


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
