"""What the admin page keeps of the past, and how much of anything one answer holds."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexrelay.admin.components import bounded
from indexrelay.admin.history import SAMPLE_SECONDS, History
from indexrelay.health.judge import judge
from indexrelay.operations.observer import Observation
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.testing import FakeClock
from tests.admin.desk import desk_of
from tests.health.healthy_facts import healthy
from tests.security.limits.table import Row, exercises

START = datetime(2026, 11, 28, tzinfo=UTC)


def _thinned(folder: Path, table: str, columns: str, rows: list[tuple[Any, ...]]) -> int:
    """How many of these rows are left of a table of the history after the next look."""
    history, path = _history(folder, START)
    history.view(START, limit=1)  # makes the file
    with closing(sqlite3.connect(path)) as connection, connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - ours
    facts = healthy(now=START, since=START)
    history.add(Observation(facts=facts, verdict=judge(facts)))
    history.close()
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def _history(folder: Path, now: datetime) -> tuple[History, Path]:
    path = folder / "admin-history.db"
    clock = FakeClock(now)
    return History(path, store=ArtifactStore(folder / "artifacts"), clock=clock), path


@exercises("rebuilds that the admin page's history keeps")
def _rebuilds(row: Row, request: pytest.FixtureRequest) -> None:
    columns = "id, at, seconds, status, cause, rebuilt, failed, message, request_ids"
    rows = [(str(n), n, 1.0, "SUCCESS", "batch", "", "", "", "[]") for n in range(row.number + 1)]
    folder = request.getfixturevalue("tmp_path")
    assert _thinned(folder, "rebuilds", columns, rows) == row.number


@exercises("releases that it keeps")
def _releases(row: Row, request: pytest.FixtureRequest) -> None:
    rows = [(n, n, "{}") for n in range(100, row.number + 101)]
    folder = request.getfixturevalue("tmp_path")
    assert _thinned(folder, "releases", "number, at, facts", rows) == row.number


@exercises("samples in one answer of it")
def _samples(row: Row, request: pytest.FixtureRequest) -> None:
    count = row.number + 1
    first, step = int(START.timestamp() * 1000), SAMPLE_SECONDS * 1000
    now = START + timedelta(seconds=count * SAMPLE_SECONDS)
    history, path = _history(request.getfixturevalue("tmp_path"), now)
    history.view(START, limit=1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO samples (at, seconds, freshness) VALUES (?, ?, ?)",
            [(first + n * step, SAMPLE_SECONDS, float(n)) for n in range(count)],
        )
    samples = history.view(START, limit=1)["samples"]
    assert len(samples) <= row.number
    assert {each["seconds"] for each in samples} == {2 * SAMPLE_SECONDS}
    assert max(each["freshness_seconds"] for each in samples) == count - 1
    history.close()


def _listed(row: Row, request: pytest.FixtureRequest, *paths: str) -> None:
    pipeline = request.getfixturevalue("indexrelay_pipeline")(
        collections={"tracks": {"dimension": 3}}, components={}
    )
    with desk_of(pipeline) as desk:
        for path in paths:
            desk.get(path, limit=row.number)
            desk.get(path, status=422, limit=row.number + 1)


@exercises("releases, and dead letters, in one answer of the admin page")
def _list_of_releases(row: Row, request: pytest.FixtureRequest) -> None:
    _listed(row, request, "releases", "dead-letters")


@exercises("lines of the audit log in one answer")
def _list_of_lines(row: Row, request: pytest.FixtureRequest) -> None:
    _listed(row, request, "audit")


@exercises("rebuilds in one answer of the history")
def _list_of_rebuilds(row: Row, request: pytest.FixtureRequest) -> None:
    _listed(row, request, "history")


@exercises("characters of a text in a version's details, as the admin page shows it")
def _characters(row: Row, _request: pytest.FixtureRequest) -> None:
    assert bounded("x" * row.number) == "x" * row.number
    assert len(bounded("x" * (row.number + 1))) <= row.number
