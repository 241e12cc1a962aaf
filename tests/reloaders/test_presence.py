"""What others can know of a reader: its presence, and what it made of each release."""

import threading
from typing import Any

import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import FIELD, Event, LoadOutcome, ReaderState, ReleaseApplied
from indexrelay.streams import Connection, Keys, members_of, publish
from tests.fixtures.servers import fake_connection
from tests.reloaders.bench import Bench, make_settings
from tests.streams.polling import eventually

KEYS = Keys("test")


def _presence(connection: Connection) -> dict[str, ReaderState]:
    states = members_of(connection, KEYS, ReaderState).known.values()
    return {state.reader: state for state in states}


def _reports(connection: Connection, label: str = "a") -> list[ReleaseApplied]:
    reports = []
    entries: Any = connection.commands.xrange(KEYS.reports(label))
    for _, fields in entries:
        data = Event.from_bytes(fields[FIELD]).data
        assert isinstance(data, ReleaseApplied)
        reports.append(data)
    return reports


def test_presence_holds_the_whole_current_state(bench: Bench) -> None:
    connection = fake_connection()
    reader = bench.reader("reader-1", connection=connection)
    reader.step()
    assert _presence(connection)["reader-1"].release == 0
    release = bench.publish(voyager="v1", clap="rubbish")
    reader.step()
    state = _presence(connection)["reader-1"]
    assert (state.release, state.ready) == (1, True)
    assert state.components["voyager"].outcome is LoadOutcome.APPLIED
    assert state.components["voyager"].version == release.components["voyager"]
    assert state.components["voyager"].covers == {"tracks": 1}
    assert state.components["voyager"].epochs == {"tracks": "e"}
    assert state.components["clap"].outcome is LoadOutcome.FAILED
    assert state.components["clap"].version is None


def test_each_release_is_reported_once_with_each_outcome(bench: Bench) -> None:
    connection = fake_connection()
    reader = bench.reader(connection=connection)
    bench.publish(voyager="v1", clap="rubbish")
    for _ in range(3):
        reader.step()
    (report,) = _reports(connection)
    assert (report.reader, report.release, report.ready) == ("a", 1, True)
    assert {name: state.outcome.value for name, state in report.components.items()} == {
        "clap": "failed",
        "voyager": "applied",
    }


def test_each_label_has_a_stream_of_reports_that_ends_after_its_last(bench: Bench) -> None:
    connection = fake_connection()
    bench.publish(voyager="v1")
    for label in ("a", "b"):
        bench.reader(label, connection=connection).step()
    assert [[each.reader for each in _reports(connection, label)] for label in "ab"] == [
        ["a"],
        ["b"],
    ]
    week = bench.settings.rebuilder.history_seconds
    assert week - 60 < connection.commands.ttl(KEYS.reports("a")) <= week


def test_a_retry_that_changes_nothing_is_not_reported_again(bench: Bench) -> None:
    connection = fake_connection()
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager=f"memory {cause}")
    reader = bench.reader(connection=connection)
    reader.step()
    bench.clock.advance(5.0)
    reader.step()
    assert len(_reports(connection)) == 1
    cause.unlink()
    bench.clock.advance(60.0)
    reader.step()
    assert [report.ready for report in _reports(connection)] == [False, True]


def test_a_reader_that_stops_is_gone_at_once(bench: Bench) -> None:
    connection = fake_connection()
    reader = bench.reader(connection=connection)
    reader.step()
    assert set(_presence(connection)) == {"a"}
    reader.stop()
    assert _presence(connection) == {}


def test_presence_is_kept_alive_while_a_load_takes_longer_than_its_ttl(
    bench: Bench, redis_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings = make_settings(bench.folder, presence_ttl_seconds=0.3)
    bench.publish(voyager="v1")
    reader = bench.reader(connection=redis_connection)
    loading, go_on = threading.Event(), threading.Event()
    opener = reader._follower._loader._opener
    load = opener.open

    def slow(component: str, version: str, **kept: Any) -> object:
        loading.set()
        assert go_on.wait(60)
        return load(component, version, **kept)

    monkeypatch.setattr(opener, "open", slow)
    reader.start()
    try:
        assert loading.wait(20)
        # Renewals at a third of the TTL: five of them take longer than the TTL.
        seen: set[object] = set()

        def renewed() -> bool:
            present = _presence(redis_connection)
            if seen:
                assert present, "it counted as gone while it was loading"
            seen.update(state.updated_at for state in present.values())
            return len(seen) >= 5

        eventually(renewed)
        assert not reader.ready
        go_on.set()
        assert reader.wait_ready(20)
    finally:
        go_on.set()
        reader.stop()


def test_presence_shows_what_is_so_when_it_is_written_and_not_what_was_so_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads publish: a state of before would take the place of a newer one."""
    reader = bench.reader(connection=fake_connection())
    taken_at_its_turn: list[bool] = []

    def state(self: Reloader, whole: Any = Reloader.state) -> ReaderState:
        taken_at_its_turn.append(self._reporter._lock.locked())
        return whole.fget(self)  # type: ignore[no-any-return]

    monkeypatch.setattr(Reloader, "state", property(state))
    reader._publish_presence()
    assert taken_at_its_turn == [True]


@pytest.mark.parametrize("reader_id", ["", "-a", "a b", "a\n", "x" * 129, "../a"])
def test_what_cannot_name_a_reader_is_refused(bench: Bench, reader_id: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        bench.reader(reader_id)


def test_processes_under_one_id_do_not_hide_each_other(bench: Bench) -> None:
    connection = fake_connection()
    first, second = (bench.reader("web", connection=connection) for _ in range(2))
    bench.publish(voyager="v1")
    first.step()
    second.step()
    found = members_of(connection, KEYS, ReaderState).states
    assert set(found) == {first.state.member, second.state.member}
    assert {state.reader for state in found.values() if state} == {"web"}
    first.stop()
    assert set(members_of(connection, KEYS, ReaderState).states) == {second.state.member}


@pytest.mark.server
def test_presence_shows_how_far_the_reload_messages_were_read(
    bench: Bench, redis_connection: Connection
) -> None:
    reader = bench.reader("reader-1", connection=redis_connection)
    reader.start()
    eventually(lambda: _presence(redis_connection).get("reader-1") is not None)
    eventually(lambda: _presence(redis_connection)["reader-1"].cursor == "0-0")
    entry_id = publish(redis_connection, KEYS.reloads, b"look")
    eventually(lambda: _presence(redis_connection)["reader-1"].cursor == entry_id.decode())
