"""What is served is checked again: corruption is found and reported, and answers nothing more."""

import os
import threading
from pathlib import Path

from indexrelay.reloaders import Reloader
from indexrelay.reloaders.scrubber import Scrubber
from indexrelay.storage.artifacts.blobs import file_identity
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, make_settings, outcomes, state_of, texts
from tests.streams.polling import eventually

DAY = 86400.0


def blob_of(bench: Bench, name: str) -> Path:
    (ref,) = bench.store.version(name, bench.components[name]).files.values()
    return bench.store.root / "blobs" / "sha256" / ref.digest[:2] / ref.digest


def overwrite(path: Path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(text)


def rot(bench: Bench, path: Path, text: str) -> None:
    """Other bytes in a file that looks as it did when it was checked."""
    overwrite(path, text)
    for mark in bench.store.root.glob(f"checked/*/{path.name}"):
        mark.write_text(file_identity(path.stat()))


class Waits:
    """How long a scrub waited; the n-th time asks it to stop."""

    def __init__(self, bench: Bench, *, stop_at: int | None = None) -> None:
        self._bench = bench
        self._stop_at = stop_at
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self._bench.clock.advance(seconds)
        return len(self.seconds) == self._stop_at


def scrubber(bench: Bench, reader: Reloader, wait: Waits | None = None) -> Scrubber:
    return Scrubber(
        bench.store,
        bench.settings.reader,
        contents=lambda: reader._current.contents,
        report=reader._follower.report_corruption,
        wait=wait or Waits(bench),
        clock=bench.clock,
    )


def test_a_blob_that_was_written_to_is_found_at_the_next_look_and_the_version_before_serves(
    bench: Bench,
) -> None:
    bench.publish(voyager="v1", clap="c1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "voyager"), "vX")
    with capture_logs() as lines:
        scrubber(bench, reader).look()
        assert reader.step()
    assert texts(reader) == {"voyager": "v1", "clap": "c1"}
    assert outcomes(reader) == {"voyager": "failed", "clap": "applied"}
    assert "BlobCorruptError" in str(state_of(reader, "voyager").error)
    assert (reader.state.release, reader.ready) == (2, True)
    (corrupt,) = [line for line in lines if line["event"] == "component.corrupt"]
    assert "indexrelay rebuild voyager" in corrupt["advice"]
    bench.publish(voyager="v3")
    assert reader.step()
    assert texts(reader) == {"voyager": "v3", "clap": "c1"}
    assert outcomes(reader)["voyager"] == "applied"


def test_what_rots_without_a_trace_is_found_by_the_slow_scrub_only(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    reader.step()
    rot(bench, blob_of(bench, "voyager"), "vX")
    scrub = scrubber(bench, reader)
    scrub.look()
    scrub.scrub()
    assert not reader.step()
    bench.clock.advance(DAY)
    scrub.scrub()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}


def test_one_reader_of_a_host_scrubs_and_all_of_them_learn_what_it_found(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    readers = [bench.reader(name) for name in ("a", "b")]
    for each in readers:
        each.step()
    rot(bench, blob_of(bench, "voyager"), "vX")
    bench.clock.advance(DAY)
    scrubber(bench, readers[0]).scrub()
    scrubber(bench, readers[1]).look()
    for each in readers:
        assert each.step()
        assert texts(each) == {"voyager": "v1"}


def test_what_one_reader_has_scrubbed_no_other_reads_again(bench: Bench) -> None:
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    bench.clock.ahead = DAY
    marks = list(bench.store.root.glob("checked/*/*"))
    assert len(marks) == 2
    first, second = Waits(bench), Waits(bench)
    scrubber(bench, reader, first).scrub()
    now = bench.clock.now().timestamp()
    for mark in marks:  # which the kernel has dated by its own clock
        os.utime(mark, (now, now))
    scrubber(bench, reader, second).scrub()
    assert (len(first.seconds), len(second.seconds)) == (2, 0)


def test_a_scrub_is_as_slow_as_its_setting_looks_up_meanwhile_and_ends_when_asked(
    bench: Bench,
) -> None:
    size = 5 << 20
    bench.settings = make_settings(bench.folder, scrub_bytes_per_second=1 << 20, poll_seconds=2)
    bench.publish(voyager="v1", clap="c" * size)
    reader = bench.reader()
    reader.step()
    bench.clock.advance(DAY)
    waits = Waits(bench, stop_at=4)
    scrub = scrubber(bench, reader, waits)
    overwrite(blob_of(bench, "voyager"), "vX")  # found by a look in the middle of the other blob
    scrub.scrub()
    assert waits.seconds == [1.0, 0.0, 1.0, 1.0]
    assert reader._follower.asked
    reader.step()
    assert list(texts(reader)) == ["clap"]


def test_what_was_replaced_by_a_whole_file_is_loaded_again_from_that(bench: Bench) -> None:
    """Somebody mends a blob under a reader that has mapped the corrupt one."""
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as before:
        first = before["voyager"]
    blob = blob_of(bench, "voyager")
    overwrite(blob, "vX")
    mended = blob.with_suffix(".new")
    mended.write_text("v1")
    mended.replace(blob)
    scrubber(bench, reader).look()
    assert reader.step()
    with reader.acquire() as after:
        assert after["voyager"] is not first
    assert texts(reader) == {"voyager": "v1"}
    assert outcomes(reader) == {"voyager": "applied"}
    scrubber(bench, reader).look()
    assert not reader._follower.asked


def test_a_removed_file_is_reported_and_answers_from_memory_until_it_is_back(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    reader.step()
    blob = blob_of(bench, "voyager")
    hidden = blob.rename(blob.with_suffix(".hidden"))
    scrub = scrubber(bench, reader)
    with capture_logs() as lines:
        for _ in range(3):
            scrub.look()
            assert not reader.step()
    assert [line["event"] for line in lines] == ["component.corrupt", "component.load_failed"]
    assert texts(reader) == {"voyager": "v2"}
    assert "BlobMissingError" in str(state_of(reader, "voyager").error)
    hidden.rename(blob)
    bench.clock.advance(2.0)
    assert reader.step()
    assert outcomes(reader) == {"voyager": "applied"}
    assert texts(reader) == {"voyager": "v2"}


def test_a_corrupt_manifest_is_reported_and_what_is_loaded_answers_on(bench: Bench) -> None:
    release = bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    version = release.components["voyager"]
    overwrite(bench.store.root / "versions" / "voyager" / f"{version}.json", "{}")
    scrubber(bench, reader).look()
    reader.step()
    assert texts(reader) == {"voyager": "v1"}
    assert "VersionUnreadableError" in str(state_of(reader, "voyager").error)


def test_where_no_version_is_whole_there_is_no_answer(bench: Bench) -> None:
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    overwrite(blob_of(bench, "voyager"), "vX")
    scrubber(bench, reader).look()
    assert reader.step()
    assert texts(reader) == {"clap": "c1"}
    assert state_of(reader, "voyager").version is None
    assert not reader.ready
    overwrite(blob_of(bench, "voyager"), "v1")
    assert reader.step()
    assert texts(reader) == {"voyager": "v1", "clap": "c1"}
    assert reader.ready


def test_a_running_reader_finds_it_by_itself_and_its_scrub_ends_with_it(bench: Bench) -> None:
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    settings = make_settings(bench.folder, poll_seconds=0.02, block_seconds=0.02)
    reader = Reloader(settings, store=bench.store)
    reader.start()
    try:
        assert reader.wait_ready(30)
        overwrite(blob_of(bench, "voyager"), "vX")
        eventually(lambda: texts(reader) == {"voyager": "v1"})
    finally:
        reader.stop()
    assert "indexrelay-scrub" not in [thread.name for thread in threading.enumerate()]


def test_a_lock_that_is_held_for_days_prevents_no_scrub(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    rot(bench, blob_of(bench, "voyager"), "v9")
    scrub = scrubber(bench, reader)
    with bench.store.scrubbing() as held, capture_logs() as lines:
        assert held
        bench.clock.advance(1.5 * DAY)
        scrub.scrub()
        assert [line["event"] for line in lines] == []
        bench.clock.advance(DAY)
        scrub.scrub()
    assert [line["event"] for line in lines] == ["scrub.overdue"]
    reader.step()
    assert texts(reader) == {}
