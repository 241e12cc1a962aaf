"""A reader follows the newest intact release of the store, whatever Redis says."""

from collections.abc import Mapping, Sequence

import pytest

from indexrelay.reloaders import Reloader
from indexrelay.streams import Connection, Keys, publish
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import fake_connection
from tests.reloaders.bench import Bench, outcomes, texts


@pytest.fixture
def connection() -> Connection:
    return fake_connection()


def _events(lines: Sequence[Mapping[str, object]]) -> list[object]:
    """What was logged; what is let go of, and when, is not these tests' business."""
    return [line["event"] for line in lines if line["event"] != "component.closed"]


def test_a_reader_that_missed_releases_goes_to_the_newest(bench: Bench) -> None:
    reader = bench.reader()
    assert not reader.step()
    for number in range(1, 5):
        bench.publish(voyager=f"v{number}")
    assert reader.step()
    assert (texts(reader), reader.state.release) == ({"voyager": "v4"}, 4)
    assert not reader.step()


def test_a_release_that_changes_no_version_is_worked_through_without_a_load(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    bench.store.hold("voyager", reason="a demo today")
    with capture_logs() as lines:
        assert reader.step()
    assert _events(lines) == ["release.applied"]
    assert reader.state.release == 2
    assert outcomes(reader) == {"voyager": "unchanged"}


def _corrupt_newest(bench: Bench) -> None:
    """Both of its files."""
    for folder in ("releases", "copies"):
        newest = max((bench.store.root / folder).iterdir())
        newest.chmod(0o644)
        newest.write_bytes(newest.read_bytes()[:-20])


def test_a_corrupt_release_is_never_followed(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="v2")
    _corrupt_newest(bench)
    assert not reader.step()
    assert texts(reader) == {"voyager": "v1"}
    bench.publish(voyager="v3")
    assert reader.step()
    assert texts(reader) == {"voyager": "v3"}


def test_a_reader_never_goes_back_to_a_lower_number(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    reader.step()
    _corrupt_newest(bench)
    with capture_logs() as lines:
        for _ in range(3):
            assert not reader.step()
    assert texts(reader) == {"voyager": "v2"}
    assert _events(lines) == ["release.unreadable", "release.went_back"]


def test_a_failed_load_is_tried_again_even_if_its_release_was_corrupt_since(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager="v1")
    reader = bench.reader()
    bench.publish(voyager=f"disk {cause}", clap="c2")
    reader.step()
    _corrupt_newest(bench)
    cause.unlink()
    bench.clock.advance(2.0)
    assert reader.step()
    assert outcomes(reader) == {"voyager": "applied", "clap": "applied"}


def test_another_release_of_the_same_number_is_followed(bench: Bench) -> None:
    """A folder that was restored from a copy may number again."""
    first = bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    for folder in ("releases", "copies"):
        (bench.store.root / folder / f"{first.number:08d}.json").unlink()
    assert bench.publish(voyager="other").number == first.number
    assert reader.step()
    assert texts(reader) == {"voyager": "other"}


def test_a_store_that_cannot_be_read_keeps_what_is_served_and_is_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    releases = bench.store.root / "releases"
    releases.rename(releases.with_name("away"))
    with capture_logs() as lines:
        for _ in range(3):
            assert not reader.step()
    assert _events(lines) == ["store.unreadable"]
    assert texts(reader) == {"voyager": "v1"}
    releases.with_name("away").rename(releases)
    bench.publish(voyager="v2")
    assert reader.step()
    assert texts(reader) == {"voyager": "v2"}


def test_a_retry_waits_for_a_store_that_cannot_be_read(bench: Bench) -> None:
    """Else the thread, which sleeps until the retry is due, would look again without a pause."""
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager=f"disk {cause}")
    reader = bench.reader()
    reader.step()
    assert reader._follower.retry_at is not None
    releases = bench.store.root / "releases"
    releases.rename(releases.with_name("away"))
    bench.clock.advance(10.0)
    reader.step()
    assert reader._follower.retry_at is None
    cause.unlink()
    releases.with_name("away").rename(releases)
    assert reader.step()
    assert reader.ready


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff",
        b"{" * 10_000,
        b'{"specversion":"1.0","id":"1","source":"/","type":"release.published.v1",'
        b'"time":"2026-01-01T00:00:00Z","data":{"release":9,"digest":"' + b"f" * 64 + b'",'
        b'"components":{"voyager":"' + b"f" * 64 + b'","../../etc":"x"}}}',
    ],
    ids=["empty", "bytes", "deep", "forged"],
)
def test_a_forged_message_loads_nothing_but_what_is_released(
    bench: Bench, connection: Connection, raw: bytes
) -> None:
    keys = Keys("test")
    bench.publish(voyager="v1")
    reader = bench.reader(connection=connection)
    reader.step()
    publish(connection, keys.reloads, raw)
    connection.commands.set(keys.release, b"9")
    assert not reader.step()
    assert texts(reader) == {"voyager": "v1"}
    assert reader.state.release == 1


def test_a_number_that_the_store_does_not_show_yet_is_logged_once(
    bench: Bench, connection: Connection
) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader(connection=connection)
    reader.step()
    connection.commands.set(Keys("test").release, 2)
    with capture_logs() as lines:
        for _ in range(3):
            reader.step()
    assert _events(lines) == ["release.not_visible"]
    bench.publish(voyager="v2")
    assert reader.step()


def test_a_reader_without_its_server_follows_the_store(bench: Bench) -> None:
    bench.publish(voyager="v1")
    with Connection.open(f"unix://{bench.folder}/nobody.sock") as away:
        reader = bench.reader(connection=away)
        with capture_logs() as lines:
            assert reader.step()
            assert not reader.step()
    assert texts(reader) == {"voyager": "v1"}
    # each is logged once, however often it is tried.
    assert _events(lines).count("release.number_unknown") == 1
    assert _events(lines).count("presence.not_published") == 1


def test_a_reader_needs_no_server_at_all(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = Reloader(bench.settings)
    try:
        assert reader.step()
        assert texts(reader) == {"voyager": "v1"}
    finally:
        reader.stop()
