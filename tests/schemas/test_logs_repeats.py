"""Equal warnings are shown with growing waits, and say how many were left out."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.logs import BURST, RepeatLimit, catch_strays, configure_logs
from indexrelay.schemas.settings import LogSettings
from indexrelay.testing import FakeClock


class Shown(logging.Handler):
    """What gets through, as one line each."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(RepeatLimit(clock))

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "indexrelay", None)
        self.lines.append(record.getMessage() if fields is None else json.dumps(fields))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shown(clock: FakeClock) -> Iterator[Shown]:
    handler = Shown(clock)
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def test_a_disk_that_stays_full_takes_a_few_lines_an_hour(shown: Shown, clock: FakeClock) -> None:
    """Three complaints a second, each with figures of its own."""
    log = get_logger("indexrelay.test")
    for tick in range(3600):
        for place in ("blob", "manifest", "presence"):
            error = f"cannot write {'a' * 60}{tick % 10}"
            log.warning("file.not_written", place=place, error=error, wait=tick)
        clock.advance(1)
    assert 3 * 6 <= len(shown.lines) <= 3 * 20
    assert sum(json.loads(line).get("repeated", 0) for line in shown.lines) > 3 * 3000


def test_other_texts_other_components_and_lines_below_warning_are_always_shown(
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


def test_a_line_that_comes_back_after_a_while_is_shown(shown: Shown, clock: FakeClock) -> None:
    log = get_logger("indexrelay.test")
    for seconds in (0, 1, 1, 10_000, 1, 10):
        clock.advance(seconds)
        log.warning("source.unreadable", collection="tracks")
    repeated = [json.loads(line).get("repeated") for line in shown.lines]
    assert repeated == [None, 2, 1]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_lines_of_one_kind_are_few_whatever_their_text_and_all_are_counted(
    shown: Shown, clock: FakeClock, level: int
) -> None:
    """Words that somebody else chooses, differently each time, a hundred times a second."""
    log = get_logger("indexrelay.test")
    logging.getLogger("indexrelay.test").setLevel(logging.INFO)
    words = (f"name {'x' * (number % 77)}{chr(0x4E00 + number)}" for number in range(6_000))
    for number, word in enumerate(words):
        log.log(level, "message.refused", error=word)
        if number % 100 == 99:
            clock.advance(1)
    clock.advance(3)
    log.log(level, "message.refused", error="the last")
    logging.getLogger("indexrelay.test").setLevel(logging.NOTSET)
    assert len(shown.lines) <= BURST + 60 / 2 + 2
    left_out = sum(json.loads(line).get("left_out", 0) for line in shown.lines)
    assert left_out + len(shown.lines) == 6_001


def test_kinds_do_not_take_each_others_places_and_those_of_other_libraries_are_lines_of_code(
    shown: Shown,
) -> None:
    theirs = logging.getLogger("another.library")
    for number in range(3 * BURST):
        theirs.error(f"refused {chr(0x4E00 + number)}")
    assert len(shown.lines) == BURST
    theirs.error("something else")
    get_logger("indexrelay.test").error("component.failed", component="map")
    assert len(shown.lines) == BURST + 2


def test_lines_that_were_left_out_are_counted_when_no_more_of_the_kind_come(
    shown: Shown, clock: FakeClock
) -> None:
    log = get_logger("indexrelay.test")
    for number in range(2 * BURST):
        log.warning("message.refused", error=chr(0x4E00 + number))
    for _ in range(50):
        log.warning("store.unreadable")
    shown.lines.clear()
    clock.advance(61)
    log.error("component.failed", component="map")
    told = [json.loads(line) for line in shown.lines if "lines_left_out" in line]
    assert [(each["of"], each["lines"]) for each in told] == [
        ("indexrelay.test message.refused", BURST),
        ("indexrelay.test store.unreadable", 49),
    ]
    shown.lines.clear()
    clock.advance(100)
    log.warning("store.unreadable")
    assert "repeated" not in json.loads(shown.lines[0]), "it was told"


def test_debug_lines_are_never_left_out(shown: Shown) -> None:
    logging.getLogger("indexrelay.test").setLevel(logging.DEBUG)
    for _ in range(2 * BURST):
        get_logger("indexrelay.test").debug("query.answered")
    logging.getLogger("indexrelay.test").setLevel(logging.NOTSET)
    assert len(shown.lines) == 2 * BURST


def test_different_errors_under_one_sentence_are_different_lines(shown: Shown) -> None:
    theirs = logging.getLogger("another.library")
    for error in (KeyError("a"), OSError("b"), KeyError("c")):
        try:
            raise error
        except (KeyError, OSError):
            theirs.exception("it did not work")
    assert len(shown.lines) == 2


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


def test_a_line_is_of_a_bounded_length_whatever_is_logged(log: io.StringIO) -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("the end of it" + "!" * 50_000)

    ours = get_logger("indexrelay.test")
    ours.warning("name.refused", name="x" * 100_000, names=[f"n{n}" for n in range(5_000)])
    logging.getLogger("another.library").warning("y" * 100_000)
    try:
        deep(50)
    except ValueError:
        ours.exception("build.failed", error="short")
    lines = log.getvalue().splitlines()
    assert [len(line) < 25_000 for line in lines] == [True, True, True]
    told = json.loads(lines[0])
    assert told["name"].endswith("x… (90000 more characters)")
    assert told["names"][-2:] == ["n199", "… 4800 more"]
    assert json.loads(lines[2])["exception"].endswith("!!!")
