import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from indexrelay.rebuilder.builds import BuildCancelledError
from indexrelay.rebuilder.builds.memory import (
    PROCESS_BYTES,
    MemoryBudget,
    TooLargeBuildError,
    estimated_memory,
)
from indexrelay.schemas.messages import BuildOutcome
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.testing import MakePipeline
from tests.health.healthy_facts import VERSIONS, healthy

WAIT_SECONDS = 20.0


class Building:
    """A thread that reserves memory, and keeps it until it is let go."""

    def __init__(self, budget: MemoryBudget, needed: int) -> None:
        self.began, self.ended, self._end = threading.Event(), threading.Event(), threading.Event()
        self.error: Exception | None = None

        def build() -> None:
            try:
                with budget.reserved(needed):
                    self.began.set()
                    assert self._end.wait(WAIT_SECONDS)
            except BuildCancelledError as error:
                self.error = error
            finally:
                self.ended.set()

        threading.Thread(target=build, daemon=True).start()

    def end(self) -> None:
        self._end.set()
        assert self.ended.wait(WAIT_SECONDS)


def waits(budget: MemoryBudget) -> Callable[[], bool]:
    return lambda: len(budget._changed._waiters) > 0  # type: ignore[attr-defined]


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if condition():
            return
    pytest.fail("it never came")


def test_what_does_not_fit_beside_others_waits_until_it_does() -> None:
    budget = MemoryBudget(100)
    first, second = Building(budget, 60), Building(budget, 40)
    assert first.began.wait(WAIT_SECONDS)
    assert second.began.wait(WAIT_SECONDS)
    third = Building(budget, 41)
    until(waits(budget))
    second.end()  # 40 are free
    assert budget.taken == 60
    assert not third.began.is_set()
    first.end()
    assert third.began.wait(WAIT_SECONDS)
    assert budget.taken == 41
    third.end()
    assert budget.taken == 0


def test_what_never_fits_is_refused_with_both_figures() -> None:
    with (
        pytest.raises(TooLargeBuildError, match=r"about 1,001 bytes .* may take 1,000: raise"),
        MemoryBudget(1000).reserved(1001),
    ):
        pytest.fail("it fits")


def test_a_rebuilder_that_stops_ends_every_wait_and_lets_nothing_begin() -> None:
    budget = MemoryBudget(10)
    first = Building(budget, 10)
    assert first.began.wait(WAIT_SECONDS)
    second = Building(budget, 1)
    until(waits(budget))
    budget.close()
    budget.close()
    assert second.ended.wait(WAIT_SECONDS)
    assert isinstance(second.error, BuildCancelledError)
    first.end()
    third = Building(budget, 1)
    assert third.ended.wait(WAIT_SECONDS)
    assert not third.began.is_set()


def test_without_a_limit_everything_begins() -> None:
    budget = MemoryBudget(None)
    with budget.reserved(10**15), budget.reserved(10**15):
        assert budget.taken == 0


def test_an_estimate_has_the_entries_twice_or_what_the_last_version_has() -> None:
    facts = healthy()
    stored = facts.stored["tracks"]
    facts = replace(facts, stored={"tracks": replace(stored, count=1000, dimension=64)})
    data = 1000 * 64 * 4
    limits = RebuilderSettings()
    assert VERSIONS["map"].size < data
    assert estimated_memory("map", facts, limits) == PROCESS_BYTES + 2 * data
    assert estimated_memory("map_cache", facts, limits) == PROCESS_BYTES + 2 * data
    bounded = limits.model_copy(update={"build_memory_bytes": 5})
    assert estimated_memory("map", facts, bounded) == PROCESS_BYTES + 5 + data
    outside = replace(facts, stored={})
    assert estimated_memory("map", outside, limits) == PROCESS_BYTES + VERSIONS["map"].size


def test_a_component_that_never_fits_fails_with_both_figures_and_others_are_built(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(
        collections={"small": {"dimension": 4}, "large": {"dimension": 2000}},
        components={
            "fits": {"kind": "embedding_cache", "from": "small"},
            "never": {"kind": "embedding_cache", "from": "large"},
        },
        rebuilder={"max_memory_bytes": PROCESS_BYTES + 100_000},
    )
    for name, dimension in (("small", 4), ("large", 2000)):
        with pipeline.producer.batch(name) as batch:
            batch.upsert([f"e{row}" for row in range(10)], [[0.5] * dimension] * 10)
    result = pipeline.rebuild()
    assert result is not None
    assert result.indexes_rebuilt == ("fits",)
    failed = result.components["never"]
    assert failed.outcome is BuildOutcome.FAILED
    assert f"about {PROCESS_BYTES + 160_000:,} bytes" in str(failed.error)
    assert f"may take {PROCESS_BYTES + 100_000:,}" in str(failed.error)
