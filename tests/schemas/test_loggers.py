"""Our modules' loggers, as a program sees them that set up nothing, or logs of its own."""

import logging
import subprocess
import sys
from contextlib import suppress

import pytest
import structlog

from indexrelay.schemas.loggers import FIELDS, LogOnce, get_logger


def test_a_script_that_set_up_nothing_sees_warnings_on_stderr_and_nothing_else() -> None:
    script = (
        "from indexrelay.schemas.loggers import get_logger\n"
        "log = get_logger('indexrelay.x')\n"
        "log.debug('a.detail'); log.info('a.done', n=1); log.warning('a.doubt', n=2)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    assert ran.stderr == "a.doubt n=2\n"


def test_an_application_sees_events_with_its_own_handlers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="indexrelay.test"):
        get_logger("indexrelay.test").info("component.reloaded", component="voyager", seconds=0.5)
    [record] = caplog.records
    assert record.name == "indexrelay.test"
    assert record.getMessage() == "component.reloaded component='voyager' seconds=0.5"
    assert getattr(record, FIELDS)["component"] == "voyager"


def test_what_a_program_bound_to_structlogs_context_is_among_the_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with structlog.contextvars.bound_contextvars(request="r-1", n=1):
        get_logger("indexrelay.test").warning("query.slow", n=2)
    assert caplog.messages == ["query.slow n=2 request='r-1'"]


@pytest.mark.parametrize("level", ["error", "exception"])
def test_a_traceback_is_logged_once(level: str, caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("indexrelay.test")
    with suppress(ValueError):
        try:
            int("x")
        finally:
            getattr(log, level)("it.broke", exc_info=True)
    assert caplog.text.count("ValueError: invalid literal") == 1


def test_what_is_wrong_is_new_when_it_comes_changes_or_comes_back() -> None:
    looks = LogOnce()
    assert looks.new({"a": "broken"}) == {"a": "broken"}
    assert looks.new({"a": "broken", "b": "gone"}) == {"b": "gone"}
    assert looks.new({"a": "torn"}) == {"a": "torn"}
    assert looks.new({"a": "torn", "b": "gone"}) == {"b": "gone"}
