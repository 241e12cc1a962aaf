"""Who may ask, and what: tokens, their scopes, and what a tenant's token never gets."""

import hmac
import json
import string
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import HttpSettings, TokenSettings
from indexrelay.service.app import create_app
from indexrelay.service.tokens import Tokens, digest_of, new_token
from tests.reloaders.bench import Bench
from tests.service.app_server import running
from tests.service.conftest import served
from tests.service.search_kinds import ServedSongs

TOKENS = {name: new_token() for name in ("reads", "changes", "jazz")}
SETTINGS = HttpSettings.model_validate(
    {
        "tokens": {
            "reads": {"sha256": digest_of(TOKENS["reads"])},
            "changes": {"sha256": digest_of(TOKENS["changes"]), "scope": "admin"},
            "jazz": {"sha256": digest_of(TOKENS["jazz"]), "filter": {"genre": "jazz"}},
        }
    }
)
SONGS = "/v1/components/songs"


@pytest.fixture
def guarded(bench: Bench, reader: Reloader) -> Iterator[httpx.Client]:
    with served(bench, reader, SETTINGS) as client:
        yield client


def shown(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def test_without_a_token_nothing_is_answered_but_health_and_readiness(
    guarded: httpx.Client,
) -> None:
    described = guarded.get("/openapi.json", headers=shown("reads")).json()
    asked = {
        (method, path.replace("{name}", "songs"))
        for path, operations in described["paths"].items()
        for method in operations
    }
    asked |= {("get", "/openapi.json"), ("get", "/nothing"), ("delete", "/v1/state"), ("get", "/")}
    assert len(asked) > 15
    for method, path in asked:
        refused = guarded.request(method, path, json={})
        if path in ("/health", "/ready"):
            assert refused.status_code == 200
            continue
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"] == 'Bearer realm="indexrelay"'
        assert refused.headers["content-type"] == "application/problem+json"
        assert "Authorization: Bearer TOKEN" in refused.json()["detail"]


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        "Bearer",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {sha256}",
        "Bearer {token} {token}",
        "Bearer \xff",
    ],
)
def test_a_wrong_token_is_refused_and_said_to_be_wrong(guarded: httpx.Client, given: str) -> None:
    token = TOKENS["reads"]
    header = given.format(token=token, sha256=digest_of(token)).encode("latin-1")
    refused = guarded.get("/v1/state", headers={b"authorization": header})
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_a_token_in_the_address_or_given_twice_is_none(guarded: httpx.Client) -> None:
    token = TOKENS["reads"]
    assert guarded.get("/v1/state", params={"access_token": token}).status_code == 401
    twice = [("authorization", f"Bearer {token}")] * 2
    assert guarded.get("/v1/state", headers=twice).status_code == 401


def test_the_word_bearer_may_be_written_in_any_way(guarded: httpx.Client) -> None:
    header = {"authorization": f"bEARER  {TOKENS['reads']}"}
    assert guarded.get("/v1/state", headers=header).status_code == 200


def test_health_says_why_to_those_whose_token_shows_everything(reader: Reloader) -> None:
    with running(create_app(reader, SETTINGS)) as client:
        told = client.get("/health", headers=shown("reads")).json()
        assert [each["code"] for each in told["problems"]] == ["reader_not_ready"]
        for headers in ({}, {"authorization": "Bearer x"}, shown("jazz")):
            told = client.get("/health", headers=headers).json()
            assert (told["well"], told["problems"]) == (False, [])


def test_to_change_something_takes_the_scope_admin(guarded: httpx.Client) -> None:
    assert guarded.post("/v1/retry", headers=shown("changes")).status_code == 202
    assert guarded.get("/v1/state", headers=shown("changes")).status_code == 200
    for name in ("reads", "jazz"):
        refused = guarded.post("/v1/retry", headers=shown(name))
        assert refused.status_code == 403
        challenge = refused.headers["www-authenticate"]
        assert 'error="insufficient_scope", scope="admin"' in challenge


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/state", None),
        ("GET", "/v1/components", None),
        ("GET", "/metrics", None),
        ("GET", "/v1/components/page/document", None),
        ("POST", "/v1/components/points/search", {"vector": [0, 0]}),
        ("POST", "/v1/components/points/search", {"id": "a"}),
        ("POST", "/v1/components/lines/search", {"text": "csv"}),
        ("POST", f"{SONGS}/search", {"vector": [0, 0], "explain": True}),
    ],
)
def test_what_cannot_be_filtered_a_tenant_is_refused(
    guarded: httpx.Client, method: str, path: str, body: Any
) -> None:
    assert guarded.request(method, path, json=body, headers=shown("reads")).status_code == 200
    refused = guarded.request(method, path, json=body, headers=shown("jazz"))
    assert refused.status_code == 403
    assert "filter" in refused.json()["detail"] or "everybody" in refused.json()["detail"]


def test_a_tenant_is_not_told_what_else_there_is(guarded: httpx.Client) -> None:
    told = {
        name: guarded.post("/v1/components/x/count", json={}, headers=shown(name))
        for name in ("reads", "jazz")
    }
    assert {answer.status_code for answer in told.values()} == {404}
    assert "lines, page, points, songs" in told["reads"].json()["detail"]
    assert told["jazz"].json()["detail"] == "no component 'x' is served here"


def test_a_tenant_gets_no_explanation_of_searches_that_are_answered_together(
    guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind of the user's own may take what none of ours does."""

    def search_many(
        self: ServedSongs,
        vectors: Any,
        *,
        k: int,
        filter: Any = None,  # noqa: A002 - its name
        explain: bool = False,
        max_payload_bytes: int | None = None,
    ) -> list[Any]:
        return [self.search(each, k=k, filter=filter, explain=explain) for each in vectors]

    monkeypatch.setattr(ServedSongs, "search_many", search_many, raising=False)
    query = {"vector": [4, 0], "explain": True}
    for name, wanted in (("reads", "explanation"), ("jazz", "403")):
        body = {"queries": [query, query]}
        answer = guarded.post(f"{SONGS}/search/batch", json=body, headers=shown(name))
        assert [wanted in str(each) for each in answer.json()["answers"]] == [True, True]


def test_a_tenant_finds_counts_and_gets_its_own_entries_only(guarded: httpx.Client) -> None:
    def asked(what: str, **body: Any) -> Any:
        answer = guarded.post(f"{SONGS}/{what}", json=body, headers=shown("jazz"))
        return answer.json() if answer.status_code == 200 else answer.status_code

    assert [hit["id"] for hit in asked("search", vector=[4, 0])["hits"]] == ["slow", "calm", "cold"]
    assert asked("search", vector=[4, 0], filter={"genre": "rock"})["hits"] == []
    assert asked("search", id="loud") == asked("search", id="nobody") == 404
    assert asked("search", like=["calm", "loud"]) == 404
    assert asked("search", like=["calm"], unlike=["loud"]) == 404
    assert asked("neighbours", ids=["calm", "loud"]) == 404
    assert set(asked("neighbours", ids=["calm"])["neighbours"]) == {"calm"}
    assert asked("entries", ids=["calm", "loud"])["entries"][1] is None
    assert asked("count")["count"] == 3
    assert asked("count", filter={"genre": "rock"})["count"] == 0
    assert [each["id"] for each in asked("scroll")["entries"]] == ["calm", "cold", "slow"]
    batch = asked("search/batch", queries=[{"id": "loud"}, {"vector": [4, 0], "k": 1}])["answers"]
    assert batch[0]["status"] == 404
    assert [hit["id"] for hit in batch[1]["hits"]] == ["slow"]
    unknown = guarded.post(f"{SONGS}/search", json={"id": "nobody"}, headers=shown("jazz"))
    hidden = guarded.post(f"{SONGS}/search", json={"id": "loud"}, headers=shown("jazz"))
    assert hidden.json()["detail"].replace("loud", "nobody") == unknown.json()["detail"]


IDS = st.sampled_from(["calm", "cold", "fast", "loud", "slow", "nobody"])
FILTERS = st.recursive(
    st.dictionaries(st.just("genre"), st.sampled_from(["jazz", "rock", None]), max_size=1),
    lambda inner: st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)}),
    max_leaves=4,
)
OPTIONAL = {"filter": FILTERS, "k": st.integers(1, 10)}
VECTORS = st.lists(st.integers(-5, 5), min_size=2, max_size=2)
SEARCHES = st.one_of(
    st.fixed_dictionaries({"vector": VECTORS}, optional={**OPTIONAL, "without": st.lists(IDS)}),
    st.fixed_dictionaries({"text": st.text(string.ascii_lowercase, max_size=2)}, optional=OPTIONAL),
    st.fixed_dictionaries({"id": IDS}, optional=OPTIONAL),
    st.fixed_dictionaries(
        {"like": st.lists(IDS | VECTORS, min_size=1, max_size=3)},
        optional={**OPTIONAL, "unlike": st.lists(IDS | VECTORS, max_size=2)},
    ),
)
REQUESTS = st.one_of(
    st.tuples(st.just("search"), SEARCHES),
    st.tuples(
        st.just("search/batch"),
        st.fixed_dictionaries({"queries": st.lists(SEARCHES, min_size=1, max_size=3)}),
    ),
    st.tuples(
        st.just("entries"), st.fixed_dictionaries({"ids": st.lists(IDS, min_size=1, max_size=4)})
    ),
    st.tuples(
        st.just("neighbours"), st.fixed_dictionaries({"ids": st.lists(IDS, min_size=1, max_size=3)})
    ),
    st.tuples(
        st.just("scroll"),
        st.fixed_dictionaries(
            {}, optional={"filter": FILTERS, "after": IDS, "limit": st.integers(1, 4)}
        ),
    ),
    st.tuples(st.just("count"), st.fixed_dictionaries({}, optional={"filter": FILTERS})),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(request_=REQUESTS)
def test_whatever_a_tenant_asks_it_never_gets_anothers_entry(
    guarded: httpx.Client, request_: tuple[str, dict[str, Any]]
) -> None:
    what, body = request_
    answer = guarded.post(f"{SONGS}/{what}", json=body, headers=shown("jazz"))
    assert answer.status_code in (200, 404)
    if answer.status_code == 200:
        got = answer.text
        assert "rock" not in got, "another's payload"
        found = json.loads(got)
        for hidden in ("fast", "loud"):
            assert f'"id":"{hidden}"' not in got.replace(" ", "")
        assert found.get("count", 0) <= 3


def test_every_digest_is_compared_in_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare_digest = hmac.compare_digest

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return compare_digest(known, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    known = Tokens(SETTINGS.tokens)
    found = known.caller(TOKENS["reads"])
    assert found is not None
    assert (found.name, found.scope, found.filter) == ("reads", "read", None)
    assert len(compared) == len(SETTINGS.tokens), "also after the one that fits"


@pytest.mark.parametrize(
    "table",
    [
        {"sha256": "a" * 63},
        {"sha256": "A" * 64},
        {"sha256": new_token()},
        {"sha256": "a" * 64, "token": "secret"},
        {"sha256": "a" * 64, "scope": "all"},
        {"sha256": "a" * 64, "filter": {}},
        {"sha256": "a" * 64, "filter": {"a": 1}, "scope": "admin"},
    ],
)
def test_settings_that_would_not_do_what_they_say_are_a_mistake(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokenSettings.model_validate(table)


def test_a_token_has_one_name() -> None:
    tokens = {name: {"sha256": "a" * 64} for name in ("one", "two")}
    with pytest.raises(ValidationError, match="one and two are the same token"):
        HttpSettings.model_validate({"tokens": tokens})


def test_no_token_is_logged(guarded: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="indexrelay")
    guarded.post("/v1/components/lines/search", json={"text": "raise"}, headers=shown("reads"))
    guarded.get("/v1/state", headers={"authorization": "Bearer my-secret"})
    guarded.get("/v1/state", params={"access_token": "my-secret"})
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "request.failed" in logged
    assert TOKENS["reads"] not in logged
    assert "my-secret" not in logged
