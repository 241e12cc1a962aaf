"""What is observed of queries: how they end, and which of them were slow."""

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.loggers import FIELDS
from indexrelay.schemas.settings import HttpSettings, ReaderSettings
from indexrelay.service.queries import Observation, slow_query_log
from tests.reloaders.bench import Bench
from tests.service.conftest import served

SECRET = "what-was-asked-for"


@pytest.fixture
def logging_all(bench: Bench, reader: Reloader) -> Iterator[httpx.Client]:
    """Every query takes longer than no time."""
    with served(bench, reader, HttpSettings(), slow_query_ms=1e-9) as client:
        yield client


def slow_queries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        getattr(record, FIELDS)
        for record in caplog.records
        if record.getMessage().startswith("query.slow")
    ]


def test_a_slow_query_is_logged_with_its_plan_and_without_what_was_asked(
    logging_all: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    songs = "/v1/components/songs"
    asked = {"text": SECRET, "vector": [0.5, 0.25], "k": 7, "explain": True, "without": [SECRET]}
    answer = logging_all.post(f"{songs}/search", json=asked).json()
    logging_all.post(f"{songs}/search/batch", json={"queries": [{"id": "calm"}] * 2})
    logging_all.post(f"{songs}/entries", json={"ids": [SECRET]})
    search, batch, entries = slow_queries(caplog)
    assert search == {
        "event": "query.slow",
        "component": "songs",
        "version": answer["version"],
        "operation": "search",
        "plan": "exact",
        "k": 7,
        "seconds": search["seconds"],
    }
    assert search["seconds"] > 0
    assert (batch["operation"], batch["plan"], batch["k"]) == ("batch", None, 10)
    assert (entries["operation"], entries["k"]) == ("entries", None)
    assert SECRET not in caplog.text
    assert "0.25" not in caplog.text


def test_a_query_that_is_refused_is_not_slow(
    logging_all: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    logging_all.post("/v1/components/songs/search", json={"id": SECRET})
    logging_all.post("/v1/components/songs/search", json={})
    assert slow_queries(caplog) == []


def test_only_what_takes_longer_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    observe = slow_query_log(20.0)
    for milliseconds in (19.9, 20.0, 20.1):
        observe(
            Observation(
                operation="search",
                outcome="answered",
                seconds=milliseconds / 1000,
                component="songs",
            )
        )
    assert [each["seconds"] for each in slow_queries(caplog)] == [0.0201]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_no_query_is_slow_unless_the_settings_say_what_is() -> None:
    assert ReaderSettings().slow_query_ms is None
    assert ReaderSettings.model_validate({"slow_query_ms": False}).slow_query_ms is None
    assert ReaderSettings.model_validate({"slow_query_ms": 20}).slow_query_ms == 20
