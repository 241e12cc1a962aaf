"""What a rebuilder says of itself in presence, for the jobs that wait."""

from indexrelay.schemas.results import RebuilderState
from indexrelay.streams import Presence
from tests.rebuilder.conftest import Bench, MakeBench, behaving


def said(bench: Bench) -> RebuilderState:
    bench.rebuilder.step()
    [state] = Presence(bench.connection, bench.keys, "rebuilder").all().values()
    return RebuilderState.model_validate_json(state)


def test_what_a_person_keeps_back_is_said_with_the_reason(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), map=behaving("tracks"))
    bench.commit("a")
    assert said(bench).kept_back == {}
    bench.store.hold("map", reason="bad maps")
    bench.catalog.attempts.pause("index", "cost")
    assert said(bench).kept_back == {"map": "held: bad maps", "index": "paused: cost"}
    bench.store.lift("map", reason="mended")
    bench.catalog.attempts.resume("index")
    assert said(bench).kept_back == {}


def test_a_failure_is_said_with_what_it_was_to_cover(make_bench: MakeBench) -> None:
    bench = make_bench(bad=behaving("tracks", behaviour="raises"))
    commit = bench.commit("a")
    failure = said(bench).failures["bad"]
    assert failure.targets == {"tracks": commit.generation}
    assert failure.retry_at is not None
