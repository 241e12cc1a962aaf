"""Which index is built: candidates are tried on a part of the entries, and the best is built.

What an index reaches depends on the data, so nothing is chosen by a table. Each candidate is built
over a small random part of the entries, tuned there to the recall asked for, and timed. From that
follows what it takes over all of them: the time of a query and that of a build grow by a power of
the rows, which differs between scans, lists and graphs. The part is a thirty-second of the entries,
so trying everything takes less than a quarter of what the winner's build takes; of fewer entries it
is up to a quarter, and takes seconds.

The best by what is preferred is then built over everything, and measured again. Where it falls
behind what another one foresees, that is built beside it, and the better of the two stays. Whatever
would take longer than ``max_build_seconds`` is left out. If none reaches what is asked for, the one
that came nearest is taken, and the gates say by how much it fails.

``prefer = "build"`` tries nothing beforehand: the first candidate is built, and the others are only
tried where it falls short. A named index is the only candidate. The version's details have all
attempts, what each took, and why it was not taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter, process_time
from typing import Any, Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.candidates import Candidate, candidates
from indexrelay.components.vector_index.index_build import (
    IndexFiles,
    Progress,
    build_index,
    searched_bytes,
)
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.sample import Dataset
from indexrelay.components.vector_index.spec import Effort, Factory, IndexSpec, Prefer
from indexrelay.components.vector_index.tuner import Trial, Tuner


class Shortfall(StrEnum):
    """What an index, once it was built and measured, may not reach."""

    RECALL = "recall"
    LATENCY = "latency"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One index that was built and measured, over all entries or over a part of them."""

    candidate: Candidate
    factory: Factory
    """As it is built over all entries."""
    rows: int
    """How many entries it was built over."""
    seconds: float
    """To train and fill it over all entries: measured, or foreseen."""
    milliseconds: float
    """Of one query among all entries, on one thread, at the median: measured, or foreseen."""
    bytes: int
    """Of what a query among all entries may read any part of."""
    best: Trial | None
    """The effort that it is searched with; ``None``: there is nothing to find."""
    trials: tuple[Trial, ...]
    shortfalls: frozenset[Shortfall]

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return Effort() if self.best is None else self.best.effort

    @property
    def recall(self) -> float:
        """What it finds of the neighbours of its query sample."""
        return 1.0 if self.best is None else self.best.recall

    @property
    def short(self) -> tuple[bool, bool]:
        """Whether it falls short of the recall, and of the latency: the worse first."""
        return (Shortfall.RECALL in self.shortfalls, Shortfall.LATENCY in self.shortfalls)

    def cost(self, prefer: Prefer) -> float:
        """The less of this, the better; where recall is missing, by how much."""
        if Shortfall.RECALL in self.shortfalls:
            return 1 - self.recall
        match prefer:
            case Prefer.LATENCY:
                return self.milliseconds
            case Prefer.MEMORY:
                return self.bytes
            case Prefer.BUILD:
                return self.seconds

    def dominates(self, other: "Attempt") -> bool:
        """Whether it is as good in everything and better in something."""
        if self.short != other.short:
            return self.short < other.short
        ours, theirs = ((a.milliseconds, a.bytes, a.seconds) for a in (self, other))
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "index": self.factory.text,
            "reason": self.candidate.reason,
            "rows": self.rows,
            **self.effort.model_dump(exclude_none=True),
            "recall": round(self.recall, 4),
            "milliseconds": round(self.milliseconds, 4),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "short_of": sorted(self.shortfalls),
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which index was chosen, and what it was compared with."""

    index: Any
    """The chosen one, mapped from its file."""
    prefer: Prefer
    chosen: Attempt
    attempts: tuple[Attempt, ...]
    """The last of each candidate: over everything where it was built so far."""
    left_out: dict[str, str]
    """Why an index was not built over everything, by its factory string."""

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return self.chosen.effort

    def details(self) -> dict[str, Any]:
        """For the manifest: the decision, and what was measured."""
        return {
            "index": self.chosen.factory.text,
            "reason": self.chosen.candidate.reason,
            "prefer": self.prefer.value,
            "effort": self.effort.model_dump(exclude_none=True),
            "trials": [trial.as_json() for trial in sorted(self.chosen.trials, key=_by_effort)],
            "attempts": [
                {
                    **attempt.as_json(),
                    "front": not any(other.dominates(attempt) for other in self.attempts),
                    "left_out": self.left_out.get(attempt.factory.text, ""),
                }
                for attempt in self.attempts
            ],
        }


def _by_effort(trial: Trial) -> tuple[int, int]:
    effort = trial.effort
    return (effort.k_factor or 0, effort.nprobe or effort.ef_search or 0)


_SOON_VALUES: Final = 8_000_000
"""A graph over so much takes a few seconds on two cores: nothing is worth having before."""


def soonest(spec: IndexSpec) -> Candidate | None:
    """What may be served until the index that `decide` prefers is ready; ``None``: wait for it."""
    parameters = spec.parameters
    if not parameters.quick_first or parameters.prefer is Prefer.BUILD:
        return None
    if spec.count * spec.dimension <= _SOON_VALUES:
        return None
    try:
        pool = candidates(spec)
    except MemoryLimitError:  # `decide` says so
        return None
    return pool[0] if len(pool) > 1 else None


def decide(
    files: IndexFiles, dataset: Dataset, progress: Progress, *, only: Candidate | None = None
) -> Decision:
    """Build the index that suits ``dataset``, and write it to ``files``.

    With ``only`` nothing else is tried, unless that one falls short. ``progress`` is that of the
    first index that is built over everything.

    Raises:
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    contest = _Contest(files=files, dataset=dataset, progress=progress)
    pool = candidates(dataset.spec)
    if only is None and (len(pool) == 1 or contest.prefer is Prefer.BUILD):
        only = pool[0]
    if only is not None:
        contest.enter(only)
    others = [each for each in pool if each != only]
    if others and (contest.chosen is None or contest.chosen.shortfalls):
        contest.race(others)
    return contest.decision()


_CLOSE: Final = 1.1
"""Figures that differ by less are equal: a measurement differs as much from the next."""
_WORTH_A_BUILD: Final = 0.8
"""The share of what the chosen one costs, below which another one is built beside it."""


class _Spent:
    """Seconds since it was made, as they would pass on a host that does nothing else.

    A build is niced, and an improvement to the utmost: where others want the processors it may take
    many times as long, and what is foreseen from that would never be built.
    """

    def __init__(self) -> None:
        self._started = perf_counter()
        self._worked = process_time()

    @property
    def seconds(self) -> float:
        """At most those that the process has worked, which on several threads are more."""
        return min(perf_counter() - self._started, process_time() - self._worked)


@dataclass(kw_only=True)
class _Contest:
    """Attempts on one dataset, and the best of those over everything so far."""

    files: IndexFiles
    dataset: Dataset
    progress: Progress
    spent: _Spent = field(default_factory=_Spent)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    chosen: Attempt | None = None

    @property
    def prefer(self) -> Prefer:
        return self.dataset.spec.parameters.prefer

    def race(self, pool: Sequence[Candidate]) -> None:
        """Try candidates on a part of the entries, and build the best over everything."""
        spec = self.dataset.spec
        few = min(_FEWEST_ROWS, spec.count // _OF_FEW)
        part = self.dataset.part(max(few, spec.count // _PART))
        smallest_first = self.prefer is Prefer.MEMORY  # what each takes is known beforehand
        if smallest_first:
            pool = sorted(pool, key=lambda each: each.bytes(spec))
        foreseen = []
        for candidate in pool:
            instead = self.attempts.get(candidate.unless)
            if instead is not None and not instead.shortfalls:
                continue
            beside = self.files.beside()
            tried = _attempt(beside, candidate, part, over=spec)
            beside.remove()
            self.attempts[tried.factory.text] = tried
            if not smallest_first or tried.shortfalls or self._too_long(tried):
                foreseen.append(tried)
                continue
            self.enter(candidate)
            if self.chosen is not None and not self.chosen.shortfalls:
                return
        while foreseen:
            best = self._first_of(foreseen)
            foreseen.remove(best)
            reason = self._unworthy(best, foreseen)
            if reason:
                self.left_out[best.factory.text] = reason
            else:
                self.enter(best.candidate)

    def enter(self, candidate: Candidate) -> None:
        """Build it over everything; it replaces the chosen one, or is deleted."""
        if self.chosen is None:
            self.chosen = _attempt(
                self.files, candidate, self.dataset, self.dataset.spec, self.progress
            )
            self.attempts[self.chosen.factory.text] = self.chosen
            return
        beside = self.files.beside()
        attempt = _attempt(beside, candidate, self.dataset, self.dataset.spec)
        self.attempts[attempt.factory.text] = attempt
        if self._first_of([self.chosen, attempt]) is attempt:
            beside.replace(self.files)
            self.chosen = attempt
        else:
            beside.remove()

    def _first_of(self, attempts: Sequence[Attempt]) -> Attempt:
        """The best; of those that are as good, the smallest."""
        best = min(attempts, key=lambda each: (each.short, each.cost(self.prefer)))
        bound = _CLOSE * best.cost(self.prefer)
        close = [
            each
            for each in attempts
            if each.short == best.short and each.cost(self.prefer) <= bound
        ]
        return min(close, key=lambda each: (each.bytes, each.cost(self.prefer)))

    def _unworthy(self, foreseen: Attempt, others: Sequence[Attempt]) -> str:
        """Why it is not built over everything; empty: it is."""
        too_long = self._too_long(foreseen)
        if self.chosen is None:
            return too_long if any(each.seconds < foreseen.seconds for each in others) else ""
        if foreseen.short != self.chosen.short:
            better = foreseen.short < self.chosen.short
        else:
            better = foreseen.cost(self.prefer) < _WORTH_A_BUILD * self.chosen.cost(self.prefer)
        return too_long if better else "behind the chosen one"

    def _too_long(self, foreseen: Attempt) -> str:
        limit = self.dataset.spec.parameters.max_build_seconds
        seconds = self.spent.seconds + foreseen.seconds
        return (
            ""
            if seconds <= limit
            else (f"would be ready after {seconds:.3g} s; max_build_seconds is {limit:g}")
        )

    def decision(self) -> Decision:
        """What came of it."""
        if self.chosen is None:
            raise RuntimeError("nothing was built")
        return Decision(
            index=open_index(self.files.index),
            prefer=self.prefer,
            chosen=self.chosen,
            attempts=tuple(self.attempts.values()),
            left_out=self.left_out,
        )


_PART: Final = 32
"""One of so many entries is in the part."""
_FEWEST_ROWS: Final = 4096
"""… and at least so many: among fewer every index is fast."""
_OF_FEW: Final = 4
"""… but of few entries one in so many: else trying would cost several builds of everything."""
_LATENCY_SHARE: Final = 0.8
"""The share of ``max_latency_ms`` that FAISS may take by itself. The gate times whole queries, with
ids and payloads, and a figure at the very limit would fail every other time."""


def _attempt(
    files: IndexFiles,
    candidate: Candidate,
    dataset: Dataset,
    over: IndexSpec,
    progress: Progress = lambda _share: None,
) -> Attempt:
    """Build one index, and tune it as it will be served: from the file, and mapped.

    ``over`` is the spec of all entries, of which ``dataset`` may be a part.
    """
    parameters, factory = over.parameters, candidate.factory(dataset.spec)
    spent = _Spent()
    build_index(files, dataset.vectors, factory, dataset.spec, progress)
    seconds = spent.seconds
    growth = _Growth.of(factory, max(over.count, 1) / max(dataset.spec.count, 1))
    limit = _LATENCY_SHARE * parameters.max_latency_ms
    tuner = Tuner(
        index=open_index(files.index),
        dataset=dataset.with_more_queries() if factory.graph == "HNSW" else dataset,
        path=files.index,
        max_latency_ms=limit / growth.latency,
    )
    best = tuner.tune(refined=factory.refined)
    shortfalls = set()
    if best is not None and best.recall < parameters.min_recall:
        shortfalls.add(Shortfall.RECALL)
    if any(trial.milliseconds > tuner.max_latency_ms for trial in tuner.trials) and (
        best is None or shortfalls or best.milliseconds > tuner.max_latency_ms
    ):
        shortfalls.add(Shortfall.LATENCY)  # also where the search for recall ended at the limit
    whole = candidate.factory(over)
    return Attempt(
        candidate=candidate,
        factory=whole,
        rows=dataset.spec.count,
        seconds=seconds * growth.build,
        milliseconds=0.0 if best is None else best.milliseconds * growth.latency,
        bytes=searched_bytes(whole, over),
        best=best,
        trials=tuple(tuner.trials),
        shortfalls=frozenset(shortfalls),
    )


@dataclass(frozen=True, slots=True)
class _Growth:
    """By how much a figure over a part of the entries is larger over all."""

    latency: float
    build: float

    @classmethod
    def of(cls, factory: Factory, times: float) -> "_Growth":
        """For ``times`` as many entries, at the same recall (measured: decision 023)."""
        if factory.graph:
            return cls(times**0.3, times**1.2)
        if factory.lists:
            return cls(times**0.7, times**1.5)
        return cls(times, times)
