"""The reloading thread: what wakes it, what it outlives, and how it ends."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexrelay.reloaders import Reloader, ReloaderStoppedError
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import load_settings
from indexrelay.schemas.versions import Release
from indexrelay.streams import Connection, EmbeddedServer, Keys, Presence, announce
from tests.fixtures.servers import ServerFactory
from tests.reloaders.bench import Bench, Swaps, make_settings, texts
from tests.reloaders.kinds import WORDS
from tests.streams.polling import eventually

KEYS = Keys("test")


def _announce(connection: Connection, number: int) -> None:
    # The result is drawn from the number; what the messages say plays no part.
    announce(connection, KEYS, number=number, release_event=b"look", result_event=b"%d" % number)


def test_a_reader_finds_its_settings_or_takes_them_themselves_or_as_a_path(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(voyager="v1")
    file = tmp_path / "indexrelay.toml"
    file.write_text(
        f'namespace = "test"\ndata_dir = "{bench.settings.data_dir}"\n'
        f'[components.voyager]\nkind = "{WORDS}"\nfrom = "tracks"\n'
        "[collections.tracks]\ndimension = 2\n"
    )
    monkeypatch.chdir(tmp_path)
    for given in (None, file, str(file), load_settings(file)):
        reader = Reloader.open(given, reader_id="web")
        assert reader.step()
        assert (reader.reader_id, texts(reader)) == ("web", {"voyager": "v1"})
        reader.stop()
    with pytest.raises(SettingsError):
        Reloader.open("missing.toml")


def test_a_message_wakes_a_reader_at_once(bench: Bench, redis_connection: Connection) -> None:
    """The bench's clock stands still, so that no timer does."""
    swaps = Swaps()
    reader = bench.reader(connection=redis_connection, after_swap=[swaps])
    reader.start()
    try:
        for number in range(1, 6):
            bench.publish(voyager=f"v{number}")
            _announce(redis_connection, number)
            swaps.wait_for(number)
            assert texts(reader) == {"voyager": f"v{number}"}
    finally:
        reader.stop()


def test_without_a_server_the_store_is_polled(bench: Bench) -> None:
    swaps = Swaps()
    settings = make_settings(bench.folder, poll_seconds=0.02)
    reader = Reloader(settings, store=bench.store, after_swap=[swaps])
    reader.start()
    try:
        for number in range(1, 4):
            bench.publish(voyager=f"v{number}")
            swaps.wait_for(number)
    finally:
        reader.stop()


def test_what_was_missed_while_the_server_was_away_is_found_when_it_is_back(
    bench: Bench, server_factory: ServerFactory
) -> None:
    server = server_factory()
    swaps = Swaps()
    with Connection.open(server.url, block_seconds=1.0) as connection:
        reader = bench.reader(connection=connection, after_swap=[swaps])
        bench.publish(voyager="v1")
        reader.start()
        try:
            swaps.wait_for(1)
            server.kill()
            bench.publish(voyager="v2")  # and nobody announces it
            server.start()
            swaps.wait_for(2)
        finally:
            reader.stop()


@pytest.mark.server
def test_a_server_that_does_not_answer_holds_up_a_stop_for_one_time_out_only(
    bench: Bench, server_factory: ServerFactory
) -> None:
    server = server_factory()
    with Connection.open(server.url, timeout_seconds=2.0, block_seconds=1.0) as connection:
        reader = bench.reader(connection=connection)
        bench.publish(voyager="v1")
        reader.start()
        eventually(
            lambda: connection.commands.xlen(KEYS.reports("a")) == 1
        )  # it has said all that it had to
        server.stall()
        try:
            started = time.monotonic()
            reader.stop()
            seconds = time.monotonic() - started
        finally:
            server.go_on()
        assert seconds < 1.0 + 1.5 * 2.0


@pytest.mark.server
def test_without_a_url_a_reader_finds_the_embedded_server_once_that_runs(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with EmbeddedServer(bench.folder) as server, Connection.open(server.start()) as connection:
        reader.step()
        assert list(Presence(connection, KEYS, "reader").all()) == [reader.state.member]
        reader.stop()
        assert Presence(connection, KEYS, "reader").all() == {}


def test_a_failed_load_is_tried_again_by_itself(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager=f"memory {cause}")
    settings = make_settings(bench.folder, retry_seconds=0.02, poll_seconds=3600.0)
    reader = Reloader(settings, store=bench.store)
    reader.start()
    try:
        eventually(lambda: "voyager" in reader.state.components)
        assert not reader.ready
        cause.unlink()
        assert reader.wait_ready(30)
    finally:
        reader.stop()


def test_a_permanent_failure_is_retried_on_request(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager=f"bad {cause}")
    settings = make_settings(bench.folder, poll_seconds=3600.0, block_seconds=0.05)
    reader = Reloader(settings, store=bench.store)
    reader.start()
    try:
        eventually(lambda: "voyager" in reader.state.components)
        reader.retry_failed()
        eventually(lambda: not reader._follower.asked)
        assert not reader.ready
        cause.unlink()
        reader.retry_failed()
        assert reader.wait_ready(30)
    finally:
        reader.stop()


def test_start_and_stop_are_safe_twice_and_in_any_order(
    bench: Bench, redis_connection: Connection
) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader(connection=redis_connection)
    reader.stop()
    for _ in range(2):
        reader.start()
        reader.start()
        assert reader.wait_ready(30)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("indexrelay-reloader") == 1
        reader.stop()
        reader.stop()
        assert "indexrelay-reloader" not in [thread.name for thread in threading.enumerate()]
        with pytest.raises(ReloaderStoppedError):
            reader.acquire()


def test_a_callback_may_stop_its_reader(bench: Bench) -> None:
    bench.publish(voyager="v1")
    stopped: list[Callable[[], None]] = []
    reader = bench.reader(before_swap=[lambda *_: stopped[0]()])
    stopped.append(reader.stop)
    reader.start()
    eventually(lambda: not any(t.name == "indexrelay-reloader" for t in threading.enumerate()))
    with pytest.raises(ReloaderStoppedError):
        reader.acquire()


def test_a_callback_may_stop_a_reader_that_is_stepped(bench: Bench) -> None:
    bench.publish(voyager="v1")
    stopped: list[Callable[[], None]] = []
    reader = bench.reader(before_swap=[lambda *_: stopped[0]()])
    stopped.append(reader.stop)
    reader.step()
    with pytest.raises(ReloaderStoppedError):
        reader.acquire()


def test_stopping_from_many_threads_waits_for_the_end_in_each(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = Reloader(bench.settings, store=bench.store, clock=SystemClock())
    reader.start()
    assert reader.wait_ready(30)
    still_there: list[bool] = []

    def stop() -> None:
        reader.stop()
        still_there.append(
            any(thread.name == "indexrelay-reloader" for thread in threading.enumerate())
        )

    threads = [threading.Thread(target=stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert still_there == [False] * 4


def test_the_thread_outlives_an_unexpected_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(voyager="v1")
    settings = make_settings(bench.folder, poll_seconds=0.02)
    reader = Reloader(settings, store=bench.store)
    due = reader._follower.due
    failures = iter([RuntimeError("a bug")])

    def failing(**given: int) -> Release | None:
        error = next(failures, None)
        if error is not None:
            raise error
        return due(**given)

    monkeypatch.setattr(reader._follower, "due", failing)
    monkeypatch.setattr("indexrelay.schemas.clock._FIRST_PAUSE_SECONDS", 0.01)
    reader.start()
    try:
        assert reader.wait_ready(30)
    finally:
        reader.stop()
