"""What a function that makes vectors of texts may take of a process."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from indexrelay.components.embedder import Embedder
from indexrelay.schemas.settings import EmbedderSettings, HttpSettings
from indexrelay.service.queries import Queries
from indexrelay.service.tokens import Caller, digest_of
from tests.components import test_embedder
from tests.components.test_embedder import MODULE, Recorder, make_embedder
from tests.security.limits.table import Row, exercises

DEFAULTS = EmbedderSettings(function="module:function")


@exercises("seconds of one call of an embedder (`timeout_seconds` of its table)")
def _call(row: Row, _request: pytest.FixtureRequest) -> None:
    assert row.number == DEFAULTS.timeout_seconds
    with _embedders() as embedder_of:
        test_embedder.test_a_call_that_hangs_fails_its_texts_and_the_next_call_has_another_thread(
            embedder_of
        )


@exercises("seconds that a search waits for the vector of its text (`query_seconds`)")
def _query(row: Row, _request: pytest.FixtureRequest) -> None:
    assert row.number == DEFAULTS.query_seconds
    with _embedders() as embedder_of:
        test_embedder.test_a_search_waits_no_longer_than_it_may_and_a_late_vector_serves_the_next_one(
            embedder_of
        )


@exercises("searches that wait for the vectors of their texts")
def _waiting(row: Row, request: pytest.FixtureRequest) -> None:
    assert _searches_at_a_time(HttpSettings(), request, asked=row.number + 3) == (row.number, 3)


@exercises(
    "searches of one token, where there are several, that wait for the vectors of their texts"
)
def _waiting_of_one(row: Row, request: pytest.FixtureRequest) -> None:
    tokens = {name: {"sha256": digest_of(name)} for name in ("shop", "bank")}
    settings = HttpSettings.model_validate({"tokens": tokens})
    assert _searches_at_a_time(settings, request, asked=row.number + 3) == (row.number, 3)


def _searches_at_a_time(
    settings: HttpSettings, request: pytest.FixtureRequest, *, asked: int
) -> tuple[int, int]:
    """How many wait for their vectors, and how many are refused."""

    async def body() -> tuple[int, int]:
        come, entered = asyncio.Event(), asyncio.Semaphore(0)
        reloader: Any = SimpleNamespace(embedders=None)
        queries = Queries(reloader, settings, [])

        async def arrive() -> None:
            entered.release()
            await come.wait()

        def steps(*given: Any) -> Any:
            given[-1]["session"] = ""
            yield SimpleNamespace(arrive=arrive)
            return b""

        request.getfixturevalue("monkeypatch").setattr(queries, "_steps", steps)
        scope = {"type": "http", "indexrelay.caller": Caller(name="shop")}
        nothing: Any = None
        searches = []
        for _ in range(asked):
            asks = queries.answer(Request(scope), "similar", "search", nothing)
            searches.append(asyncio.create_task(asks))
            waits = asyncio.create_task(entered.acquire())
            await asyncio.wait([searches[-1], waits], return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
        peak = queries.in_progress
        come.set()
        ended = await asyncio.gather(*searches, return_exceptions=True)
        assert queries.in_progress == 0
        return peak, sum("vectors of their texts" in str(each) for each in ended)

    return asyncio.run(body())


@exercises("texts of one call of an embedder (`batch_texts`)")
def _texts(row: Row, _request: pytest.FixtureRequest) -> None:
    function = Recorder()
    with _embedders() as embedder_of:
        embedder_of(function).embed([str(number) for number in range(row.number + 1)])
    assert [len(call) for call in function.calls] == [row.number, 1]


@exercises("vectors of texts that an embedder keeps (`cache_texts`)")
def _vectors(row: Row, _request: pytest.FixtureRequest) -> None:
    function = Recorder()
    with _embedders() as embedder_of:
        embedder = embedder_of(function, batch_texts=row.number + 1)
        embedder.embed([str(number) for number in range(row.number + 1)])
        embedder.vector(str(row.number))
        assert len(function.calls) == 1
        embedder.vector("0")
    assert function.calls[1:] == [["0"]]


@exercises("threads of an embedder whose calls took too long and have not come back")
def _threads(row: Row, _request: pytest.FixtureRequest) -> None:
    assert row.number == 4
    with _embedders() as embedder_of:
        test_embedder.test_after_several_calls_that_hang_texts_are_refused_at_once_until_one_comes_back(
            embedder_of
        )


@contextmanager
def _embedders() -> Iterator[Callable[..., Embedder]]:
    module = sys.modules[MODULE] = ModuleType(MODULE)

    def make(*function: object, **keys: object) -> Embedder:
        return make_embedder(module, *function, **keys)  # type: ignore[arg-type]

    yield make
    del sys.modules[MODULE]
