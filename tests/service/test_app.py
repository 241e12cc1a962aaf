"""The reader service: what it answers, and what it refuses with which words."""

import json
import threading
from collections.abc import Iterator

import httpx
import pytest

from indexrelay.health.status import Actor, Code
from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import description
from indexrelay.service.answers import accepts_gzip, matches
from indexrelay.service.app import create_app
from tests.reloaders.bench import Bench
from tests.service.app_server import running
from tests.service.conftest import CONTENTS, KINDS

MAX_BODY_BYTES = HttpSettings().max_body_bytes
POSTED = ("search", "search/batch", "entries", "count", "scroll", "neighbours")


def test_a_reader_without_a_release_is_alive_and_not_ready(empty: httpx.Client) -> None:
    health = empty.get("/health").json()
    assert (health["status"], health["well"]) == ("alive", False)
    assert [each["code"] for each in health["problems"]] == ["reader_not_ready"]
    answer = empty.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    answer = empty.post("/v1/components/points/search", json={"vector": [0, 0]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "no component 'points' is served here; there is nothing yet",
    }


def test_health_does_not_wait_for_a_store_that_does_not_answer_and_names_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    assert not reader.problems
    asked, answers = threading.Event(), threading.Event()

    def silent() -> None:
        asked.set()
        answers.wait()

    monkeypatch.setattr(bench.store, "newest_release", silent)
    looking = threading.Thread(target=reader.step)
    looking.start()
    try:
        assert asked.wait(20)
        bench.clock.advance(29)
        assert not reader.problems, "a slow disk"
        bench.clock.advance(2)
        [problem] = reader.problems
        assert (problem.code, problem.acts) == (Code.ARTIFACTS_UNREADABLE, Actor.PERSON)
        assert "no answer for 31 s" in problem.what
    finally:
        answers.set()
        looking.join()


def test_a_reader_that_serves_all_is_ready_and_lists_it(
    client: httpx.Client, reader: Reloader
) -> None:
    assert client.get("/ready").json() == {"ready": True}
    state = ReaderState.model_validate(client.get("/v1/state").json())
    assert (state.reader, state.release) == ("a", len(KINDS))
    assert set(state.components) == set(KINDS)
    listed = client.get("/v1/components").json()
    assert listed["release"] == len(KINDS)
    assert listed["components"]["points"]["kind"] == KINDS["points"]
    assert listed["components"]["points"]["version"] == state.components["points"].version
    assert listed["components"]["points"]["covers"] == {"tracks": 1}


def test_a_version_of_a_newer_minor_version_is_named_as_it_is_released(
    bench: Bench, reader: Reloader, empty: httpx.Client
) -> None:
    first = bench.publish_texts({"points": CONTENTS["points"]}, kind=KINDS["points"])
    manifest = bench.store.version("points", first.components["points"])
    data = canonical_json(manifest.model_dump(mode="json") | {"colour": "blue"})
    version = sha256_hex(data)
    (bench.store.root / "versions" / "points" / f"{version}.json").write_bytes(data)
    bench.components["points"] = version
    bench.release()
    reader.step()
    assert empty.get("/v1/components").json()["components"]["points"]["version"] == version


def test_a_search_by_vector_names_the_version_that_answered(client: httpx.Client) -> None:
    answer = client.post("/v1/components/points/search", json={"vector": [0.9, 0], "k": 2}).json()
    assert [hit["id"] for hit in answer["hits"]] == ["b", "a"]
    assert answer["hits"][0] == {"id": "b", "score": pytest.approx(0.1), "payload": {"row": 1}}
    assert answer["component"] == "points"
    assert answer["release"] == len(KINDS)
    listed = client.get("/v1/components").json()
    assert answer["version"] == listed["components"]["points"]["version"]


def test_a_search_by_id_and_by_text(client: httpx.Client) -> None:
    by_id = client.post("/v1/components/points/search", json={"id": "a", "k": 1}).json()
    assert [hit["id"] for hit in by_id["hits"]] == ["b"]
    by_text = client.post("/v1/components/lines/search", json={"text": "csv"}).json()
    assert [hit["id"] for hit in by_text["hits"]] == ["read a csv file"]


@pytest.mark.parametrize(
    ("component", "body", "status", "says"),
    [
        ("points", {}, 422, "exactly one of vector, id and text, not none of them"),
        ("points", {"vector": [0, 0], "id": "a"}, 422, "not vector and id"),
        ("points", {"vector": [0, 0], "k": 0}, 422, "k: "),
        ("points", {"vector": [0, 0], "k": 1001}, 422, "k: "),
        ("points", {"vector": [0, 0], "k": "many"}, 422, "k: "),
        ("points", {"vector": []}, 422, "vector: "),
        ("points", {"vector": ["x"]}, 422, "vector.0: "),
        ("points", {"vector": [0, 0, 0]}, 422, "a vector of length 2, not 3"),
        ("points", {"vector": [0] * 65_537}, 422, "vector: "),
        ("points", {"text": "csv"}, 422, "answers a vector or an id"),
        ("points", {"id": "z"}, 404, "no entry 'z'"),
        ("points", {"id": ""}, 422, "id: "),
        ("points", {"query": "x"}, 422, "unknown: 'query'; there are k, filter, without"),
        ("lines", {"id": "a"}, 422, "answers a text"),
        ("lines", {"text": "x" * 10_001}, 422, "text: "),
        ("page", {"text": "x"}, 422, "answers no search"),
        ("clap", {"text": "x"}, 404, "there is lines, page, points, songs"),
        ("..%2F..%2Fetc", {"text": "x"}, 404, ""),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    client: httpx.Client, component: str, body: dict[str, object], status: int, says: str
) -> None:
    answer = client.post(f"/v1/components/{component}/search", json=body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"vector": [NaN, 0]}', b"\xff"])
def test_a_body_that_is_no_question_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post(
        "/v1/components/points/search", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused_before_it_is_parsed(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65_536 + 1):
            yield b" " * 65_536

    answer = client.post("/v1/components/points/search", content=pieces())
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["detail"]


def _document(client: httpx.Client, **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    # The client would ask for gzip by itself.
    return client.get("/v1/components/page/document", headers={"accept-encoding": ""} | given)


def test_a_document_is_sent_gzipped_to_those_who_accept_it(client: httpx.Client) -> None:
    plain, gzipped = _document(client), _document(client, accept_encoding="br, gzip;q=0.5")
    assert plain.content == gzipped.content == CONTENTS["page"].encode()
    assert json.loads(plain.content) == {"points": [1, 2, 3]}
    assert "content-encoding" not in plain.headers
    assert gzipped.headers["content-encoding"] == "gzip"
    for answer in (plain, gzipped):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "Accept-Encoding"
    assert plain.headers["etag"] != gzipped.headers["etag"]


def test_a_document_that_the_client_has_is_not_sent_again(client: httpx.Client) -> None:
    for encoding in ("", "gzip"):
        etag = _document(client, accept_encoding=encoding).headers["etag"]
        again = _document(client, accept_encoding=encoding, if_none_match=f'"old", {etag}')
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag


def test_what_is_no_document_is_refused(client: httpx.Client) -> None:
    answer = client.get("/v1/components/points/document")
    assert answer.status_code == 422
    assert "no JSON cache" in answer.json()["detail"]
    assert client.get("/v1/components/clap/document").status_code == 404


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP ; q=0.1", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("br", False),
        ("gzip;q=rubbish", False),
    ],
)
def test_who_accepts_gzip(header: str, *, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_tags_are_compared_weakly() -> None:
    assert matches('W/"a"', '"a"')
    assert matches("*", '"a"')
    assert not matches("", '"a"')
    assert not matches('"b"', '"a"')


def test_the_application_stops_the_reader(bench: Bench) -> None:
    reader = bench.reader()
    with running(create_app(reader)) as client:
        assert client.get("/health").status_code == 200
    with running(create_app(reader)) as client:
        reader.stop()
        answer = client.get("/v1/components")
    assert answer.status_code == 503
    assert "stopped" in answer.json()["detail"]


def test_a_reader_retries_on_request(bench: Bench) -> None:
    cause = bench.folder / "cause"
    cause.touch()
    bench.publish(voyager=f"bad {cause}")
    reader = bench.reader()
    reader.step()
    with running(create_app(reader)) as client:
        cause.unlink()
        reader.step()
        assert not reader.ready
        answer = client.post("/v1/retry")
        assert (answer.status_code, answer.json()) == (202, {"accepted": True})
        reader.step()
        assert reader.ready


def test_however_often_a_retry_is_requested_a_reader_retries_once_a_second(bench: Bench) -> None:
    tries = bench.folder / "tries"
    bench.publish(voyager=f"counted {tries}")
    reader = bench.reader()
    reader.step()
    for _ in range(5):
        reader.retry_failed()
        reader.step()
    assert tries.read_text() == "xx", "at first, and once for all that asked"
    bench.clock.advance(1)
    reader.step()
    assert tries.read_text() == "xxx", "for those that asked meanwhile"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"vector": ["0", 0]}, "vector.0: "),
        ({"vector": [True, 0]}, "vector.0: "),
        ({"vector": [None, 0]}, "vector.0: "),
        ({"vector": [1e39, 0]}, "vector.0: "),
        ({"vector": [0, -3.5e38]}, "vector.1: "),
        ({"vector": [10**400, 0]}, "vector.0: "),
        ({"vector": {"0": 0}}, "vector: "),
        ({"vector": "00"}, "vector: "),
        ({"vector": [0, 0], "k": True}, "k: "),
        ({"vector": [0, 0], "k": "2"}, "k: "),
        ({"vector": [0, 0], "k": 2.5}, "k: "),
        ({"vector": [0, 0], "k": 1e300}, "k: "),
        ({"vector": [0, 0], "k": None}, "k: "),
        ({"id": 7}, "id: "),
        ({"id": True}, "id: "),
        ({"text": ["x"]}, "text: "),
        ({"vector": [0, 0], "x" * 50_000: 0}, f"unknown: '{'x' * 40}'; there are"),
        ({"id": "z" * 10_000}, "there is no entry"),
    ],
)
def test_numbers_are_numbers_and_an_error_is_short(
    client: httpx.Client, body: dict[str, object], says: str
) -> None:
    answer = client.post("/v1/components/points/search", json=body)
    assert answer.status_code == (404 if "id" in body and "no entry" in says else 422)
    assert says in answer.json()["detail"]
    assert len(answer.content) < 1_300


def test_a_whole_number_may_be_written_with_a_point(client: httpx.Client) -> None:
    answer = client.post("/v1/components/points/search", json={"vector": [0, 1], "k": 2.0})
    assert len(answer.json()["hits"]) == 2


@pytest.mark.parametrize("score", ["inf", "-inf", "nan"])
def test_a_score_that_is_no_number_is_an_error_and_not_null(
    client: httpx.Client, score: str
) -> None:
    answer = client.post("/v1/components/lines/search", json={"text": score})
    assert answer.status_code == 422
    assert f"the score of 'b' is {score}" in answer.json()["detail"]


def test_half_a_character_of_a_users_kind_is_written_as_its_code(client: httpx.Client) -> None:
    answer = client.post("/v1/components/lines/search", json={"text": "half"})
    assert answer.status_code == 200
    assert answer.json()["hits"][0]["payload"] == "\ud800"


def test_a_kind_that_can_limit_the_payloads_it_reads_gets_the_limit(
    client: httpx.Client,
) -> None:
    answer = client.post("/v1/components/lines/search", json={"text": "limit"}).json()
    assert answer["hits"][0]["payload"] == HttpSettings().max_answer_bytes


@pytest.mark.parametrize("text", ["payload", "raise"])
def test_an_unexpected_error_is_a_problem_without_details_and_a_line_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    answer = client.post("/v1/components/lines/search", json={"text": text})
    assert answer.status_code == 500
    assert answer.json()["detail"] == "this is a fault of the reader; its log says more"
    logged = [record for record in caplog.records if "request.failed" in record.getMessage()]
    assert len(logged) == 1
    assert "/v1/components/lines/search" in logged[0].getMessage()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/components/points/search", 405),
        ("DELETE", "/health", 405),
        ("GET", "/components/" + "x" * 5_000 + "/document", 404),
        ("POST", "/v1/components/points/search", 415),
        ("GET", "/docs", 404),
    ],
)
def test_every_refusal_is_a_problem(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail"}
    assert answer.json()["status"] == status
    assert len(answer.content) < 1_300
    if status == 405:
        assert answer.headers["allow"]


def test_the_description_is_rendered_once(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = client.get("/openapi.json").content
    monkeypatch.setattr(description, "get_openapi", None)
    assert client.get("/openapi.json").content == first


def test_of_many_unknown_keys_some_are_named(client: httpx.Client) -> None:
    body = {f"key-{number}": 0 for number in range(1000)}
    answer = client.post("/v1/components/points/search", json=body)
    assert answer.status_code == 422
    assert "'key-0', 'key-1', 'key-2', 'key-3', 'key-4' and 995 more" in answer.json()["detail"]


def test_the_description_lists_every_status_of_every_route(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    routes = {
        f"{method.upper()} {path}": operation["responses"]
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
    of_component = "/v1/components/{name}"
    everywhere = {"400", "405", "408", "413", "421", "500", "503"}
    assert {route: set(responses) - everywhere for route, responses in routes.items()} == {
        "GET /health": {"200"},
        "GET /ready": {"200"},
        "GET /metrics": {"200"},
        "GET /v1/state": {"200"},
        "POST /v1/retry": {"202"},
        "GET /v1/components": {"200"},
        "GET /v1/collections": {"200"},
        "GET /admin/index/status": {"200"},
        "POST /admin/index/rebuild": {"202", "415", "422"},
        **{f"POST {of_component}/{asked}": {"200", "404", "415", "422"} for asked in POSTED},
        f"GET {of_component}/entries": {"200", "404", "422"},
        f"GET {of_component}/document": {"200", "304", "404", "422"},
    }
    for responses in routes.values():
        for status, response in responses.items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDetails"}
    assert set(described["components"]["schemas"]) >= {"ProblemDetails", "SearchRequest"}
    assert "HTTPValidationError" not in described["components"]["schemas"]
    k = described["components"]["schemas"]["SearchRequest"]["properties"]["k"]
    assert (k["minimum"], k["maximum"]) == (1, 1000)
    search = described["paths"]["/v1/components/{name}/search"]["post"]
    assert search["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/SearchRequest"
    }


def test_an_answer_that_would_be_too_large_names_the_k_that_fits(
    bench: Bench, reader: Reloader
) -> None:
    bench.publish_texts({"points": CONTENTS["points"]}, kind=KINDS["points"])
    reader.step()
    with running(create_app(reader, HttpSettings(max_answer_bytes=340))) as client:
        asked = {"vector": [0, 0], "k": 3}
        answer = client.post("/v1/components/points/search", json=asked)
        assert answer.status_code == 422
        k = int(answer.json()["detail"].split("a k of ")[1].split()[0])
        assert 0 < k < 3
        asked["k"] = k
        assert client.post("/v1/components/points/search", json=asked).status_code == 200
