"""The loop itself, on a real server and with real child processes."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from indexrelay.health import survey
from indexrelay.rebuilder import Rebuilder, gc, reconciler, service
from indexrelay.schemas.messages import (
    BatchCompleted,
    Event,
    RebuilderState,
    RebuildFinished,
    RebuildStatus,
)
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.streams import Connection, Keys, Presence, publish
from indexrelay.streams.retention import ServerMemory
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import ServerFactory
from tests.rebuilder.conftest import Bench, behaving
from tests.rebuilder.corruption_reports import report_corruption, rot

pytestmark = pytest.mark.server
_TIMEOUT_SECONDS = 3.0
FAST = {
    "quiet_seconds": 0.05,
    "block_seconds": 0.2,
    "lease_ttl_seconds": 2.0,
    "failure_cooldown_seconds": 0.2,
    "presence_ttl_seconds": 2.0,
    "reconcile_seconds": 600.0,
    "release_after_seconds": 0.2,
}


class Live(Bench):
    """A bench whose rebuilders run, each with child processes of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.running: list[Rebuilder] = []

    def limit(self, **limits: float) -> None:
        """Give the rebuilders that are started from now on other limits."""
        rebuilder = {**self.settings.rebuilder.model_dump(), **limits}
        self.settings = Settings.model_validate(
            {**self.settings.model_dump(by_alias=True), "rebuilder": rebuilder}
        )

    def start(self, **components: dict[str, Any]) -> Rebuilder:
        """Start a rebuilder with these components."""
        rebuilder = self.prepared(**components)
        rebuilder.start()
        return rebuilder

    def prepared(self, **components: dict[str, Any]) -> Rebuilder:
        """A rebuilder with these components, which is not started."""
        given = {**self.settings.model_dump(by_alias=True), "components": components}
        rebuilder = Rebuilder(
            Settings.model_validate(given),
            catalog=self.catalog,
            store=self.store,
            connection=self.connection,
        )
        self.running.append(rebuilder)
        return rebuilder

    def emit(self, commit: Commit) -> None:
        """The event of a batch."""
        data = BatchCompleted(
            collection=commit.collection,
            epoch=commit.epoch,
            batch_id=commit.batch_id,
            generation=commit.generation,
        )
        event = Event.of(data, source="test", time=datetime.now(UTC))
        publish(self.connection, self.keys.events, event.to_bytes())

    def results(self) -> list[RebuildFinished]:
        """Every result so far."""
        events = self.messages(self.keys.results)
        return [event.data for event in events if isinstance(event.data, RebuildFinished)]

    def covers(self, generation: int) -> bool:
        """Whether what is released covers it."""
        newest = self.store.newest_release()
        return newest is not None and self.opened("index").manifest.covers == {"tracks": generation}

    def wait(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Look again and again, until ``condition`` holds."""
        ticker = threading.Event()
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            ticker.wait(0.02)
        raise AssertionError(f"not within {seconds} s; results: {self.results()}")


@pytest.fixture
def live(tmp_path: Path, redis_connection: Connection) -> Iterator[Live]:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "collections": {"tracks": {"dimension": 2, "metric": "l2"}},
            "rebuilder": FAST,
        }
    )
    live = Live(
        settings=settings,
        catalog=Catalog.open(settings.catalog_url),
        store=ArtifactStore(settings.artifacts_dir),
        connection=redis_connection,
        keys=Keys(settings.namespace),
    )
    yield live
    for rebuilder in live.running:
        rebuilder.stop()
    live.catalog.close()


def test_an_event_leads_to_a_release(live: Live) -> None:
    live.start(index=behaving("tracks"))
    live.emit(live.commit("a", "b"))
    live.wait(live.results)
    [result] = live.results()
    assert (result.status, result.batch_ids) == (RebuildStatus.SUCCESS, ("batch-1",))
    assert live.opened("index").files["count.txt"].read_text() == "index: 2\n"


def test_a_better_version_is_built_at_the_least_priority_and_follows_by_itself(
    live: Live,
) -> None:
    live.start(index={"kind": "tests.rebuilder.kinds:Improving", "from": ["tracks"]})
    live.emit(live.commit("a"))
    live.wait(lambda: live.covers(1) and live.release().number == 2)
    first = live.store.release(1).components["index"]
    assert live.store.version("index", first).details["quality"] == "quick"
    best = live.opened("index").manifest.details
    assert (best["quality"], best["niceness"]) == ("best", 19)
    live.emit(live.commit("b"))
    live.wait(lambda: live.covers(2))
    assert live.opened("index").manifest.details["quality"] == "best"


def test_what_was_committed_without_any_event_is_found_at_start(live: Live) -> None:
    live.commit("a")
    live.start(index=behaving("tracks"))
    live.wait(lambda: live.store.newest_release() is not None)


def test_what_was_committed_while_no_server_ran_is_built_when_one_comes(
    live: Live, server_factory: ServerFactory
) -> None:
    """The first batch of all, and one during an outage; the next timer is minutes away."""
    server = server_factory()
    with Connection.open(server.url, block_seconds=FAST["block_seconds"]) as connection:
        live.connection = connection
        server.stop()
        with capture_logs() as lines:
            live.start(index=behaving("tracks"))
            for number in (1, 2):
                live.wait(lambda: "rebuilder.interrupted" in [line["event"] for line in lines])
                live.commit(f"entry {number}")
                server.start()
                live.wait(partial(live.covers, number))
                if number == 1:
                    lines.clear()
                    server.stop()


def test_what_a_reader_cannot_load_is_built_again_long_before_the_next_reconcile(
    live: Live,
) -> None:
    live.start(index=behaving("tracks"))
    live.emit(live.commit("a"))
    live.wait(live.results)
    rot(live)
    report_corruption(live)
    live.wait(lambda: live.release().number == 2)
    live.opened("index")


def test_a_slow_component_holds_up_neither_the_others_of_its_pass_nor_the_next_one(
    live: Live,
) -> None:
    live.start(slow=behaving("tracks", behaviour="hangs"), quick=behaving("tracks"))
    live.emit(live.commit("a"))
    live.wait(live.results)
    live.emit(live.commit("b"))
    live.wait(lambda: len(live.results()) == 2)
    assert [result.indexes_rebuilt for result in live.results()] == [("quick",), ("quick",)]
    assert live.opened("quick").manifest.covers == {"tracks": 2}

    def building() -> tuple[str, ...]:
        [state] = Presence(live.connection, live.keys, "rebuilder").all().values()
        return RebuilderState.model_validate_json(state).building

    live.wait(lambda: building() == ("slow",))


def test_a_failed_component_is_tried_again_after_its_cooldown_and_then_left_alone(
    live: Live,
) -> None:
    live.commit("a")
    live.start(bad=behaving("tracks", behaviour="raises"))
    live.wait(lambda: len(live.results()) == 3)
    assert live.catalog.attempts.all()["bad"].failures == 3
    assert {result.status for result in live.results()} == {RebuildStatus.FAILURE}


def test_where_memory_is_short_what_was_read_goes_at_once(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = live.settings.rebuilder.model_copy(update={"presence_ttl_seconds": 0.3})
    live.settings = live.settings.model_copy(update={"rebuilder": limits})
    live.start(index=behaving("tracks"))
    live.emit(live.commit("a"))
    live.wait(lambda: len(live.results()) == 1)  # it has trimmed once, and the next time is far
    live.emit(live.commit("b"))
    live.wait(lambda: len(live.results()) == 2)
    assert live.connection.commands.xlen(live.keys.events) == 2
    monkeypatch.setattr(service, "server_memory", lambda _: ServerMemory(used=95, limit=100))
    live.wait(lambda: live.connection.commands.xlen(live.keys.events) == 1)


def test_stopping_during_a_build_ends_it_and_leaves_the_request_for_the_next_rebuilder(
    live: Live,
) -> None:
    rebuilder = live.start(index=behaving("tracks", behaviour="hangs"))
    live.emit(live.commit("a"))
    live.wait(lambda: live.connection.commands.exists(live.keys.lease("index")))
    rebuilder.stop()
    assert not live.connection.commands.exists(live.keys.lease("index"))
    assert Presence(live.connection, live.keys, "rebuilder").all() == {}
    assert live.store.newest_release() is None
    assert live.results() == []
    live.start(index=behaving("tracks"))
    live.wait(lambda: live.store.newest_release() is not None)


def test_batches_are_released_while_an_improvement_is_built_and_a_stop_ends_it(
    live: Live, tmp_path: Path
) -> None:
    hanging = tmp_path / "hanging"
    hanging.touch()
    index = {
        "kind": "tests.rebuilder.kinds:Improving",
        "from": ["tracks"],
        "hangs_beside": str(hanging),
    }
    rebuilder = live.start(index=index)
    live.emit(live.commit("a"))
    lease = live.keys.improvement_lease("index")
    live.wait(lambda: live.connection.commands.exists(lease))
    live.emit(live.commit("b"))
    live.wait(lambda: live.covers(2))
    live.emit(live.commit("c"))
    live.wait(lambda: live.covers(3))
    assert rebuilder._improver.improving == ("index",)
    rebuilder.stop()
    assert not live.connection.commands.exists(lease)
    assert not live.catalog.improvements.all()
    assert live.opened("index").manifest.details["quality"] == "quick"
    hanging.unlink()
    live.start(index=index)
    live.wait(lambda: live.opened("index").manifest.details["quality"] == "best")
    assert live.covers(3)


def test_a_server_that_does_not_answer_holds_up_a_stop_for_one_time_out_only(
    live: Live, server_factory: ServerFactory
) -> None:
    server = server_factory()
    block = FAST["block_seconds"]
    with Connection.open(
        server.url, timeout_seconds=_TIMEOUT_SECONDS, block_seconds=block
    ) as connection:
        live.connection = connection
        rebuilder = live.start(first=behaving("tracks"), index=behaving("first", behaviour="hangs"))
        live.commit("a")
        rebuilders = Presence(connection, live.keys, "rebuilder")
        # The first was released, and that was announced: the process that builds has started, and
        # is quick to end, and nothing else is on its way to the server.
        live.wait(lambda: connection.commands.xlen(live.keys.results))
        live.wait(rebuilders.all)
        server.stall()
        try:
            started = time.monotonic()
            rebuilder.stop()
            seconds = time.monotonic() - started
        finally:
            server.go_on()
        # The read that runs and the lease that is given back wait at once, and nothing after them;
        # before them the build is ended, which takes a moment.
        assert seconds < block + 1.9 * _TIMEOUT_SECONDS


def test_stop_is_safe_twice_and_before_start(live: Live) -> None:
    rebuilder = live.start(index=behaving("tracks"))
    rebuilder.stop()
    rebuilder.stop()
    idle = Rebuilder(
        live.settings, catalog=live.catalog, store=live.store, connection=live.connection
    )
    idle.stop()


def test_two_rebuilders_share_the_work_and_nothing_is_built_twice(live: Live) -> None:
    components = {f"index_{letter}": behaving("tracks") for letter in "abcdef"}
    live.start(**components)
    live.start(**components)
    live.emit(live.commit("a"))

    def built() -> list[str]:
        return [name for result in live.results() for name in result.indexes_rebuilt]

    live.wait(lambda: len(built()) >= len(components))
    assert sorted(built()) == sorted(components)


def test_a_server_that_comes_back_empty_is_filled_at_once_and_nothing_is_rebuilt(
    live: Live,
) -> None:
    live.start(index=behaving("tracks"))
    live.emit(live.commit("a"))
    live.wait(live.results)
    live.connection.commands.flushall()  # under the blocked read; the next timer is minutes away
    live.wait(lambda: live.connection.commands.get(live.keys.release) == b"1")
    live.emit(live.commit("b"))
    live.wait(lambda: len(live.results()) == 1 and live.release().number == 2)
    assert live.opened("index").manifest.covers == {"tracks": 2}


def test_a_running_rebuilder_trims_what_it_has_read(live: Live) -> None:
    for number in range(5):
        live.emit(live.commit(f"{number}"))
    live.limit(trim_seconds=0.1)
    live.start(index=behaving("tracks"))
    live.wait(lambda: live.connection.commands.xlen(live.keys.events) == 1)


def test_no_look_for_keys_and_no_judge_holds_up_a_build(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both go through all keys of the server, of which there may be any number."""
    go = threading.Event()
    held: set[str] = set()

    def held_up(name: str, then: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any, **named: Any) -> Any:
            held.add(name)
            go.wait()
            return then(*arguments, **named)

        return wait

    for holder, name in (
        (reconciler, "find_wrong_keys"),
        (survey, "find_wrong_keys"),
        (gc, "scan"),
    ):
        full_name = f"{holder.__name__.rpartition('.')[2]}.{name}"
        monkeypatch.setattr(holder, name, held_up(full_name, getattr(holder, name)))
    live.limit(reconcile_seconds=0.05)
    try:
        live.start(index=behaving("tracks"))
        live.wait(lambda: {"reconciler.find_wrong_keys", "survey.find_wrong_keys"} <= held)
        for number in (1, 2, 3):
            live.emit(live.commit(str(number)))
            live.wait(partial(live.covers, number))
    finally:
        go.set()
    live.wait(lambda: "gc.scan" in held)


def test_nothing_more_is_asked_of_the_server_once_a_look_for_keys_ends_in_a_stop(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks a server that does not answer waits for one time-out more."""
    looking, go = threading.Event(), threading.Event()

    def silent(*_: Any, **__: Any) -> Any:
        looking.set()
        go.wait()
        raise RedisConnectionError("it does not answer")

    rebuilder = live.prepared(index=behaving("tracks"))
    monkeypatch.setattr(reconciler, "find_wrong_keys", silent)
    for holder, name in ((rebuilder._trimmer, "trim"), (rebuilder._presence, "find_namesakes")):
        monkeypatch.setattr(holder, name, lambda: pytest.fail("the server is asked again"))
    rebuilder.start()
    assert looking.wait(_TIMEOUT_SECONDS * 10)
    stopping = threading.Thread(target=rebuilder.stop)
    stopping.start()
    live.wait(rebuilder._stopping.is_set)
    with capture_logs() as logs:
        go.set()
        stopping.join()
    assert [each for each in logs if each["event"] == "thread.interrupted"] == []


def test_a_key_of_another_type_in_place_of_the_events_is_set_aside_at_once(live: Live) -> None:
    live.limit(presence_ttl_seconds=1800, trim_seconds=3600)  # keys are looked at every ten minutes
    live.start(index=behaving("tracks"))
    live.emit(live.commit("a"))
    live.wait(lambda: live.covers(1))
    with live.connection.commands.pipeline() as pipeline:
        pipeline.delete(live.keys.events)
        pipeline.set(live.keys.events, "mine")
        pipeline.execute()
    live.commit("b")
    live.wait(lambda: live.covers(2))
    assert live.connection.commands.get(live.keys.aside(live.keys.events)) == b"mine"
