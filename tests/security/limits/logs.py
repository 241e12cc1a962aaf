"""What the log may take."""

import io
import json
import logging

import pytest

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.logs import show_logs
from tests.security.limits.table import Row, exercises


def logged(lines: int, *, words: str) -> list[dict[str, object]]:
    """What is shown of so many different lines of one kind."""
    ours, stream = logging.getLogger("indexrelay"), io.StringIO()
    before = ours.handlers[:], ours.level, ours.propagate
    try:
        show_logs(layout="json", stream=stream)
        for number in range(lines):
            get_logger("indexrelay.test").warning("said", error=f"{chr(0x4E00 + number)}{words}")
    finally:
        ours.handlers[:], ours.level, ours.propagate = before
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@exercises("log lines of one kind at once")
def _lines(row: Row, _request: pytest.FixtureRequest) -> None:
    assert len(logged(row.number, words="")) == row.number
    assert len(logged(row.number + 10, words="")) == row.number


@exercises("characters of one field of a log line")
def _characters(row: Row, _request: pytest.FixtureRequest) -> None:
    (fits,) = logged(1, words="x" * (row.number - 1))
    (cut,) = logged(1, words="x" * row.number)
    assert str(fits["error"]).endswith("x")
    assert str(cut["error"]).endswith("… (1 more characters)")
