"""Searches of one component, alone and in batches, in JSON and as float32 values."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.service import dispatch
from indexrelay.service.bodies import MAX_ELEMENTS, MAX_QUERIES
from tests.service.search_kinds import ServedSongs

SONGS = "/v1/components/songs"


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def search(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.post(f"{SONGS}/search", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"vector": [0, 0], "k": 2}, ["calm", "cold"]),
        ({"text": "low"}, ["slow"]),
        ({"vector": [4, 0], "text": "lo", "k": 3}, ["loud", "slow"]),
        ({"id": "calm", "k": 1}, ["cold"]),
        ({"like": ["fast", [4, 1]], "k": 2}, ["fast", "loud"]),
        ({"like": [[4, 1]], "unlike": [[4, 0]], "k": 1}, ["cold"]),
        ({"vector": [0, 0], "k": 2, "filter": {"genre": "rock"}}, ["fast", "loud"]),
        ({"vector": [0, 0], "k": 2, "without": ["calm", "nobody"]}, ["cold", "slow"]),
        ({"vector": [0, 0], "filter": None, "without": None, "k": 1, "text": None}, ["calm"]),
    ],
)
def test_a_search_passes_on_what_was_given(
    client: httpx.Client, asked: dict[str, Any], found: list[str]
) -> None:
    assert ids(search(client, **asked)) == found


def test_weights_reach_the_component_and_an_explanation_comes_back(client: httpx.Client) -> None:
    weights = {"vector": 1.0, "text": 0.5}
    answer = search(client, vector=[0, 0], text="calm", weights=weights, explain=True)
    assert answer["hits"][0]["payload"]["weights"] == weights
    assert answer["explanation"]["plan"] == "exact"
    assert answer["explanation"]["effort"] == {"nprobe": 3}
    assert "explanation" not in search(client, vector=[0, 0])


@pytest.mark.parametrize(
    ("component", "asked", "says"),
    [
        ("points", {"vector": [0, 0], "filter": {"a": 1}}, "takes no filter here"),
        ("points", {"vector": [0, 0], "without": ["a"]}, "takes no without here; it takes k"),
        ("lines", {"text": "csv", "explain": True}, "takes no explain here"),
        ("songs", {"vector": [0, 0], "group_by": "genre"}, "it takes k, filter, without, weights"),
        ("songs", {"id": "calm", "without": ["a"]}, "takes no without here; it takes k, filter"),
        ("points", {"like": ["a"]}, "answers a vector or an id"),
        ("points", {"vector": [0, 0], "text": "a"}, "answers a vector or an id"),
        ("lines", {"vector": [0, 0], "text": "a"}, "answers a text"),
        ("songs", {"unlike": ["a"]}, "not none of them"),
        ("songs", {"vector": [0, 0], "unlike": ["a"]}, "unlike goes with like"),
        ("songs", {"id": "calm", "text": "a"}, "not id and text"),
        ("songs", {"like": []}, "like: "),
        ("songs", {"like": ["a"] * 101}, "like: "),
        ("songs", {"like": [7]}, "like.0"),
        ("songs", {"vector": [0, 0], "without": ["a"] * 1001}, "without: "),
        ("songs", {"vector": [0, 0], "filter": "genre"}, "filter: "),
        ("songs", {"vector": [0, 0], "diversity": 2}, "diversity: "),
        ("songs", {"vector": [0, 0], "weights": {"title": 1}}, "weights.title"),
        ("songs", {"vector": [0, 0], "weights": {"text": -1}}, "weights.text"),
        ("songs", {"vector": [0, 0], "explain": 1}, "explain: "),
    ],
)
def test_a_key_that_a_component_does_not_take_is_refused_by_its_name(
    client: httpx.Client, component: str, asked: dict[str, Any], says: str
) -> None:
    answer = client.post(f"/v1/components/{component}/search", json=asked)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_each_search_of_a_batch_has_an_answer_of_its_own(client: httpx.Client) -> None:
    asked = [
        {"vector": [0, 0], "k": 1},
        {"id": "nobody"},
        {"vector": [0, 0, 0]},
        {"text": "fast"},
        {"vector": [0, 0], "diversity": 0.5},
    ]
    answer = client.post(f"{SONGS}/search/batch", json={"queries": asked})
    assert answer.status_code == 200
    first, unknown, wrong, last, untaken = answer.json()["answers"]
    alone = search(client, vector=[0, 0], k=1)
    assert first == alone
    assert (unknown["status"], wrong["status"], untaken["status"]) == (404, 422, 422)
    assert "no entry 'nobody'" in unknown["detail"]
    assert ids(last) == ["fast"]


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([], "queries: "),
        ([{"id": "calm"}] * (MAX_QUERIES + 1), "queries: "),
        ([{"id": "calm"}, {"id": "calm", "k": 0}], "queries.1.k: "),
        ([{"id": "calm", "x": 1}], "queries.0.x: "),
        ([{}], "queries.0: "),
        ("calm", "queries: "),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(
    client: httpx.Client, queries: Any, says: str
) -> None:
    answer = client.post(f"{SONGS}/search/batch", json={"queries": queries})
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def raw(*vectors: list[float]) -> bytes:
    return np.array(vectors, dtype="<f4").tobytes()


def ask_raw(client: httpx.Client, path: str, body: bytes, **options: Any) -> httpx.Response:
    kind = {"content-type": "application/octet-stream"}
    return client.post(f"{SONGS}/{path}", content=body, headers=kind, params=options)


def test_a_vector_as_float32_values_finds_what_the_same_numbers_in_json_do(
    client: httpx.Client,
) -> None:
    options = {"k": 2, "filter": {"genre": "rock"}, "without": ["fast", "x"], "explain": True}
    given = {**options, "filter": json.dumps(options["filter"]), "explain": "true"}
    answer = ask_raw(client, "search", raw([3, 0.5]), **given)
    assert answer.status_code == 200, answer.text
    assert answer.json() == search(client, vector=[3, 0.5], **options)
    assert ids(answer.json()) == ["loud"]


def test_many_vectors_as_float32_values_are_a_batch(client: httpx.Client) -> None:
    answer = ask_raw(client, "search/batch", raw([0, 0], [4, 1]), queries=2, k=1)
    assert [ids(each) for each in answer.json()["answers"]] == [["calm"], ["loud"]]


@pytest.mark.parametrize(
    ("path", "body", "options", "says"),
    [
        ("search", b"", {}, "has 0 bytes"),
        ("search", b"12345", {}, "has 5 bytes"),
        ("search", raw([0, float("nan")]), {}, "a NaN or an infinity"),
        ("search", raw([0, float("inf")]), {}, "a NaN or an infinity"),
        ("search", raw([0, 0, 0]), {}, "a vector of length 2, not 3"),
        ("search", raw([0, 0]), {"k": 0}, "k: "),
        ("search", raw([0, 0]), {"k": "many"}, "k: "),
        ("search", raw([0, 0]), {"k": ["1", "2"]}, "'k' is given twice"),
        ("search", raw([0, 0]), {"filter": "{"}, "filter: "),
        ("search", raw([0, 0]), {"explain": "yes"}, "explain: "),
        ("search", raw([0, 0]), {"vector": "0"}, "unknown: 'vector'"),
        ("search", raw([0, 0]), {"queries": "1"}, "queries is for a batch"),
        ("search", raw([0] * 65_537), {}, "at most 65536 numbers"),
        ("search/batch", raw([0, 0], [1, 1]), {"queries": 3}, "3 vectors of one length"),
        ("search/batch", raw([0, 0]), {"queries": MAX_QUERIES + 1}, "queries: "),
        ("search/batch", raw([0, 0]), {"queries": 0}, "queries: "),
    ],
)
def test_float32_values_that_are_no_question_are_refused(
    client: httpx.Client, path: str, body: bytes, options: dict[str, Any], says: str
) -> None:
    answer = ask_raw(client, path, body, **options)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_a_body_in_json_has_no_options_in_the_address(client: httpx.Client) -> None:
    answer = client.post(f"{SONGS}/search?k=1", json={"vector": [0, 0]})
    assert answer.status_code == 422
    assert "the address has no options" in answer.json()["detail"]


def test_vectors_that_differ_in_nothing_else_are_searched_at_once(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search_many(
        self: ServedSongs, vectors: Any, *, k: int, max_payload_bytes: int
    ) -> list[Any]:
        assert max_payload_bytes > 0
        together.append(len(vectors))
        return [self._nearest(vector, k=k, filter_=None) for vector in vectors]

    together: list[int] = []
    monkeypatch.setattr(ServedSongs, "search_many", search_many, raising=False)
    answer = ask_raw(client, "search/batch", raw([0, 0], [4, 1], [4, 0]), queries=3, k=1)
    assert [ids(each) for each in answer.json()["answers"]] == [["calm"], ["loud"], ["fast"]]
    alike = [{"vector": [0, 0]}, {"vector": [4, 1]}]
    for queries in (alike, [*alike, {"text": "a"}], [*alike, {"vector": [0, 0], "k": 1}]):
        answer = client.post(f"{SONGS}/search/batch", json={"queries": queries})
        assert len(answer.json()["answers"]) == len(queries)
    assert together == [3, 2], "not where one differs"


def test_many_vectors_are_searched_at_once_only_where_their_payloads_have_a_limit() -> None:
    takes = dispatch._takes(VectorSearch.search_many)
    found = dispatch.search_many(_Counting(), np.zeros((2, 2), np.float32), {"k": 1})
    assert found == [[], []]
    limited = dispatch.search_many(
        _Counting(), np.zeros((2, 2), np.float32), {"k": 1}, max_payload_bytes=1
    )
    assert limited is None
    assert "k" in takes


class _Counting:
    def search_many(self, vectors: Any, *, k: int) -> list[list[Any]]:
        return [[] for _ in vectors][: k * len(vectors)]


def test_the_bytes_of_a_batch_are_those_of_all_its_answers(client: httpx.Client) -> None:
    queries = [{"vector": [0, 0], "k": 5}] * MAX_QUERIES
    answer = client.post(f"{SONGS}/search/batch", json={"queries": queries})
    assert len(answer.json()["answers"]) == MAX_QUERIES
    many = {"queries": [{"vector": [0] * (MAX_ELEMENTS // MAX_QUERIES)}] * MAX_QUERIES}
    assert client.post(f"{SONGS}/search/batch", json=many).status_code == 422
