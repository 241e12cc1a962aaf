"""Equal warnings are shown with growing waits, and say how many were left out."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.logs import catch_strays, configure_logs
from indexrelay.schemas.repeats import RepeatLimit
from indexrelay.schemas.settings import LogSettings
from tests.storage.catalog.hand_clock import HandClock


class Shown(logging.Handler):
    """What gets through, as one line each."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(RepeatLimit(clock))

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "indexrelay", None)
        self.lines.append(record.getMessage() if fields is None else json.dumps(fields))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def shown(clock: HandClock) -> Iterator[Shown]:
    handler = Shown(clock)
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def test_a_disk_that_stays_full_takes_a_few_lines_an_hour(shown: Shown, clock: HandClock) -> None:
    """Three complaints a second, each with figures of its own."""
    log = get_logger("indexrelay.test")
    for tick in range(3600):
        for place in ("blob", "manifest", "presence"):
            error = f"cannot write {'a' * 60}{tick % 10}"
            log.warning("file.not_written", place=place, error=error, wait=tick)
        clock.move(timedelta(seconds=1))
    assert 3 * 6 <= len(shown.lines) <= 3 * 20
    assert sum(json.loads(line).get("repeated", 0) for line in shown.lines) > 3 * 3000


def test_other_words_other_components_and_what_is_no_warning_are_always_shown(
    shown: Shown,
) -> None:
    log = get_logger("indexrelay.test")
    logging.getLogger("indexrelay.test").setLevel(logging.INFO)
    for _ in range(3):
        log.info("component.building", component="map")
        log.error("component.failed", component="map", error="KeyError: 'genre'")
        log.error("component.failed", component="clap", error="KeyError: 'genre'")
        log.error("component.failed", component="map", error="KeyError: 'year'")
        logging.getLogger("another.library").warning("no answer within %s s", 3)
    logging.getLogger("indexrelay.test").setLevel(logging.NOTSET)
    assert len(shown.lines) == 3 + 1 + 1 + 1 + 1


def test_what_comes_back_after_a_while_is_news(shown: Shown, clock: HandClock) -> None:
    log = get_logger("indexrelay.test")
    for seconds in (0, 1, 1, 10_000, 1, 10):
        clock.move(timedelta(seconds=seconds))
        log.warning("source.unreadable", collection="tracks")
    repeated = [json.loads(line).get("repeated") for line in shown.lines]
    assert repeated == [None, 2, 1]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of a process of our own, as JSON."""
    import sys

    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    hooks = threading.excepthook, sys.excepthook, sys.unraisablehook
    configure_logs(LogSettings(format="json"), stream=stream)
    catch_strays()
    yield stream
    logging.captureWarnings(capture=False)
    threading.excepthook, sys.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()
    root.handlers[:], root.level = before


def test_what_python_would_write_by_itself_is_an_event(log: io.StringIO) -> None:
    """A warning, a thread that dies, an error that nobody can catch, the end of the process."""
    import sys

    class Broken:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    def die() -> None:
        raise KeyError("in a thread")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("an old way", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    thread = threading.Thread(target=die, name="worker")
    thread.start()
    thread.join()
    Broken()
    sys.excepthook(OSError, OSError("at the end"), None)
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    told = [f"{event['event']} {event.get('exception', '')}" for event in events]
    assert len(told) == 4
    for words, event in zip(
        ("an old way", "KeyError: 'in a thread'", "in a finalizer", "process.ended"),
        told,
        strict=True,
    ):
        assert words in event
