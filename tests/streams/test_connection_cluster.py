"""A node of a Redis Cluster is called that, whatever it answers, and the answer says what to do."""

from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from indexrelay.streams import Keys, current_release, is_transient, publish
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError
from tests.fixtures.refusing import RefusingServer

REPLIES = {
    "MOVED": "MOVED 8384 127.0.0.1:7001",
    "ASK": "ASK 8384 127.0.0.1:7001",
    "CROSSSLOT": "CROSSSLOT Keys in request don't hash to the same slot",
    "CLUSTERDOWN": "CLUSTERDOWN Hash slot not served",
}


@pytest.fixture(params=REPLIES)
def node(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    node = RefusingServer(REPLIES[request.param])
    node.start()
    yield request.param, node.url
    node.stop()


def test_every_refusal_of_a_cluster_is_explained_with_what_to_do(node: tuple[str, str]) -> None:
    word, url = node
    keys = Keys("indexrelay")
    with Connection.open(url, timeout_seconds=2) as connection:
        with pytest.raises(ResponseError) as read:
            current_release(connection, keys)
        with pytest.raises(BackendRefusedError) as written:
            publish(connection, keys.events, b"{}")
    for said in (str(read.value), str(written.value)):
        assert "cluster" in said.lower()
        assert "cluster-enabled no" in said
    assert is_transient(read.value) is (word == "CLUSTERDOWN")
