"""Builds what suits best, measures it, and tries a remedy where the measurement asks for one.

What an index reaches depends on the data, and no table foretells it: the same lists that answer
songs in 0.1 ms miss the mark on noise. So the first choice is built and tuned on the query sample,
and where it falls short of the recall or of the latency asked for, the next one that is there
against this shortfall is built beside it. The first that reaches both is taken; if none does, the
one that came nearest is, and the gates say by how much it fails. All that was tried stands in the
version's details.

Only `auto` has remedies: a named index is what its user wants, whatever it reaches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from indexrelay.components.build_memory import UNLIMITED, BuildMemory
from indexrelay.components.vector_index.building import build_base
from indexrelay.components.vector_index.choice import Choice, Shortfall, candidates
from indexrelay.components.vector_index.facts import Effort
from indexrelay.components.vector_index.opening import open_index
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.components.vector_index.tuning import Trial, Tuner
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_HEADROOM: Final = 0.8
"""The share of ``max_latency_ms`` that FAISS may take by itself. The gate times whole queries, with
ids and payloads, and a figure at the very limit would fail every other time."""


@dataclass(frozen=True, slots=True)
class _Files:
    """What one attempt writes."""

    index: Path
    trained: Path | None

    def of_a_remedy(self) -> "_Files":
        """Beside these, while it is not known which are better."""
        return _Files(_remedy(self.index), self.trained and _remedy(self.trained))

    def replace(self, others: "_Files") -> None:
        """Take the place of others."""
        for path, other in zip(self.both, others.both, strict=True):
            if path is not None and other is not None:
                path.replace(other)

    def remove(self) -> None:
        """They were not better."""
        for path in self.both:
            if path is not None:
                path.unlink()

    @property
    def both(self) -> tuple[Path, Path | None]:
        """In one order."""
        return (self.index, self.trained)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One index that was built and measured."""

    choice: Choice
    seconds: float
    """To train, fill and tune it."""
    best: Trial | None
    """What it is searched with; ``None``: there is nothing to find."""
    trials: tuple[Trial, ...]
    shortfalls: frozenset[Shortfall]

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return Effort() if self.best is None else self.best.effort

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "index": self.choice.factory.text,
            "reason": self.choice.reason,
            "seconds": round(self.seconds, 3),
            **({} if self.best is None else self.best.as_json()),
            "short_of": sorted(self.shortfalls),
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was built, and what it was held against."""

    index: Any
    """The chosen one, mapped from its file."""
    attempts: tuple[Attempt, ...]
    """In the order in which they were made."""
    chosen: Attempt

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return self.chosen.effort

    def details(self) -> dict[str, Any]:
        """For the manifest: the decision, and the trade-off that was measured."""
        return {
            "index": self.chosen.choice.factory.text,
            "reason": self.chosen.choice.reason,
            "effort": self.effort.model_dump(exclude_none=True),
            "trials": [trial.as_json() for trial in sorted(self.chosen.trials, key=_by_effort)],
            "attempts": [attempt.as_json() for attempt in self.attempts],
        }


def decide(
    path: Path,
    vectors: Vectors,
    metric: Metric,
    parameters: VectorIndexParameters,
    *,
    sample: QuerySample,
    progress: Callable[[float], None],
    trained: Path | None = None,
    memory: BuildMemory = UNLIMITED,
) -> Decision:
    """Build at ``path`` what ``parameters`` ask for over ``vectors``.

    Args:
        path: where the file of the chosen index will be; others lie beside it meanwhile.
        vectors: shape ``(count, dimension)``, as `metrics.prepared` makes them; best a mapped file.
        metric: theirs.
        parameters: of the component.
        sample: drawn from ``vectors``.
        progress: told shares up to 1.
        trained: where the chosen index goes as it was before anything was added; ``None``: nowhere.
        memory: told what each index that is tried will hold.

    Raises:
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    count, dimension = vectors.shape
    attempts: list[Attempt] = []
    kept: Attempt | None = None
    for choice in candidates(parameters, count=count, dimension=dimension, memory=memory):
        if kept is not None and not choice.remedies & kept.shortfalls:
            continue
        files = _Files(path, trained) if kept is None else _Files(path, trained).of_a_remedy()
        started = perf_counter()
        build_base(
            files.index,
            vectors,
            metric,
            choice.factory,
            seed=parameters.seed,
            progress=progress if kept is None else lambda _share: None,
            trained=files.trained,
            memory=memory,
        )
        attempt = _measured(files.index, vectors, metric, choice, parameters, sample, started)
        attempts.append(attempt)
        if kept is None:
            kept = attempt
        elif _better(attempt, kept):
            kept = attempt
            files.replace(_Files(path, trained))
        else:
            files.remove()
        if not kept.shortfalls:
            break
    if kept is None:  # never: `candidates` gives one or raises
        raise LookupError("there was nothing to build")
    return Decision(index=open_index(path), attempts=tuple(attempts), chosen=kept)


def _measured(
    file: Path,
    vectors: Vectors,
    metric: Metric,
    choice: Choice,
    parameters: VectorIndexParameters,
    sample: QuerySample,
    started: float,
) -> Attempt:
    """Tune it as it will be served: from the file, and mapped."""
    tuner = Tuner(
        index=open_index(file),
        sample=sample,
        vectors=vectors,
        metric=metric,
        min_recall=parameters.min_recall,
        max_latency_ms=_HEADROOM * parameters.max_latency_ms,
    )
    best = tuner.best(parameters, refined=choice.factory.refined)
    shortfalls = set()
    if best is not None and best.recall < tuner.min_recall:
        shortfalls.add(Shortfall.RECALL)
    if any(trial.milliseconds > tuner.max_latency_ms for trial in tuner.trials) and (
        best is None or shortfalls or best.milliseconds > tuner.max_latency_ms
    ):
        shortfalls.add(Shortfall.LATENCY)  # also where the search for recall ended at it
    return Attempt(
        choice=choice,
        seconds=perf_counter() - started,
        best=best,
        trials=tuple(tuner.trials),
        shortfalls=frozenset(shortfalls),
    )


def _better(attempt: Attempt, than: Attempt) -> bool:
    """Whether it falls short of less, or as far, by less."""
    return _standing(attempt) < _standing(than)


def _standing(attempt: Attempt) -> tuple[bool, bool, float]:
    best = attempt.best
    short_of_recall = Shortfall.RECALL in attempt.shortfalls
    if best is None:
        return (False, False, 0.0)
    measured = -best.recall if short_of_recall else best.milliseconds
    return (short_of_recall, Shortfall.LATENCY in attempt.shortfalls, measured)


def _remedy(path: Path) -> Path:
    return path.with_name(f"{path.name}.remedy")


def _by_effort(trial: Trial) -> tuple[int, int]:
    effort = trial.effort
    return (effort.k_factor or 0, effort.nprobe or effort.ef_search or 0)
