"""Requests for fresh answers, over HTTP and by the client, to two instances of one reader."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from indexrelay.producers.changes import ChangeSender
from indexrelay.reloaders.consistency import Freshness, FreshWait
from indexrelay.schemas.session import HEADER, SessionToken
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import AsyncClient, Client
from indexrelay.service.app import create_app
from indexrelay.service.client import ReaderBehindError, ReaderUnreachableError
from indexrelay.service.tokens import digest_of, new_token
from indexrelay.testing.pipeline import Pipeline
from tests.reloaders.test_live import (
    VECTORS,
    make_settings,
    put,
    reader_without_catalog,
    released,
)
from tests.service.app_server import running

SEARCH = "/v1/components/similar/search"
COUNT = "/v1/components/similar/count"
TENANT, WHOLE = new_token(), new_token()
READER = {"start_spread_seconds": 0, "block_seconds": 0.05}


@dataclass
class Two:
    """Two instances over one pipeline; the second has no catalog."""

    pipeline: Pipeline
    near: httpx.Client
    far: httpx.Client

    @property
    def addresses(self) -> list[str]:
        return [str(each.base_url) for each in (self.near, self.far)]

    def token(self, generation: int, *, collection: str = "tracks", epoch: str = "") -> str:
        epoch = epoch or self.pipeline.catalog.collections.get("tracks").epoch
        return str(SessionToken.at(collection, epoch, generation))


def two(folder: Any, **http: Any) -> Iterator[Two]:
    with ExitStack() as stack:
        pipeline = stack.enter_context(closing(Pipeline(make_settings(reader=READER), folder)))
        released(pipeline)
        put(pipeline, {"d": 3}, year=1999)
        far = reader_without_catalog(pipeline)
        stack.callback(far.stop)
        near = HttpSettings.model_validate({"fresh_seconds": 60, **http})
        # It waits in vain where its messages are lost.
        impatient = HttpSettings.model_validate({"fresh_seconds": 0.01, **http})
        clients = [
            stack.enter_context(running(create_app(reader, limits)))
            for reader, limits in ((pipeline.reader("near"), near), (far, impatient))
        ]
        yield Two(pipeline, *clients)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    yield from two(tmp_path_factory.mktemp("two"))


def test_every_answer_says_how_fresh_it_is_and_gives_its_session(shared: Two) -> None:
    generation = shared.pipeline.catalog.collections.get("tracks").generation
    raw = np.ones(3, "<f4").tobytes()
    vector = {"Content-Type": "application/octet-stream"}
    for answer in (
        shared.near.post(SEARCH, json={"vector": [1, 0, 0], "consistency": "strong"}),
        shared.near.post(f"{SEARCH}?consistency=strong", content=raw, headers=vector),
        shared.near.post(COUNT, json={"max_lag_seconds": 0}),
        shared.near.get("/v1/components/similar/entries?id=a&consistency=strong"),
        shared.near.post("/v1/components/similar/scroll", json={"consistency": "strong"}),
        shared.near.post(
            "/v1/components/similar/neighbours", json={"ids": ["a"], "consistency": "strong"}
        ),
    ):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["generations"] == {"tracks": generation}
        assert (found["lag_seconds"], found["degraded"], found["reason"]) == (0, False, None)
        assert found["session"] == answer.headers[HEADER] == shared.token(generation)
    batch = shared.near.post(
        f"{SEARCH}/batch", json={"queries": [{"id": "a"}, {"id": "b"}], "consistency": "strong"}
    )
    assert [each["session"] for each in batch.json()["answers"]] == [batch.headers[HEADER]] * 2
    unknown = shared.far.post(COUNT, json={}).json()
    assert unknown["lag_seconds"] is None


def test_a_write_is_read_at_once_whatever_becomes_of_its_message(
    shared: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChangeSender, "send", lambda *_: None)
    for number in range(3):
        session = str(put(shared.pipeline, {f"w{number}": 8 + number}).session)
        path = "/v1/components/similar/entries"
        body = {"ids": [f"w{number}"]}
        found = shared.near.post(path, json=body, headers={HEADER: session})
        assert found.json()["entries"][0]["id"] == f"w{number}"


def test_only_who_asks_for_freshness_is_refused_and_is_told_how_far_it_is(shared: Two) -> None:
    ahead = shared.token(2**40)
    assert shared.near.post(COUNT, json={}).status_code == 200
    assert shared.near.post(COUNT, json={"consistency": "eventual"}).status_code == 200
    for client, wanted in ((shared.near, "brought back"), (shared.far, "next release")):
        answer = client.post(COUNT, json={"session": ahead})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        problem = answer.json()
        [behind] = problem["behind"]
        assert wanted in behind["reason"]
        assert wanted in problem["detail"]
        assert (behind["collection"], behind["wanted"]) == ("tracks", 2**40)
        assert behind["generation"] < 2**40
    strong = shared.far.post(COUNT, json={"consistency": "strong"})
    assert strong.status_code == 503
    assert "cannot look into the catalog" in strong.json()["detail"]
    metrics = shared.near.get("/metrics").text
    assert 'outcome="not_fresh"' in metrics


def test_the_description_names_the_header_of_questions_and_answers(shared: Two) -> None:
    described = shared.near.get("/openapi.json").json()
    for path in ("search", "search/batch", "entries", "count", "scroll", "neighbours"):
        operation = described["paths"][f"/v1/components/{{name}}/{path}"]["post"]
        assert HEADER in {each["name"] for each in operation["parameters"]}
        assert HEADER in operation["responses"]["200"]["headers"]
    asked = described["components"]["schemas"]["SearchRequest"]["properties"]
    assert asked.keys() >= {"consistency", "max_lag_seconds", "session", "vector"}
    in_batch = described["components"]["schemas"]["SearchQuery"]["properties"]
    assert "consistency" not in in_batch
    assert "behind" in described["components"]["schemas"]["ProblemDetails"]["properties"]


@pytest.mark.parametrize(
    ("body", "header", "says"),
    [
        ({"consistency": "session"}, None, "session: the consistency session takes one"),
        ({"consistency": "bounded"}, None, "max_lag_seconds goes with"),
        ({"consistency": "strong", "max_lag_seconds": 1}, None, "max_lag_seconds goes with"),
        ({"consistency": "fresh"}, None, "consistency: Input should be"),
        ({"max_lag_seconds": -1}, None, "max_lag_seconds: "),
        ({"max_lag_seconds": "1"}, None, "max_lag_seconds: "),
        ({"consistency": "strong", "session": "s1.W10"}, None, "session: with the consistency"),
        ({"session": "nonsense"}, None, "session: this is no session token"),
        ({"session": "s1." + "A" * 6000}, None, "session: String should have at most"),
        ({}, "s1.!", f"the header {HEADER}: this is no session token"),
        ({"consistency": "eventual"}, "s1.!", f"the header {HEADER}: this is no session token"),
    ],
)
def test_what_does_not_go_together_is_refused_and_named(
    shared: Two, body: dict[str, Any], header: str | None, says: str
) -> None:
    headers = {} if header is None else {HEADER: header}
    answer = shared.near.post(COUNT, json=body, headers=headers)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    in_batch = {"queries": [{"id": "a", **body}]}
    if body:
        assert shared.near.post(f"{SEARCH}/batch", json=in_batch).status_code == 422


def test_a_request_that_waits_holds_no_thread_and_only_so_many_wait(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    begin = Freshness.begin

    def noted(self: Freshness, *given: Any, **named: Any) -> FreshWait:
        wait = begin(self, *given, **named)
        when_settled = wait.when_settled

        def waits(wake: Any) -> None:
            when_settled(wake)
            waiting.set()

        wait.when_settled = waits  # type: ignore[method-assign]
        return wait

    monkeypatch.setattr(Freshness, "begin", noted)
    tokens = {
        "tenant": {"sha256": digest_of(TENANT), "filter": {"year": 1999}},
        "whole": {"sha256": digest_of(WHOLE)},
    }
    http = {"fresh_seconds": 60, "searches": 1, "max_waiting_reads": 3, "tokens": tokens}
    tenant, whole = ({"Authorization": f"Bearer {each}"} for each in (TENANT, WHOLE))
    answers: list[httpx.Response] = []
    for both in two(tmp_path_factory.mktemp("waits"), **http):
        session = both.token(3)

        def ask(both: Two = both, session: str = session) -> None:
            answers.append(both.far.post(COUNT, json={"session": session}, headers=tenant))

        thread = threading.Thread(target=ask)
        thread.start()
        assert waiting.wait(30)
        # The one thread is free, and one caller alone does not fill the room.
        assert both.far.post(COUNT, json={}, headers=whole).json()["count"] == 4
        refused = both.far.post(COUNT, json={"session": session}, headers=tenant)
        assert (refused.status_code, "behind" in refused.json()) == (503, False)
        assert "wait until it is fresh enough" in refused.json()["detail"]
        commit = put(both.pipeline, {"e": 4}, year=1999)
        thread.join()
        assert str(commit.session) == session
        [answer] = answers
        assert (answer.status_code, answer.json()["count"]) == (200, 2)
        # A tenant is told nothing of what it does not ask: whatever the token names.
        foreign = both.token(9, collection="secrets", epoch="any")
        assert both.far.post(COUNT, json={"session": foreign}, headers=tenant).status_code == 200
        assert "secrets" not in both.far.post(COUNT, json={}, headers=tenant).text


def test_a_client_never_goes_back_from_one_instance_to_another(
    shared: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChangeSender, "send", lambda *_: None)
    near, far = shared.addresses
    with Client(near) as writer, Client(far) as reader:
        assert len(writer.session) == 0
        seen = writer.count("similar", consistency="strong")
        generation = seen.generations["tracks"]
        assert writer.session == SessionToken.from_text(seen.session)
        # What it has written elsewhere, or another client has, is asked for, too.
        reader.merge_session(writer.session)
        assert reader.session == writer.session
        commit = put(shared.pipeline, {"more": 20})
        writer.merge_session(str(commit.session))
        reader.merge_session(writer.session)
        with pytest.raises(ReaderBehindError) as refused:
            reader.get("similar", ["more"])
        assert refused.value.behind[0].wanted == commit.generation > generation
        assert reader.count("similar", consistency="eventual").generations["tracks"] >= 2
        # Of several instances the next one answers.
        with Client([far, near], session=commit.session) as pool:
            found = pool.get("similar", ["more"])
            assert found.entries[0] is not None
            assert pool.session == commit.session
            pool.forget_session()
            assert len(pool.session) == 0


def test_a_pool_leaves_instances_that_are_not_there(shared: Two) -> None:
    near, _ = shared.addresses
    nobody = ["http://127.0.0.1:9", "http://127.0.0.2:9"]
    with Client([*nobody, near]) as client:
        assert client.count("similar").count >= 4
        assert client.search("similar", vector=VECTORS[0]).hits[0].id == "a"
    with pytest.raises(ReaderUnreachableError, match=r"127\.0\.0\.2"), Client(nobody) as client:
        client.count("similar")
    with pytest.raises(ReaderUnreachableError, match="at least one"):
        Client([])

    async def ask() -> None:
        async with AsyncClient([*nobody, near]) as client:
            assert (await client.count("similar")).count >= 4
            seen = client.session
            batch = await client.search_vectors("similar", VECTORS[:2], consistency="strong")
            assert len(batch) == 2
            assert client.session.merge(seen) == client.session

    asyncio.run(ask())
