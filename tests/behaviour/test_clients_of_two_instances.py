"""Clients of two instances of a reader service, which are processes, as is the rebuilder."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexrelay.producers import Producer
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings_file import load_settings
from indexrelay.service.client import Client, SearchResult
from indexrelay.streams import Connection, EmbeddedServer, Keys, members_of
from tests.fixtures.warm_process import WarmProcess
from tests.streams.polling import eventually

NAMES = ("north", "south")
DIMENSION = 8
RELEASED = 60
CLIENTS = 5
WRITES = 4
VECTORS = np.random.default_rng(5).standard_normal((RELEASED, DIMENSION)).astype(np.float32)
SETTINGS = """
data_dir = "data"
[redis]
url = "{url}"
[live]
keys = ["kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"]
[http]
writes = true
[rebuilder]
quiet_seconds = 0.05
[reader]
start_spread_seconds = 0.0
[collections.songs]
dimension = 8
metric = "l2"
live = true
filterable = {{ by = "keyword" }}
[components.songs_index]
kind = "search"
from = "songs"
vector = {{ index = "Flat" }}
"""

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of both instances, while a rebuilder makes releases of what is written."""
    folder = tmp_path_factory.mktemp("two")
    with ExitStack() as closing:
        server = closing.enter_context(EmbeddedServer(folder))
        config = folder / "indexrelay.toml"
        url = server.start()
        config.write_text(SETTINGS.format(url=url), encoding="utf-8")
        settings = load_settings(config, environ={})
        producer = closing.enter_context(Producer.open(settings))
        roles = [["rebuilder", "--id", "builder"]]
        roles += [["reader", "--id", name, "--uds", str(folder / name)] for name in NAMES]
        start(closing, config, roles)
        ids = [f"released {row}" for row in range(RELEASED)]
        with producer.batch("songs") as batch:
            batch.upsert(ids, VECTORS, texts=[f"the song number {row}" for row in range(RELEASED)])
        connection = closing.enter_context(Connection.open(url))
        eventually(lambda: ready(connection) == {*NAMES})
        yield f"unix:{folder / NAMES[0]}", f"unix:{folder / NAMES[1]}"


def start(closing: ExitStack, config: Path, roles: list[list[str]]) -> None:
    """Start processes, which end together."""
    processes = [
        WarmProcess(["indexrelay.console.main", *role, "--config", str(config)]) for role in roles
    ]
    for process in processes:
        closing.callback(process.wait, 20)
    for process in processes:
        closing.callback(process.terminate)


def ready(connection: Connection) -> set[str]:
    """The readers that serve something."""
    found = members_of(connection, Keys("indexrelay"), ReaderState).known
    return {state.reader for state in found.values() if state.components}


def together(count: int, work: Callable[[int], None]) -> None:
    """Each on a thread of its own; raises what any of them raises."""
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(work, range(count)))


def drawn(name: str) -> np.ndarray:
    """The vector of an entry."""
    rng = np.random.default_rng([*name.encode()])
    return rng.standard_normal(DIMENSION).astype(np.float32)


def write_and_find(mine: Client, other: Client, name: str) -> None:
    """Write through one instance, and find it at once through the other, by both of its ways."""
    mine.upsert("songs", [name], drawn(name)[None, :], texts=[name], payloads=[{"by": name}])
    other.merge_session(mine.session)
    [nearest] = other.search("songs_index", vector=drawn(name), k=1).hits
    assert (nearest.id, nearest.payload) == (name, {"by": name})
    assert other.search("songs_index", text=name, k=1).hits[0].id == name


def test_ten_clients_that_search_get_the_same_answers(addresses: tuple[str, str]) -> None:
    answers: list[list[SearchResult]] = [[] for _ in range(2 * CLIENTS)]

    def search(number: int) -> None:
        with Client(addresses[number % 2]) as client:
            answers[number] += [
                client.search("songs_index", vector=vector, k=5) for vector in VECTORS[:5]
            ]
            answers[number] += [client.search("songs_index", text="song 7", k=5)]

    together(2 * CLIENTS, search)
    first, *others = ([answer.hits for answer in each] for each in answers)
    assert [hits[0].id for hits in first[:5]] == [f"released {row}" for row in range(5)]
    assert all(each == first for each in others)


def test_what_one_client_wrote_another_finds_at_once_through_the_other_instance(
    addresses: tuple[str, str],
) -> None:
    north, south = addresses
    for number in range(WRITES):
        with Client(north) as mine, Client(south) as other:
            write_and_find(mine, other, f"a{number}")
            write_and_find(other, mine, f"b{number}")
            mine.delete("songs", [f"b{number}"])
            other.merge_session(mine.session)
            assert other.get("songs_index", [f"b{number}"]).entries == (None,)


def test_five_clients_write_while_five_search_and_nothing_is_lost(
    addresses: tuple[str, str],
) -> None:
    def write_or_search(number: int) -> None:
        here, there = addresses if number % 2 else addresses[::-1]
        with Client(here) as mine, Client(there) as other:
            for turn in range(WRITES):
                if number < CLIENTS:
                    write_and_find(mine, other, f"w{number}x{turn}")
                    continue
                vector = VECTORS[number + turn]
                [hit] = mine.search("songs_index", vector=vector, k=1).hits
                assert hit.id == f"released {number + turn}"

    together(2 * CLIENTS, write_or_search)
    names = [f"w{number}x{turn}" for number in range(CLIENTS) for turn in range(WRITES)]
    for address in addresses:
        with Client(address) as client:
            found = client.get("songs_index", names, consistency="strong").entries
            assert [each and each.text for each in found] == names
            for name in names:
                assert client.search("songs_index", vector=drawn(name), k=1).hits[0].id == name


SEARCH, ENTRIES = "/v1/components/songs_index/search", "/v1/collections/songs/entries"
RIGHT = [0.0] * DIMENSION
BAD: tuple[tuple[str, str, Any, int, str], ...] = (
    ("POST", SEARCH, {"vector": RIGHT[1:]}, 422, "vector"),
    ("POST", SEARCH, b'{"vector": [NaN, 0, 0, 0, 0, 0, 0, 0]}', 422, "the body is no JSON"),
    ("POST", SEARCH, {"vector": RIGHT, "k": 0}, 422, "k: "),
    ("POST", SEARCH, {"vector": RIGHT, "k": 10**6}, 422, "k: "),
    ("POST", SEARCH, {"vector": RIGHT, "filter": {"tone": 1}}, 422, "'tone'"),
    ("POST", SEARCH, b'{"vector": [0, 0', 422, "the body is no JSON"),
    ("POST", "/v1/components/nothing/search", {"vector": RIGHT}, 404, "'nothing'"),
    (
        "PUT",
        "/v1/collections/nothing/entries",
        {"entries": [{"id": "a", "vector": RIGHT}]},
        404,
        "'nothing'",
    ),
    ("PUT", ENTRIES, {"entries": [{"id": "a", "vector": RIGHT[1:]}]}, 422, "vector of 7 numbers"),
    ("PUT", ENTRIES, {"entries": [{"id": "a", "vector": ["x"]}]}, 422, "entries.0.vector.0"),
    ("PUT", ENTRIES, b'{"entries": [', 422, "the body is no JSON"),
)


def test_bad_input_is_refused_with_the_name_of_the_field(addresses: tuple[str, str]) -> None:
    socket_file = addresses[0].removeprefix("unix:")
    transport = httpx.HTTPTransport(uds=socket_file)
    with httpx.Client(base_url="http://localhost", transport=transport) as client:
        for method, path, body, status, says in BAD:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            answer = client.request(method, path, content=content, headers=headers)
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert says in answer.json()["detail"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_file)
        head = f"PUT {ENTRIES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
