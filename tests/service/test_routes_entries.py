"""What a component says of its entries."""

from typing import Any

import httpx
import pytest

from indexrelay.service.bodies import MAX_IDS, MAX_QUERIES

SONGS = "/v1/components/songs"
ANSWERING = {"component", "release", "version"}


def asked(client: httpx.Client, what: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{SONGS}/{what}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found.keys() >= ANSWERING
    listed = client.get("/v1/components").json()
    assert found["version"] == listed["components"]["songs"]["version"]
    assert found["release"] == listed["release"]
    return found


def test_entries_come_by_their_ids_in_the_order_asked_for_and_null_where_there_is_none(
    client: httpx.Client,
) -> None:
    entries = asked(client, "entries", ids=["loud", "nobody", "calm", "loud"])["entries"]
    assert [each and each["id"] for each in entries] == ["loud", None, "calm", "loud"]
    assert entries[0] == {"id": "loud", "payload": {"genre": "rock"}, "text": "about loud"}
    by_address = client.get(f"{SONGS}/entries", params={"id": ["loud", "nobody", "calm", "loud"]})
    assert by_address.json()["entries"] == entries


def test_entries_are_counted(client: httpx.Client) -> None:
    assert asked(client, "count")["count"] == 5
    assert asked(client, "count", filter={"genre": "rock"})["count"] == 2


def test_entries_come_page_by_page(client: httpx.Client) -> None:
    seen: list[str] = []
    after = None
    for _ in range(3):
        page = asked(client, "scroll", limit=2, **({} if after is None else {"after": after}))
        seen += [entry["id"] for entry in page["entries"]]
        after = page["after"]
    assert (seen, after) == (["calm", "cold", "fast", "loud", "slow"], None)
    page = asked(client, "scroll", filter={"genre": "rock"}, after="fast")
    assert [entry["id"] for entry in page["entries"]] == ["loud"]


def test_neighbours_come_for_each_of_many(client: httpx.Client) -> None:
    found = asked(client, "neighbours", ids=["calm", "loud"], k=1)["neighbours"]
    assert {name: [hit["id"] for hit in hits] for name, hits in found.items()} == {
        "calm": ["cold"],
        "loud": ["fast"],
    }
    answer = client.post(f"{SONGS}/neighbours", json={"ids": ["calm", "nobody"]})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("component", "what", "body", "says"),
    [
        ("points", "entries", {"ids": ["a"]}, "answers no get"),
        ("points", "count", {}, "answers no count"),
        ("page", "scroll", {}, "answers no scroll"),
        ("lines", "neighbours", {"ids": ["a"]}, "answers no neighbours"),
        ("songs", "entries", {"ids": []}, "ids: "),
        ("songs", "entries", {"ids": ["a"] * (MAX_IDS + 1)}, "ids: "),
        ("songs", "entries", {"ids": "calm"}, "ids: "),
        ("songs", "entries", {}, "ids: "),
        ("songs", "count", {"filter": []}, "filter: "),
        ("songs", "scroll", {"limit": MAX_IDS + 1}, "limit: "),
        ("songs", "scroll", {"after": ""}, "after: "),
        ("songs", "neighbours", {"ids": ["a"] * (MAX_QUERIES + 1)}, "ids: "),
        ("songs", "count", {"colour": 1}, "unknown: 'colour'; there are filter"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    client: httpx.Client, component: str, what: str, body: dict[str, Any], says: str
) -> None:
    answer = client.post(f"/v1/components/{component}/{what}", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("ids", [[], [""], ["a"] * (MAX_IDS + 1)])
def test_ids_in_the_address_are_checked_like_those_in_a_body(
    client: httpx.Client, ids: list[str]
) -> None:
    answer = client.get(f"{SONGS}/entries", params={"id": ids})
    assert answer.status_code == 422
    assert len(answer.content) < 1_300


def test_a_component_that_is_not_there_has_no_entries(client: httpx.Client) -> None:
    answer = client.post("/v1/components/nothing/count", json={})
    assert answer.status_code == 404
