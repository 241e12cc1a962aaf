"""What a release wants, a reader serves, and what cannot be loaded takes nothing else away."""

import pytest

from indexrelay.reloaders import ComponentNotServedError
from tests.contracts.serving import SECONDS, Serving, served_words
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import texts
from tests.streams.polling import eventually


def test_a_load_error_does_not_unload_what_is_served(serving: Serving) -> None:
    """TensorFlow Serving: AspireErrorDontUnload."""
    first = serving.release(voyager="v1", clap="c1", map="m1")
    reader = serving.start()
    serving.report(first)
    served = served_words(reader)
    second = serving.release(voyager="rubbish", clap="c2")
    report = serving.report(second)
    assert texts(reader) == {"voyager": "v1", "clap": "c2", "map": "m1"}
    assert {name: state.outcome.value for name, state in report.components.items()} == {
        "voyager": "failed",
        "clap": "applied",
        "map": "unchanged",
    }
    failed = report.components["voyager"]
    assert (failed.version, failed.wanted) == (
        first.components["voyager"],
        second.components["voyager"],
    )
    assert failed.error is not None
    assert failed.error.startswith("ValueError: the format cannot be read")
    assert failed.covers == {"tracks": 1}
    assert report.ready
    assert served.closed == 0
    third = serving.release(voyager="v3")
    assert serving.outcomes(third)["voyager"] == "applied"
    assert texts(reader)["voyager"] == "v3"
    eventually(lambda: served.closed == 1, seconds=SECONDS)


def test_a_load_that_fails_for_want_of_memory_is_tried_again_until_it_succeeds(
    serving: Serving,
) -> None:
    """TensorFlow Serving: RetryOnLoadErrorFinallySucceeds."""
    cause = serving.bench.folder / "cause"
    cause.touch()
    first = serving.release(voyager="v1")
    reader = serving.start()
    serving.report(first)
    second = serving.release(voyager=f"memory {cause}")
    assert serving.outcomes(second) == {"voyager": "failed"}
    with capture_logs() as lines:
        serving.bench.clock.advance(1.2)
        eventually(lambda: _load_failures(lines), seconds=SECONDS)
    assert texts(reader) == {"voyager": "v1"}
    cause.unlink()
    serving.bench.clock.advance(2.4)
    report = serving.report(second)
    assert report.components["voyager"].outcome.value == "applied"
    assert report.components["voyager"].version == second.components["voyager"]
    assert report.components["voyager"].error is None
    assert texts(reader) == {"voyager": f"memory {cause}"}


def _load_failures(lines: list[dict[str, object]]) -> list[object]:
    return [line["component"] for line in lines if line["event"] == "component.load_failed"]


def test_a_format_that_cannot_be_read_fails_for_good_until_another_version_is_named(
    serving: Serving,
) -> None:
    """TensorFlow Serving: RetryOnLoadErrorFinallyFails."""
    first = serving.release(voyager="v1")
    reader = serving.start()
    serving.report(first)
    assert serving.outcomes(serving.release(voyager="rubbish")) == {"voyager": "failed"}
    with capture_logs() as lines:
        serving.bench.clock.advance(3600.0)
        third = serving.release(clap="c1")
        assert serving.outcomes(third) == {"clap": "applied", "voyager": "failed"}
    assert _load_failures(lines) == []
    assert texts(reader) == {"voyager": "v1", "clap": "c1"}
    fourth = serving.release(voyager="v4")
    assert serving.outcomes(fourth) == {"clap": "unchanged", "voyager": "applied"}
    assert texts(reader) == {"voyager": "v4", "clap": "c1"}


def test_a_component_that_left_and_came_back_does_not_wait_for_who_still_uses_it(
    serving: Serving,
) -> None:
    """TensorFlow Serving: UnaspireThenImmediatelyReaspire."""
    first = serving.release(voyager="v1", clap="c1")
    reader = serving.start()
    serving.report(first)
    version = serving.bench.components["clap"]
    with reader.acquire() as pinned:
        old = pinned["clap"]
        serving.report(serving.drop("clap"))
        assert texts(reader) == {"voyager": "v1"}
        serving.bench.components["clap"] = version
        again = serving.announce(serving.bench.release())
        assert serving.outcomes(again) == {"voyager": "unchanged", "clap": "applied"}
        new = served_words(reader, "clap")
        assert new is not old
        assert (old.read(), new.read()) == ("c1", "c1")
    eventually(lambda: old.closed == 1, seconds=SECONDS)
    assert new.read() == "c1"


def test_a_component_that_failed_left_and_came_back_is_tried_at_once(serving: Serving) -> None:
    """TensorFlow Serving: UnaspireFailedServableThenImmediatelyReaspire."""
    cause = serving.bench.folder / "cause"
    cause.touch()
    first = serving.release(voyager="v1", clap=f"bad {cause}")
    reader = serving.start()
    assert serving.outcomes(first) == {"voyager": "applied", "clap": "failed"}
    version = serving.bench.components["clap"]
    serving.report(serving.drop("clap"))
    cause.unlink()
    serving.bench.components["clap"] = version
    again = serving.announce(serving.bench.release())
    assert serving.outcomes(again) == {"voyager": "unchanged", "clap": "applied"}
    assert texts(reader)["clap"] == f"bad {cause}"


def test_a_component_that_left_and_came_back_unseen_is_loaded_once(serving: Serving) -> None:
    """TensorFlow Serving: UnaspireNewServableThenImmediatelyReaspire."""
    serving.release(voyager="v1", clap="c1")
    version = serving.bench.components["clap"]
    serving.drop("clap")
    serving.bench.components["clap"] = version
    again = serving.announce(serving.bench.release())
    with capture_logs() as lines:
        reader = serving.start()
        assert serving.outcomes(again) == {"voyager": "applied", "clap": "applied"}
    loaded = [line["component"] for line in lines if line["event"] == "component.reloaded"]
    assert sorted(loaded) == ["clap", "voyager"]
    assert texts(reader) == {"voyager": "v1", "clap": "c1"}


def test_a_rollback_brings_back_a_smaller_generation(serving: Serving) -> None:
    """TensorFlow Serving: RevertToSmallerVersionNumber."""
    first = serving.release(voyager="v1")
    reader = serving.start()
    serving.report(first)
    serving.report(serving.release(voyager="v2"))
    rejected = served_words(reader)
    back = serving.announce(serving.bench.store.rollback(1, reason="bad songs"))
    report = serving.report(back)
    assert (report.release, report.components["voyager"].covers) == (3, {"tracks": 1})
    assert report.components["voyager"].version == first.components["voyager"]
    assert texts(reader) == {"voyager": "v1"}
    eventually(lambda: rejected.closed == 1, seconds=SECONDS)


def test_when_everything_leaves_nothing_is_served_and_all_of_it_is_closed(
    serving: Serving,
) -> None:
    """TensorFlow Serving: AspiredRemovedFull."""
    first = serving.release(voyager="v1", clap="c1")
    reader = serving.start()
    serving.report(first)
    served = [served_words(reader, name) for name in ("voyager", "clap")]
    serving.report(serving.drop("clap"))
    report = serving.report(serving.drop("voyager"))
    assert (report.components, report.ready) == ({}, False)
    with reader.acquire() as snapshot, pytest.raises(ComponentNotServedError):
        snapshot["voyager"]
    eventually(lambda: [each.closed for each in served] == [1, 1], seconds=SECONDS)
