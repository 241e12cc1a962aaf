"""What a client that writes may keep of a reader service, and of its catalog."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from indexrelay.components.errors import InvalidQueryError
from indexrelay.producers import Commit, GroupCommit, GroupFullError
from indexrelay.producers.batch import PendingBatch
from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.service.bodies import DeleteRequest, UpsertRequest, checked, read_write
from indexrelay.service.limits import FewThreads
from indexrelay.service.metrics import WriteCounts
from indexrelay.service.problems import OverloadedError, RefusedError
from indexrelay.service.tokens import EVERYBODY, Caller, caller_of, digest_of
from indexrelay.service.writer import EntryWriter
from indexrelay.service.writes import (
    _CATALOG_THREADS,
    _TURN_SECONDS,
    _batch_id,
    _Requests,
)
from indexrelay.storage.catalog import BatchChanges
from tests.security.limits.table import Row, exercises

SECONDS = 30.0


@exercises("colons of a write's body, those in texts included")
def _colons(row: Row, _request: pytest.FixtureRequest) -> None:
    body = '{"entries":[{"id":"a","text":"%s"}]}'
    inside = row.number - body.count(":")
    assert read_write((body % (":" * inside)).encode(), UpsertRequest).entries
    with pytest.raises(InvalidQueryError, match=f"at most {row.number} keys, or colons"):
        read_write((body % (":" * (inside + 1))).encode(), UpsertRequest)


@exercises("entries that one request writes, and ids that it deletes")
def _entries(row: Row, _request: pytest.FixtureRequest) -> None:
    ids = [str(number) for number in range(row.number)]
    entries = [{"id": each} for each in ids]
    assert len(checked({"entries": entries}, UpsertRequest).entries) == row.number
    assert len(checked({"ids": ids}, DeleteRequest).ids) == row.number
    with pytest.raises(InvalidQueryError, match=f"entries: List should have at most {row.number}"):
        checked({"entries": [*entries, {"id": "one more"}]}, UpsertRequest)
    with pytest.raises(InvalidQueryError, match=f"ids: List should have at most {row.number}"):
        checked({"ids": [*ids, "one more"]}, DeleteRequest)


@exercises(
    "writes that wait for the next transaction; and as many that wait to be visible or released"
)
def _waiting(row: Row, _request: pytest.FixtureRequest) -> None:
    with held(max_waiting=row.number) as (group, _):
        outcomes = [group.submit(pending(number)) for number in range(row.number)]
        with pytest.raises(GroupFullError, match=f"{row.number} batches wait"):
            group.submit(pending(row.number))
    assert all(each.result(SECONDS) for each in outcomes)


@exercises("writes of one token, where there are several, that are not committed yet")
def _of_one(row: Row, request: pytest.FixtureRequest) -> None:
    http = HttpSettings.model_validate(
        {"tokens": {name: {"sha256": digest_of(name), "scope": "write"} for name in "ab"}}
    )
    read: Any = None
    writer = EntryWriter(Settings(http=http), max_waiting=http.max_waiting_writes)
    began: list[str | None] = []
    waiting = asyncio.Event()

    async def committed(_self: Any, asked: Request, *_: Any) -> Any:
        began.append(caller_of(asked).name)
        await waiting.wait()
        raise RefusedError(422, "over")

    async def ask(name: str, times: int) -> list[Any]:
        scope = {
            "type": "http",
            "method": "PUT",
            "indexrelay.caller": Caller(name=name, scope="write"),
        }
        asked = [requests.write(Request(scope), "songs", None, read) for _ in range(times)]
        return await asyncio.gather(*asked, return_exceptions=True)

    async def body() -> None:
        first = asyncio.create_task(ask("a", row.number))
        await asyncio.sleep(0)  # each has begun by then
        [refused] = await ask("a", 1)
        assert f"{row.number} writes of this token to commit" in str(refused)
        other = asyncio.create_task(ask("b", 1))
        await asyncio.sleep(0)
        waiting.set()
        assert {str(each) for each in [*await first, *await other]} == {"over"}

    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(_Requests, "_committed", committed)
    reader: Any = SimpleNamespace(embedders=None)
    queries: Any = None
    requests = _Requests(writer, reader, queries, WriteCounts())
    asyncio.run(body())
    assert began == ["a"] * row.number + ["b"]


@exercises("writes of one transaction")
def _together(row: Row, _request: pytest.FixtureRequest) -> None:
    with held(max_waiting=3 * row.number) as (group, sizes):
        for number in range(row.number + 1):
            group.submit(pending(number))
    assert sizes == [1, row.number, 1]


@exercises("seconds that a write may wait to be visible or released")
def _wait(row: Row, _request: pytest.FixtureRequest) -> None:
    assert checked({"ids": ["a"], "wait_seconds": float(row.number)}, DeleteRequest).wait_seconds
    with pytest.raises(InvalidQueryError, match="wait_seconds: Input should be less than or equal"):
        checked({"ids": ["a"], "wait_seconds": row.number + 0.1}, DeleteRequest)


@exercises("characters of an `Idempotency-Key`")
def _key(row: Row, _request: pytest.FixtureRequest) -> None:
    assert _batch_id("k" * row.number, EVERYBODY)
    with pytest.raises(RefusedError, match=f"at most {row.number} printable"):
        _batch_id("k" * (row.number + 1), EVERYBODY)


def pending(number: int) -> PendingBatch:
    return PendingBatch(changes=BatchChanges(collection="songs", batch_id=str(number)))


@contextmanager
def held(*, max_waiting: int) -> Iterator[tuple[GroupCommit, list[int]]]:
    """A group whose first transaction, of one batch, takes until the end; and their sizes."""
    began, may_go, sizes = threading.Event(), threading.Event(), list[int]()

    def commit_each(batches: Sequence[PendingBatch]) -> list[Commit]:
        sizes.append(len(batches))
        began.set()
        assert may_go.wait(SECONDS)
        return [
            Commit(
                collection="songs",
                epoch="epoch",
                batch_id=each.changes.batch_id,
                generation=1,
                upserts=0,
                deletes=0,
                repeated=False,
            )
            for each in batches
        ]

    committer: Any = SimpleNamespace(commit_each=commit_each, announce=lambda *_: True)
    group = GroupCommit(committer, max_waiting=max_waiting)
    group.submit(pending(-1))
    assert began.wait(SECONDS)
    yield group, sizes
    may_go.set()
    group.close()


@exercises("entries that are read from the catalog, at a time")
def _reads(row: Row, request: pytest.FixtureRequest) -> None:
    assert _read_together(HttpSettings(), request, asked=row.number + 3) == (row.number, 3)


@exercises("entries that one token, where there are several, reads from it at a time")
def _reads_of_one(row: Row, request: pytest.FixtureRequest) -> None:
    http = HttpSettings.model_validate(
        {"tokens": {name: {"sha256": digest_of(name)} for name in "ab"}}
    )
    assert _read_together(http, request, asked=row.number + 3) == (row.number, 3)


def _read_together(
    http: HttpSettings, request: pytest.FixtureRequest, *, asked: int
) -> tuple[int, int]:
    """How many entries were read at a time, and how many requests were refused."""
    goes_on = asyncio.Event()

    async def of_catalog(*_: Any) -> None:
        await goes_on.wait()

    async def body() -> tuple[int, int]:
        reads = [asyncio.create_task(requests.stored(asks, "songs", "a")) for _ in range(asked)]
        await asyncio.sleep(0)
        peak = len(requests._reading)
        goes_on.set()
        ended = [str(each) for each in await asyncio.gather(*reads, return_exceptions=True)]
        assert sum("holds no entry 'a'" in each for each in ended) == peak
        return peak, sum("to read from the catalog" in each for each in ended)

    nothing: Any = None
    reloader: Any = SimpleNamespace(embedders=None)
    writer = EntryWriter(Settings(http=http), max_waiting=http.max_waiting_writes)
    requests = _Requests(writer, reloader, nothing, WriteCounts())
    asks = Request({"type": "http", "method": "GET", "indexrelay.caller": Caller(name="a")})
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(requests, "_of_catalog", of_catalog)
    return asyncio.run(body())


@exercises("threads that read the catalog, beside the one that commits")
def _threads(row: Row, _request: pytest.FixtureRequest) -> None:
    free, goes_on = threading.Semaphore(0), threading.Event()

    def reads() -> None:
        free.release()
        goes_on.wait(SECONDS)

    async def body() -> None:
        threads = FewThreads(_CATALOG_THREADS, "looks to make")
        running = [
            asyncio.create_task(threads.run(reads, seconds=SECONDS)) for _ in range(row.number)
        ]
        for _ in running:
            assert await asyncio.to_thread(free.acquire, timeout=SECONDS)
        with pytest.raises(OverloadedError, match="looks to make"):
            await threads.run(reads, seconds=0.01)
        goes_on.set()
        await asyncio.gather(*running)
        await threads.run(reads, seconds=SECONDS)

    assert f"{_TURN_SECONDS:g} s" in row.happens
    asyncio.run(body())
