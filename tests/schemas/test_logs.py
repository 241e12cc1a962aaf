"""Log lines: marks that an operator can grep on a console, one JSON object per line elsewhere."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.logs import configure_logs, show_logs
from indexrelay.schemas.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def _lines(
    format: Literal["auto", "console", "json"] = "console",  # noqa: A002 - as the setting is called
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    encoding: str = "utf-8",
) -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    configure_logs(LogSettings(format=format, level=level), stream=stream)
    log = structlog.get_logger("indexrelay.test")
    log.debug("blob.checked")
    log.info("component.reloaded", component="voyager", version="ab" * 32, seconds=0.0123456789)
    log.warning("release.applied", succeeded=["clap", "map"], failed=["voyager"])
    log.error("component.load_failed", error="ValueError: two\nlines")
    logging.getLogger("uvicorn").warning("hello %s", "world")
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_a_console_line_begins_with_a_mark() -> None:
    done, partly, failed, other = _lines()
    assert done.startswith("✓ ")
    assert done.endswith(
        " component.reloaded  component=voyager version=abababababab seconds=0.0123457"
    )
    assert partly.startswith("⚠ ")
    assert partly.endswith(" release.applied  succeeded=[clap,map] failed=[voyager]")
    assert failed.startswith("✗ ")
    assert failed.endswith(r'error="ValueError: two\nlines"')
    assert other.startswith("⚠ ")
    assert other.endswith(" hello world")


def test_the_level_is_the_lowest_that_is_shown() -> None:
    assert _lines(level="debug")[0].startswith("· ")
    assert len(_lines(level="debug")) == 5
    assert len(_lines(level="error")) == 1


def test_elsewhere_each_line_is_a_json_object() -> None:
    done, partly, failed, other = (json.loads(line) for line in _lines("json"))
    assert list(done)[:3] == ["timestamp", "level", "event"]
    assert done["event"] == "component.reloaded"
    assert done["version"] == "ab" * 32
    assert done["logger"] == "indexrelay.test"
    assert partly["failed"] == ["voyager"]
    assert failed["error"] == "ValueError: two\nlines"
    assert (other["event"], other["logger"]) == ("hello world", "uvicorn")


def test_what_is_no_terminal_gets_json() -> None:
    assert json.loads(_lines("auto")[0])["event"] == "component.reloaded"


def test_a_stream_that_knows_no_marks_gets_plain_ones() -> None:
    assert [line.split()[0] for line in _lines(encoding="ascii")] == ["ok", "!!", "XX", "!!"]


def test_a_traceback_stands_below_its_line() -> None:
    stream = io.StringIO()
    configure_logs(LogSettings(format="console"), stream=stream)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger("x").exception("swap.callback_failed", callback="f")
    first, *below = stream.getvalue().splitlines()
    assert first.endswith(" swap.callback_failed  callback=f")
    assert below[-1] == "ZeroDivisionError: division by zero"


def test_a_field_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    configure_logs(LogSettings(format="console"), stream=stream)
    structlog.get_logger("x").info("reader\n✗ forged", name="a\n✗ b", what={"c\n": "\x1b[2J"})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_the_last_call_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger("x")
    configure_logs(LogSettings(format="json"), stream=first)
    log.info("one.said")
    configure_logs(LogSettings(format="json"), stream=second)
    log.info("two.said")
    assert "one.said" in first.getvalue()
    assert "two.said" in second.getvalue()
    assert "two.said" not in first.getvalue()


def test_one_call_shows_the_summaries_and_leaves_the_applications_logging_alone() -> None:
    ours = logging.getLogger("indexrelay")
    kept = (list(ours.handlers), ours.level, ours.propagate)
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    stream = io.StringIO()
    try:
        for _ in range(2):  # the last call counts, and nothing is said twice
            show_logs(layout="json", stream=stream)
        log = get_logger("indexrelay.reloaders.follower")
        log.info("release.applied", release=7, succeeded=["map"])
        log.debug("detail")
        logging.getLogger("app").info("not ours")
        [line] = [json.loads(each) for each in stream.getvalue().splitlines()]
        assert (line["event"], line["release"], line["succeeded"]) == (
            "release.applied",
            7,
            ["map"],
        )
        assert (list(root.handlers), root.level) == before
    finally:
        ours.handlers, ours.level, ours.propagate = kept
        ours.setLevel(kept[1])
