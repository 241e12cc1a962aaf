"""A build owns no stdout and no stderr: what is written there is in the log, with its component."""

import os
import threading
from pathlib import Path

import pytest

from indexrelay.rebuilder import BuildDiedError
from indexrelay.rebuilder.builds.process import Output
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.messages import BuildOutcome
from tests.fixtures.logs import capture_logs
from tests.rebuilder.builds.test_runner import build
from tests.rebuilder.conftest import MakeBench, behaving

SAID = ["print", "sys.stderr", "os.write", "a C library", "a child's child", "a warning"]


def test_whatever_a_build_writes_goes_to_the_log_and_nowhere_else(
    make_bench: MakeBench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    runner = ForkingRunner(preload=["tests.rebuilder.kinds"], threads=1, niceness=0)
    with capture_logs() as events:
        try:
            assert build(bench, runner, "talks").outcome is BuildOutcome.REBUILT
            with pytest.raises(BuildDiedError):
                build(bench, runner, "talks_and_exits")
        finally:
            runner.stop()
    said = [event for event in events if event["event"] == "build.output"]
    assert {event["component"] for event in said} == {"index"}
    text = "\n".join(event["text"] for event in said)
    assert [words for words in [*SAID, "last words"] if words not in text] == []
    assert capfd.readouterr() == ("", "")


def test_a_module_that_prints_more_than_a_pipe_holds_stops_no_build(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "garrulous_module.py").write_text("print('x' * 200_000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    runner = ForkingRunner(preload=["garrulous_module"], threads=1, niceness=0)
    with capture_logs() as events:
        try:
            build(bench, runner)
        finally:
            runner.stop()
    said = [event for event in events if event["event"] == "build.output_truncated"]
    assert [(event["process"], event["bytes"]) for event in said] == [("build server", 200_001)]


def test_what_a_module_prints_while_it_is_imported_is_logged_once(
    make_bench: MakeBench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "loud_module.py").write_text("print('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    runner = ForkingRunner(preload=["loud_module"], threads=1, niceness=0)
    with capture_logs() as events:
        try:
            build(bench, runner)
            build(bench, runner, name="other")
        finally:
            runner.stop()
    said = [event for event in events if event["event"] == "build.output"]
    assert [(event["process"], event["text"]) for event in said] == [("build server", "imported")]
    assert capfd.readouterr() == ("", "")


def test_a_flood_is_cut_short_and_a_pipe_that_somebody_holds_is_not_waited_for() -> None:
    with capture_logs() as events:
        with Output(component="map") as output:
            held = os.dup(output.descriptor)
            with os.fdopen(os.dup(output.descriptor), "wb") as pipe:
                for _ in range(100):
                    pipe.write(b"x" * 9_999 + b"\n")
        os.close(held)
    shown = sum(len(event["text"]) for event in events if event["event"] == "build.output")
    assert shown <= 100_000
    assert [event["bytes"] for event in events if event["event"] == "build.output_truncated"] == [
        1_000_000
    ]


def test_half_a_character_and_no_newline_are_no_trouble() -> None:
    with capture_logs() as events, Output(component="map") as output:
        os.write(output.descriptor, b"Z\xc3\xbcrich \xff")
    assert [event["text"] for event in events] == ["Zürich \ufffd"]


def test_outputs_leave_no_descriptor_and_no_thread() -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    with capture_logs():
        for _ in range(5):
            with Output(component="map"):
                pass
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
