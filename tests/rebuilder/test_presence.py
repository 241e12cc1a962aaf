"""What a rebuilder publishes about itself, for the jobs that wait."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from indexrelay.rebuilder import BuildError, BuildSession, InlineRunner
from indexrelay.rebuilder.builds import BuildRequest, Progress
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import ComponentResult, RebuilderState
from indexrelay.schemas.progress import BuildProgress, BuildStep
from indexrelay.streams import Presence, members_of
from tests.fixtures.logs import capture_logs
from tests.rebuilder.builds.test_runner import wait_until
from tests.rebuilder.conftest import Bench, MakeBench, behaving


def said(bench: Bench) -> RebuilderState:
    bench.rebuilder.step()
    [state] = Presence(bench.connection, bench.keys, "rebuilder").all().values()
    return RebuilderState.model_validate_json(state)


def test_what_a_person_keeps_back_is_published_with_the_reason(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), map=behaving("tracks"))
    bench.commit("a")
    assert said(bench).kept_back == {}
    bench.store.hold("map", reason="bad maps")
    bench.catalog.attempts.pause("index", "cost")
    assert said(bench).kept_back == {"map": "held: bad maps", "index": "paused: cost"}
    bench.store.lift("map", reason="mended")
    bench.catalog.attempts.resume("index")
    assert said(bench).kept_back == {}


def test_a_failure_is_published_with_what_it_was_to_cover(make_bench: MakeBench) -> None:
    bench = make_bench(bad=behaving("tracks", behaviour="raises"))
    commit = bench.commit("a")
    failure = said(bench).failures["bad"]
    assert failure.targets == {"tracks": commit.generation}
    assert failure.retry_at is not None


def test_two_rebuilders_under_one_id_are_reported_when_both_are_alive(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    one, other = bench.another("r"), bench.another("r")

    def namesakes() -> list[int]:
        found = members_of(bench.connection, bench.keys, RebuilderState).states
        return [len(state.namesakes) for state in found.values() if state is not None]

    with capture_logs() as lines:
        other.step()
        for _ in range(3):
            one.step()
        # So far the other may have been killed, and is present until its TTL ends.
        assert namesakes() == [0, 0]
        assert lines == [line for line in lines if line["event"] != "rebuilder.not_alone"]
        for _ in range(3):
            other.step()
            one.step()
        assert namesakes() == [1, 1]
        told = [line for line in lines if line["event"] == "rebuilder.not_alone"]
        assert [line["rebuilder"] for line in told] == ["r", "r"]  # each of them, once
        other.stop()
        one.step()
        one.step()
        assert namesakes() == [0]
    one.stop()


class HeldSession:
    """Is a quarter through every build until it may go on."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def run(self, request: BuildRequest, *, progress: Progress, **_limits: Any) -> ComponentResult:
        progress(BuildStep.BUILDING, 0.25)
        assert self._go_on.wait(30)
        raise BuildError(f"{request.component} was only to be held")


class HeldRunner(InlineRunner):
    """Builds that wait, in the thread of their pass."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(catalog=bench.catalog, store=bench.store, clock=SystemClock())
        self.go_on = threading.Event()

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator[BuildSession]:  # noqa: ARG002
        yield HeldSession(self.go_on)


def test_how_far_a_build_is_is_published_while_it_runs(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.runner = runner = HeldRunner(bench)
    rebuilder = bench.another("r", rebuilder={"quiet_seconds": 0.01})

    def published() -> dict[str, BuildProgress]:
        found = members_of(bench.connection, bench.keys, RebuilderState).known.values()
        return {name: each for state in found for name, each in state.progress.items()}

    rebuilder.start()
    try:
        wait_until(lambda: "index" in published())
        wait_until(lambda: published()["index"].share == 0.25)
        assert published()["index"].step is BuildStep.BUILDING
        runner.go_on.set()
        wait_until(lambda: published() == {})
    finally:
        runner.go_on.set()
        rebuilder.stop()
