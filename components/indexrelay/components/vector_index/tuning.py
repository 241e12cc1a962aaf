"""Finds the least effort that reaches the recall asked for.

More lists, or a longer list of candidates, never lose recall worth speaking of, so the smallest
sufficient value is found by doubling and then by halving the last step: about ten searches of the
sample. Distances of what was found are computed from the true vectors, because a compressed index
reports what it believes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from indexrelay.components.vector_index.effort import Knob, knob_of, search_parameters
from indexrelay.components.vector_index.facts import Effort
from indexrelay.components.vector_index.metrics import distances_of_found
from indexrelay.components.vector_index.nearest import without_itself
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.components.vector_index.threads import openmp_threads
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_K_FACTORS: Final = (4, 16, 64)
"""How many candidates for each hit a refinement may look at again."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One effort that was tried, and what came of it."""

    effort: Effort
    recall: float
    milliseconds: float
    """For one query, on one thread."""


@dataclass(kw_only=True)
class Tuner:
    """Tries efforts on one index, remembers every trial, and picks."""

    index: Any
    sample: QuerySample
    vectors: Vectors
    """All of them, to compute true distances from."""
    metric: Metric
    min_recall: float
    trials: list[Trial] = field(default_factory=list)

    def tune(self, parameters: VectorIndexParameters, *, refined: bool) -> Effort:
        """The effort to search with: what the user fixed, and the least of the rest.

        Where nothing reaches the recall, the most effort: the gate will say by how much it fails.
        """
        if not self.sample.depth:
            return Effort()  # one entry or none: every search finds it
        knob = knob_of(self.index)
        fixed = parameters.nprobe or parameters.ef_search
        effort = Effort()
        for k_factor in _K_FACTORS if refined else (None,):
            if knob is None:
                effort = Effort(k_factor=k_factor)
                enough = self._reaches(effort)
            else:
                value = fixed or self._least(knob, k_factor)
                effort = _with(knob, min(value or knob.most, knob.most), k_factor)
                enough = self._reaches(effort) if fixed else value is not None
            if enough:
                break
        return effort

    def _least(self, knob: Knob, k_factor: int | None) -> int | None:
        return least(knob.most, lambda value: self._reaches(_with(knob, value, k_factor)))

    def _reaches(self, effort: Effort) -> bool:
        trial = self._try(effort)
        self.trials.append(trial)
        return trial.recall >= self.min_recall

    def _try(self, effort: Effort) -> Trial:
        parameters = search_parameters(self.index, effort)
        started = perf_counter()
        with openmp_threads(1):
            _, found = self.index.search(
                self.sample.vectors, self.sample.depth + 1, params=parameters
            )
        seconds = perf_counter() - started
        rows = without_itself(found, self.sample.rows)
        true = distances_of_found(self.sample.vectors, rows, self.vectors[rows], self.metric)
        return Trial(effort, self.sample.recall(true), 1000 * seconds / len(self.sample.rows))


def least(most: int, enough: Callable[[int], bool]) -> int | None:
    """The least of 1…``most`` that is enough, if more is never less; ``None``: not even most."""
    low, high = 0, 1
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _with(knob: Knob, value: int, k_factor: int | None) -> Effort:
    return Effort.model_validate({knob.name: value, "k_factor": k_factor})
