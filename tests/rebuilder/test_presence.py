"""What a rebuilder publishes about itself, for the jobs that wait."""

from indexrelay.schemas.messages import RebuilderState
from indexrelay.streams import Presence, members_of
from tests.fixtures.logs import capture_logs
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
