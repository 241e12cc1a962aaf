"""A tenant's token never gets another tenant's entry, whatever is asked: over real components.

What the service does with a forced filter is tested in ``tests/service/test_tokens.py``.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.service.app import create_app
from indexrelay.service.tokens import digest_of, new_token
from indexrelay.testing import Pipeline
from tests.service.app_server import running

DIMENSION = 8
ENTRIES = 60
WORDS = ("calm", "loud", "fast")
TOKEN, WHOLE = new_token(), new_token()
HTTP = HttpSettings.model_validate(
    {
        "tokens": {
            "shop": {"sha256": digest_of(TOKEN), "filter": {"tenant": "shop"}},
            "whole": {"sha256": digest_of(WHOLE)},
        }
    }
)
SEARCHABLE = ("similar", "words", "find")
MOVED = range(12)
"""They get another tenant after the release: what is served of it still has the one before."""
TENANTS_IN_TURN = ("shop", "bank", "club")


def tenant_of(row: int, *, released: bool = False) -> str:
    moved = row in MOVED and not released
    return TENANTS_IN_TURN[(row + moved) % 3]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service over indexes of each kind, with entries in base and delta, and live ones."""
    folder = tmp_path_factory.mktemp("tenants")
    declared = Settings.model_validate(
        {
            "namespace": "tenants",
            "data_dir": folder,
            "reader": {"start_spread_seconds": 0},
            "live": {"keys": ["k" * 32]},
            "collections": {
                "songs": {
                    "dimension": DIMENSION,
                    "metric": "l2",
                    "live": True,
                    "filterable": {"tenant": "keyword", "row": "number"},
                }
            },
            "components": {
                "similar": {"kind": "vector_index", "from": "songs", "index": "Flat"},
                "words": {"kind": "text_index", "from": "songs"},
                "find": {"kind": "search", "from": "songs", "vector": {"index": "Flat"}},
            },
        }
    )
    random = np.random.default_rng(0)
    pipeline = Pipeline(declared, folder)
    for rows in (range(ENTRIES - 6), range(ENTRIES - 6, ENTRIES)):
        with pipeline.producer.batch("songs") as batch:
            batch.upsert(
                [f"song-{row}" for row in rows],
                random.normal(size=(len(rows), DIMENSION)).astype(np.float32),
                texts=[f"{WORDS[row % 3]} {WORDS[row % 2]}" for row in rows],
                payloads=[{"tenant": tenant_of(row, released=True), "row": row} for row in rows],
            )
        pipeline.rebuild()
    with pipeline.producer.batch("songs") as batch:
        payloads = [{"tenant": tenant_of(row), "row": row} for row in MOVED]
        batch.set_payloads([f"song-{row}" for row in MOVED], payloads)
    reader = pipeline.reader("web-1")
    reader.step()
    with reader.acquire() as snapshot:
        for component in SEARCHABLE:
            [moved] = snapshot[component].get(["song-2"])
            assert moved.payload["tenant"] == "shop"
    with running(create_app(reader, HTTP)) as asked:
        yield asked
    pipeline.close()


def ask(client: httpx.Client, path: str, body: Any, *, token: str = TOKEN) -> httpx.Response:
    return client.post(
        f"/v1/components/{path}", json=body, headers={"authorization": f"Bearer {token}"}
    )


def entries_in(answer: Any) -> Iterator[tuple[str, Any]]:
    """Each entry of an answer, wherever it stands in it."""
    if isinstance(answer, dict):
        if {"id", "payload"} <= answer.keys():
            yield answer["id"], answer["payload"]
        for value in answer.values():
            yield from entries_in(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from entries_in(value)


IDS = st.integers(0, ENTRIES + 1).map("song-{}".format)
VECTORS = st.lists(st.floats(-3, 3, width=32), min_size=DIMENSION, max_size=DIMENSION)
TENANTS = st.sampled_from([*TENANTS_IN_TURN, "nobody"])
CONDITIONS = st.one_of(
    st.fixed_dictionaries({"tenant": TENANTS}),
    st.fixed_dictionaries({"tenant": st.fixed_dictionaries({"$ne": TENANTS})}),
    st.fixed_dictionaries({"tenant": st.fixed_dictionaries({"$in": st.lists(TENANTS)})}),
    st.fixed_dictionaries({"row": st.fixed_dictionaries({"$gte": st.integers(0, ENTRIES)})}),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)
OPTIONS = {
    "k": st.integers(1, 100),
    "filter": FILTERS,
    "without": st.lists(IDS, max_size=3),
    "group_by": st.sampled_from(["tenant", "row"]),
    "explain": st.just(False),
}
TEXTS = st.sampled_from([*WORDS, "calm loud", "nothing"])
SEARCHES = st.one_of(
    *(
        st.fixed_dictionaries(asked, optional=OPTIONS)
        for asked in (
            {"vector": VECTORS},
            {"text": TEXTS},
            {"vector": VECTORS, "text": TEXTS},
            {"id": IDS},
            {"like": st.lists(IDS | VECTORS, min_size=1, max_size=3)},
            {
                "like": st.lists(IDS | VECTORS, min_size=1, max_size=3),
                "unlike": st.lists(IDS | VECTORS, min_size=1, max_size=3),
            },
        )
    )
)
REQUESTS = st.one_of(
    st.tuples(st.just("search"), SEARCHES),
    st.tuples(
        st.just("search/batch"),
        st.fixed_dictionaries({"queries": st.lists(SEARCHES, min_size=1, max_size=3)}),
    ),
    st.tuples(
        st.just("entries"), st.fixed_dictionaries({"ids": st.lists(IDS, min_size=1, max_size=5)})
    ),
    st.tuples(
        st.just("neighbours"),
        st.fixed_dictionaries(
            {"ids": st.lists(IDS, min_size=1, max_size=2), "k": st.integers(1, 50)}
        ),
    ),
    st.tuples(
        st.just("scroll"),
        st.fixed_dictionaries(
            {}, optional={"filter": FILTERS, "after": IDS, "limit": st.integers(1, 100)}
        ),
    ),
    st.tuples(st.just("count"), st.fixed_dictionaries({}, optional={"filter": FILTERS})),
)


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(component=st.sampled_from(SEARCHABLE), request=REQUESTS)
def test_whatever_a_tenant_asks_it_never_gets_anothers_entry(
    client: httpx.Client, component: str, request: tuple[str, dict[str, Any]]
) -> None:
    what, body = request
    answer = ask(client, f"{component}/{what}", body)
    assert answer.status_code in (200, 404, 422), answer.text
    for entry_id, payload in entries_in(answer.json()):
        assert payload["tenant"] == "shop", entry_id
        assert tenant_of(int(entry_id.removeprefix("song-"))) == "shop"
    if answer.status_code == 200 and what == "count":
        assert answer.json()["count"] <= ENTRIES // 3


@pytest.mark.parametrize("component", SEARCHABLE)
def test_a_tenant_sees_all_that_is_its_own_as_if_there_were_nothing_else(
    client: httpx.Client, component: str
) -> None:
    rows = [row for row in range(ENTRIES) if tenant_of(row) == "shop"]
    own = sorted(f"song-{row}" for row in rows)
    assert ask(client, f"{component}/count", {}).json()["count"] == len(own)
    page = ask(client, f"{component}/scroll", {"limit": ENTRIES}).json()
    assert [each["id"] for each in page["entries"]] == own
    assert page["after"] is None
    got = ask(client, f"{component}/entries", {"ids": ["song-12", "song-13", "song-59"]}).json()
    assert [each and each["id"] for each in got["entries"]] == ["song-12", None, None]
    moved = ask(client, f"{component}/entries", {"ids": ["song-0", "song-2"]}).json()["entries"]
    assert [each and each["id"] for each in moved] == [None, "song-2"]
    whole = ask(client, f"{component}/count", {}, token=WHOLE).json()
    assert whole["count"] == ENTRIES


@pytest.mark.parametrize(
    ("component", "asked"),
    [
        ("similar", {"id": "song-{}"}),
        ("similar", {"like": ["song-{}"]}),
        ("find", {"id": "song-{}"}),
        ("find", {"like": ["song-12"], "unlike": ["song-{}"]}),
    ],
)
def test_an_id_of_another_is_answered_as_one_that_is_not_there(
    client: httpx.Client, component: str, asked: dict[str, Any]
) -> None:
    def answered(row: int) -> tuple[int, str]:
        body = {
            key: value.format(row)
            if isinstance(value, str)
            else [each.format(row) for each in value]
            for key, value in asked.items()
        }
        answer = ask(client, f"{component}/search", body)
        return answer.status_code, answer.text.replace(f"song-{row}", "ID")

    assert answered(13) == answered(1000)
    assert answered(13)[0] == 404
    assert answered(15)[0] == 200
