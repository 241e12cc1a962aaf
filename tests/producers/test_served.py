"""A commit counts as served when readers say so, and a failure ends the wait."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from indexrelay.producers import NotServedError, Producer
from indexrelay.schemas.declarations import declared_to_build, declared_to_serve
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.storage.catalog import Commit
from indexrelay.streams import Connection, Presence
from indexrelay.streams.presence import Look, Roster
from tests.producers.presence import HandClock, Readers, reader, rebuilder


@pytest.fixture
def commit(producer: Producer) -> Commit:
    for name in ("a", "b"):
        with producer.batch("tracks") as batch:
            batch.upsert([name], np.ones((1, 3), np.float32))
    return batch.commit


def test_it_is_served_when_every_live_reader_covers_it(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2, "map": 2}, epoch=commit.epoch, release=7))
    readers.say(reader("two", {"voyager": 2}, epoch=commit.epoch, release=6))
    served = producer.wait_served(commit, timeout_seconds=1)
    assert served.readers == ("one", "two")
    assert served.release == 6
    assert served.seconds == 0


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({}, "none is alive"),
        ({"one": {}}, r"one \(here:1\): serves nothing of it"),
        ({"one": {"voyager": 1}}, "voyager at generation 1"),
        ({"one": {"voyager": 2, "map": 1}}, "map at generation 1"),
        (
            {"one": {"voyager": 2}, "two": {"voyager": 1}},
            r"two \(here:1\): voyager at generation 1",
        ),
        ({"one": {"voyager": 2, "map": None}}, r"map at nothing \(no memory\)"),
    ],
)
def test_it_is_not_served_while_one_reader_is_behind(
    producer: Producer,
    commit: Commit,
    readers: Readers,
    states: dict[str, dict[str, int | None]],
    reason: str,
) -> None:
    for name, generations in states.items():
        readers.say(reader(name, generations, epoch=commit.epoch))
    with pytest.raises(NotServedError, match=reason) as caught:
        producer.wait_served(commit, timeout_seconds=2)
    assert caught.value.seconds >= 2
    assert caught.value.behind


def test_a_generation_of_another_epoch_does_not_count(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 99}, epoch="another"))
    with pytest.raises(NotServedError, match="voyager at nothing"):
        producer.wait_served(commit, timeout_seconds=0)


def test_so_many_readers_may_be_enough(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    readers.say(reader("two", {"voyager": 1}, epoch=commit.epoch))
    assert producer.wait_served(commit, timeout_seconds=0, readers=1).readers == ("one",)
    with pytest.raises(NotServedError, match=r"two .*: voyager"):
        producer.wait_served(commit, timeout_seconds=0, readers=2)
    with pytest.raises(NotServedError, match=r"2 process\(es\) alive, 3 asked for"):
        producer.wait_served(commit, timeout_seconds=0, readers=3)


def test_named_readers_must_be_there(producer: Producer, commit: Commit, readers: Readers) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    readers.say(reader("slow", {"voyager": 1}, epoch=commit.epoch))
    assert producer.wait_served(commit, timeout_seconds=0, readers={"one"})
    with pytest.raises(NotServedError, match="gone: not alive"):
        producer.wait_served(commit, timeout_seconds=0, readers={"one", "gone"})


def test_a_number_counts_processes_of_ids_whose_processes_all_serve_the_commit(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("web", {"voyager": 2}, epoch=commit.epoch, instance="0a"))
    readers.say(reader("web", {"voyager": 1}, epoch=commit.epoch, instance="0b"))
    asked: list[Any] = [None, {"web"}, 1, 2, {"web": 1}, {"web": 2}]
    for each in asked:
        with pytest.raises(NotServedError, match=r"web \(here:1\): voyager at generation 1"):
            producer.wait_served(commit, timeout_seconds=0, readers=each)
    readers.say(reader("web", {"voyager": 2}, epoch=commit.epoch, instance="0b"))
    for each in asked:
        served = producer.wait_served(commit, timeout_seconds=0, readers=each)
        assert served.readers == ("web", "web")
    with pytest.raises(NotServedError, match=r"readers: 2 process\(es\) alive, 3 asked for"):
        producer.wait_served(commit, timeout_seconds=0, readers=3)
    with pytest.raises(NotServedError, match=r"web: 2 process\(es\) alive, 3 asked for"):
        producer.wait_served(commit, timeout_seconds=0, readers={"web": 3})


def test_no_id_says_what_concerns_another(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2, "new": None}, epoch=commit.epoch))
    readers.say(reader("other", {"new": 1}, epoch=commit.epoch))
    assert producer.wait_served(commit, timeout_seconds=0, readers=["one"]).readers == ("one",)
    assert producer.wait_served(commit, timeout_seconds=0, readers=1).readers == ("one",)


def test_a_generation_without_the_stamp_of_its_commit_does_not_count(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch), stamped=False)
    with pytest.raises(NotServedError, match=r"voyager at generation 2 \(without the stamp"):
        producer.wait_served(commit, timeout_seconds=0)


def test_of_one_id_the_catalog_is_asked_about_few_generations(
    producer: Producer, commit: Commit, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.producers.served._MOST_GENERATIONS", 1)
    for name in ("c", "d"):
        with producer.batch("tracks") as batch:
            batch.upsert([name], np.ones((1, 3), np.float32))
    readers.say(reader("one", {"voyager": 3, "map": 2}, epoch=commit.epoch))
    with pytest.raises(NotServedError, match=r"voyager at generation 3 \(and so many other"):
        producer.wait_served(commit, timeout_seconds=0)
    readers.say(reader("one", {"voyager": 4, "map": 2}, epoch=commit.epoch))
    assert producer.wait_served(commit, timeout_seconds=0).readers == ("one",)


def test_named_components_must_all_be_covered_and_others_need_not(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2, "map": 1}, epoch=commit.epoch))
    assert producer.wait_served(commit, timeout_seconds=0, components=["voyager"])
    with pytest.raises(NotServedError, match="map_cache at nothing"):
        producer.wait_served(commit, timeout_seconds=0, components=["voyager", "map_cache"])


def test_it_looks_again_until_they_are_there(
    producer: Producer, commit: Commit, readers: Readers, clock: HandClock
) -> None:
    readers.say(reader("one", {"voyager": 1}, epoch=commit.epoch))
    pass_by = clock.pass_by

    def catch_up(seconds: float) -> None:
        pass_by(seconds)
        if clock.seconds > 3:
            readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))

    producer._wait = catch_up
    served = producer.wait_served(commit, timeout_seconds=10)
    assert 3 < served.seconds < 3.2


def test_a_failed_build_ends_the_wait_at_once(
    producer: Producer, commit: Commit, readers: Readers, clock: HandClock
) -> None:
    readers.say(reader("one", {"voyager": 2, "map": 1}, epoch=commit.epoch))
    readers.say_rebuilder(rebuilder(map=2))
    with pytest.raises(NotServedError, match="component map failed: the gate recall") as caught:
        producer.wait_served(commit, timeout_seconds=60)
    assert set(caught.value.failures) == {"map"}
    assert clock.seconds == 0


def test_a_component_that_a_person_keeps_back_is_named_with_the_reason(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2, "map": 1}, epoch=commit.epoch))
    kept_back = {"map": "held: bad maps", "voyager": "paused: cost"}
    readers.say_rebuilder(rebuilder().model_copy(update={"kept_back": kept_back}))
    with pytest.raises(NotServedError, match="component map is held: bad maps") as caught:
        producer.wait_served(commit, timeout_seconds=2)
    # What is paused after it was served keeps nobody waiting.
    assert caught.value.kept_back == {"map": "held: bad maps"}


def test_processes_that_were_started_with_other_settings_are_named(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    old = {"old": ComponentDefinition.of("vector_index", "tracks", required=False)}
    builds, serves = declared_to_build(old, {}), declared_to_serve(old)
    late = reader("one", {"voyager": 1}, epoch=commit.epoch)
    readers.say(late.model_copy(update={"declares": serves}))
    readers.say_rebuilder(rebuilder().model_copy(update={"declares": builds}))
    said = r"rebuilder r \(here:2\) runs with other settings than these: .*old is declared there"
    with pytest.raises(NotServedError, match=said) as caught:
        producer.wait_served(commit, timeout_seconds=2)
    assert [each.partition(" runs ")[0] for each in caught.value.other_settings] == [
        "rebuilder r (here:2)",
        "reader one (here:1)",
    ]


def test_a_component_that_failed_before_any_reader_had_it_ends_the_wait_too(
    producer: Producer, commit: Commit, readers: Readers
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    readers.say_rebuilder(rebuilder(map=2))
    with pytest.raises(NotServedError, match="component map failed"):
        producer.wait_served(commit, timeout_seconds=60)


@pytest.mark.parametrize(
    ("arguments", "failures"),
    [
        ({"components": ["voyager"]}, {"map": 2}),
        ({"fail_fast": False}, {"map": 2}),
        ({}, {"map": 1}),
        ({}, {"voyager": 2}),
    ],
    ids=["of another component", "asked to wait on", "of an earlier commit", "mended since"],
)
def test_a_failure_that_does_not_concern_the_wait_does_not_end_it(
    producer: Producer,
    commit: Commit,
    readers: Readers,
    arguments: dict[str, Any],
    failures: dict[str, int],
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    readers.say_rebuilder(rebuilder(**failures))
    assert producer.wait_served(commit, timeout_seconds=1, **arguments).readers == ("one",)


def test_redis_being_away_is_waited_out(
    producer: Producer,
    commit: Commit,
    readers: Readers,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    look = Presence.look

    def away(presence: Presence, roster: Roster | None = None, **given: Any) -> Look:
        if clock.seconds < 1:
            raise RedisConnectionError("connection refused")
        return look(presence, roster, **given)

    monkeypatch.setattr(Presence, "look", away)
    assert 1 <= producer.wait_served(commit, timeout_seconds=5).seconds < 1.1
    clock.seconds = 0
    with pytest.raises(NotServedError, match="presence cannot be read: connection refused"):
        producer.wait_served(commit, timeout_seconds=0.5)


def test_a_refusal_that_stays_is_raised(
    producer: Producer, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> Look:
        raise ResponseError("ERR unknown command")

    monkeypatch.setattr(Presence, "look", refused)
    with pytest.raises(ResponseError, match="unknown command"):
        producer.wait_served(commit, timeout_seconds=60)


def test_a_state_that_cannot_be_read_does_not_hide_the_others(
    producer: Producer, commit: Commit, readers: Readers, connection: Connection
) -> None:
    readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
    Presence(connection, readers._keys, "reader").publish("alien", b"{}", ttl_seconds=60)
    assert producer.wait_served(commit, timeout_seconds=0).readers == ("one",)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"readers": "one"}, TypeError),
        ({"readers": 0}, ValueError),
        ({"readers": ()}, ValueError),
        ({"readers": {"web": 0}}, ValueError),
        ({"components": "map"}, TypeError),
        ({"components": ()}, ValueError),
        ({"timeout_seconds": -1}, ValueError),
        ({"timeout_seconds": float("nan")}, ValueError),
    ],
)
def test_a_wait_that_means_nothing_is_refused(
    producer: Producer, commit: Commit, arguments: dict[str, Any], error: type[Exception]
) -> None:
    wait: Callable[..., object] = producer.wait_served
    with pytest.raises(error):
        wait(commit, **{"timeout_seconds": 1, **arguments})


def test_a_reader_that_comes_while_others_are_looked_at_counts_before_all_is_served(
    producer: Producer,
    commit: Commit,
    readers: Readers,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Finding everyone is not repeated at each look, but before it is said that all serve."""
    readers.say(reader("one", {"voyager": 1}, epoch=commit.epoch))
    scans = []
    members = Presence.members

    def counted(presence: Presence, *labels: Any, **given: Any) -> Roster:
        scans.append(clock.seconds)
        return members(presence, *labels, **given)

    monkeypatch.setattr(Presence, "members", counted)
    looks = []
    look = Presence.look

    def looked(presence: Presence, roster: Roster | None = None, **given: Any) -> Look:
        looks.append(clock.seconds)
        if len(looks) == 20:
            readers.say(reader("two", {"voyager": 1}, epoch=commit.epoch))
            readers.say(reader("one", {"voyager": 2}, epoch=commit.epoch))
        return look(presence, roster, **given)

    monkeypatch.setattr(Presence, "look", looked)
    with pytest.raises(NotServedError, match="two"):
        producer.wait_served(commit, timeout_seconds=2)
    assert len(scans) < len(looks) / 2
