"""Finds the least effort that reaches the recall asked for, and measures what more would gain.

More lists, or a longer list of candidates, hardly ever lose recall, so the smallest sufficient
value is found by doubling and then by halving the last step: about ten searches of the sample.
Doubling ends early where a query would take longer than it may. Distances of what was found are
computed from the true vectors, because a compressed index reports approximate ones.

Where an index compares full vectors again there are two numbers: how many candidates, and how many
lists they come from. Each number of candidates gets its own least number of lists, until more
candidates make it no faster. A number of candidates with which the recall stays out of reach is
abandoned early: gains of doublings shrink at least geometrically.

A graph holds the entries that it is asked with, and would find their neighbours by their own links;
so it is tuned with links that lead around them. Of what is then out of reach for any effort nothing
is counted: built without these entries, it would have other links.

The target is a little higher than the recall asked for, by what a sample of this size may be wrong:
otherwise every other set of queries would miss it, and so would the same sample after the next
small batch, which would then cost a full build. How much more effort it may cost than the recall
asked for is bounded: near 1 a graph may need ten times as much for the last thousandth. Where more
effort hardly finds more, or takes longer than a query may, what was asked for is enough.

Recall is measured in one batch; the time by single queries on one thread, as in a reader.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from indexrelay.components.vector_index.index_search import (
    Knob,
    knob_of,
    openmp_threads,
    search_parameters,
)
from indexrelay.components.vector_index.mapped_index import led_around
from indexrelay.components.vector_index.metrics import distances_of_found, without_itself
from indexrelay.components.vector_index.sample import Dataset
from indexrelay.components.vector_index.spec import Effort

_K_FACTORS: Final = (1, 2, 4, 16, 64)
"""Candidates for each hit that are tried where full vectors are compared again."""
_TIMED_QUERIES: Final = 40
"""Asked one by one for the time; the median of so many varies by a few percent."""
_TIMED_SECONDS: Final = 0.5
"""… but no longer than this for one effort: a slow one is recognized after a few queries."""


@dataclass(frozen=True, slots=True)
class Safety:
    """What is added to the recall asked for, because a sample is only a sample."""

    standard_errors: float
    """Of the sample's recall."""
    most: float
    """How many times the effort that the recall asked for takes, the target may take."""


_ENTRIES: Final = Safety(2.5, 2)
"""For queries that are entries: 0.012 for 200 of them at 0.95. As many, because the ten neighbours
of one query are found or missed together, and because entries are found more easily: measured, 400
other queries had 0.937 where the sample had 0.950."""
_OTHERS: Final = Safety(5, 1.5)
"""For queries that are asked as though they were no entries (`led_around`), and still find a little
more than others do: measured, 0.956 and 0.9926 at the effort with which others have 0.95 and 0.99.
"""
_WORTH_MORE: Final = 0.1
"""The share of what is missing that more effort has to find where the target is out of reach: half
as much again finds a quarter in a graph, and hardly any in what keeps too little of vectors."""
_EXHAUSTIVE: Final = 1000
"""Candidates of a graph with which what is not found is not linked."""
_EXHAUSTED: Final = 0.99
"""… if so much is found."""
_LEAST_TO_BE_FOUND: Final = 0.9
"""If more is out of reach, the graph is so poor that it would be so with other links, too."""
_LED_AROUND: Final = 50
"""The sample is at most one in so many entries: without more of them a graph is another one."""
_FEWEST_QUERIES: Final = 50
"""… and if that is fewer than so many, a graph is tuned as it is."""
_PREDICTING_TRIALS: Final = 3
"""Efforts after which the next gains can be predicted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One effort that was tried, and its result."""

    effort: Effort
    recall: float
    milliseconds: float
    """For one query, on one thread: the median."""

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            **self.effort.model_dump(exclude_none=True),
            "recall": round(self.recall, 4),
            "milliseconds": round(self.milliseconds, 4),
        }


@dataclass(kw_only=True)
class Tuner:
    """Tries efforts on one index, keeps every trial, and picks one."""

    index: Any
    dataset: Dataset
    path: Path | None = None
    """The file that ``index`` is mapped from, and that may be changed meanwhile."""
    max_latency_ms: float = float("inf")
    trials: list[Trial] = field(default_factory=list)
    _safety: Safety = _ENTRIES
    _to_be_found: float = 1.0
    """The share of the neighbours that any effort finds while links lead around the entries."""

    def tune(self, *, refined: bool) -> Trial | None:
        """The trial of the effort to search with: what the user fixed, and the least of the rest.

        Where nothing reaches the recall, the effort that came nearest to it in the time that a
        query may take: the gate then says by how much it fails. ``None``: of one entry, or of none,
        every search finds all.
        """
        if not self.dataset.sample.depth:
            return None
        if self.path is None:
            return self._best(refined)
        knob, queries = knob_of(self.index), self.index.ntotal // _LED_AROUND
        if knob is None or knob.name != "ef_search" or queries < _FEWEST_QUERIES:
            return self._best(refined)
        self.dataset = replace(self.dataset, sample=self.dataset.sample.thinned(queries))
        rows = self.dataset.sample.rows
        most = _with(knob, min(_EXHAUSTIVE, knob.most), _K_FACTORS[-1] if refined else None)
        as_entries = self._recall(most)
        with led_around(self.index, self.path, rows) as led:
            self._safety = _OTHERS if led else _ENTRIES
            if led and as_entries >= _EXHAUSTED:
                share = self._recall(most) / as_entries
                self._to_be_found = min(max(share, _LEAST_TO_BE_FOUND), 1.0)
            return self._best(refined)

    def _best(self, refined: bool) -> Trial | None:
        knob = knob_of(self.index)
        fixed = getattr(self.dataset.spec.parameters, knob.name) if knob is not None else None
        best: Trial | None = None
        for k_factor in _K_FACTORS if refined else (None,):
            found = self._least(knob, fixed, k_factor)
            if best is not None and self._rank(found) >= self._rank(best):
                if self._reached(best):
                    break
            else:
                best = found
        if best is not None and knob is not None and not fixed:
            self._try_more(knob, best)
        return best

    def _least(self, knob: Knob | None, fixed: int | None, k_factor: int | None) -> Trial:
        """The best with so many candidates to each hit."""
        if knob is None:
            return self._try(Effort(k_factor=k_factor))
        if fixed:
            return self._try(_with(knob, min(fixed, knob.most), k_factor))
        tried: dict[int, Trial] = {}

        def reaches(recall: float, value: int) -> bool:
            if value not in tried:
                tried[value] = self._try(_with(knob, value, k_factor))
            return tried[value].recall >= recall

        def worth_more() -> bool:
            trials = list(tried.values())
            if trials[-1].milliseconds > self.max_latency_ms:
                return False
            last = k_factor is None or k_factor == _K_FACTORS[-1]
            return (last and not self._reached(trials[-1])) or _within_reach(
                [trial.recall for trial in trials], self._target
            )

        target, least_recall = self._target, self.dataset.spec.parameters.min_recall
        least(knob.most, partial(reaches, target), first=knob.fewest, worth_more=worth_more)
        # By effort and not by the clock, which would take the larger of two that are nearly equal.
        reached = [value for value, trial in tried.items() if trial.recall >= least_recall]
        if not reached:
            return min(tried.values(), key=self._rank)
        enough = least(min(reached), partial(reaches, least_recall), first=knob.fewest)
        value = min(reached) if enough is None else enough
        safe = [each for each, trial in tried.items() if trial.recall >= target]
        most = min(int(self._safety.most * value), knob.most)
        surer = min([most, *safe])
        reaches(target, surer)
        gained = tried[surer].recall - tried[value].recall
        worth_it = gained >= _WORTH_MORE * (1 - tried[value].recall)
        slow = tried[surer].milliseconds > self.max_latency_ms
        return tried[surer if surer in safe or (worth_it and not slow) else value]

    def _rank(self, trial: Trial) -> tuple[bool, bool, float]:
        """The lower the better: recall enough, then fast enough, then the cheapest or nearest."""
        reached = self._reached(trial)
        slow = trial.milliseconds > self.max_latency_ms
        return (not reached, slow, trial.milliseconds if reached else -trial.recall)

    def _reached(self, trial: Trial) -> bool:
        return trial.recall >= self.dataset.spec.parameters.min_recall

    @property
    def _target(self) -> float:
        """The recall to search for."""
        recall, sample = self.dataset.spec.parameters.min_recall, self.dataset.sample
        answers = max(sample.neighbours.shape[0] * sample.depth, 1)
        error = sqrt(recall * (1 - recall) / answers)
        return min(recall + self._safety.standard_errors * error, 1.0)

    def _try_more(self, knob: Knob, best: Trial) -> None:
        """One trial of twice the effort, so that the table of trials shows what it would gain."""
        value = getattr(best.effort, knob.name)
        more = _with(knob, min(2 * value, knob.most), best.effort.k_factor)
        if all(trial.effort != more for trial in self.trials):
            self._try(more)

    def _try(self, effort: Effort) -> Trial:
        recall = min(self._recall(effort) / self._to_be_found, 1.0)
        parameters = search_parameters(self.index, effort)
        with openmp_threads(1):
            seconds = median(self._single_queries(self.dataset.sample.depth + 1, parameters))
        trial = Trial(effort, recall, 1000 * seconds)
        self.trials.append(trial)
        return trial

    def _recall(self, effort: Effort) -> float:
        vectors, sample = self.dataset.vectors, self.dataset.sample
        parameters = search_parameters(self.index, effort)
        _, found = self.index.search(sample.vectors, sample.depth + 1, params=parameters)
        rows = without_itself(found, sample.rows)
        metric = self.dataset.spec.metric
        return sample.recall(distances_of_found(sample.vectors, rows, vectors[rows], metric))

    def _single_queries(self, depth: int, parameters: Any) -> Iterator[float]:
        """How many seconds each took."""
        began = perf_counter()
        for query in self.dataset.sample.vectors[:_TIMED_QUERIES]:
            started = perf_counter()
            self.index.search(query[None, :], depth, params=parameters)
            ended = perf_counter()
            yield ended - started
            if ended - began > _TIMED_SECONDS:
                return


def least(
    most: int,
    enough: Callable[[int], bool],
    *,
    first: int = 1,
    worth_more: Callable[[], bool] = lambda: True,
) -> int | None:
    """The least of ``first``…``most`` that is enough, if more is never less, within a sixteenth.

    ``None``: not even ``most`` is, or ``worth_more`` was false after one that was not enough.
    """
    low, high = first - 1, min(first, most)
    while not enough(high):
        if high >= most or not worth_more():
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _within_reach(recalls: list[float], wanted: float) -> bool:
    """Whether further doublings may get there, if each gains as much less as the last one did."""
    if len(recalls) < _PREDICTING_TRIALS:
        return True
    before, last = (after - earlier for earlier, after in pairwise(recalls[-_PREDICTING_TRIALS:]))
    if last <= 0:
        return False
    share = last / before if before > 0 else 1.0
    return share >= 1 or recalls[-1] + last * share / (1 - share) >= wanted


def _with(knob: Knob, value: int, k_factor: int | None) -> Effort:
    return Effort.model_validate({knob.name: value, "k_factor": k_factor})
