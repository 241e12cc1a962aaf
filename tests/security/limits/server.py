"""How many connections Redis takes, and for how long an idle one stays."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from redis import Redis

from indexrelay.streams import Connection, EmbeddedServer
from tests.fixtures.acl import DEPLOY
from tests.security.limits.table import Row, exercises


def shipped(setting: str) -> int:
    """The number that the configuration of the containers gives to a setting."""
    lines = (DEPLOY / "redis" / "redis.conf").read_text(encoding="utf-8").splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{setting} ")]
    return int(value)


@contextmanager
def embedded(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The URL of an embedded server of its own, and a client that may change its settings."""
    folder: Path = request.getfixturevalue("server_folder")
    with EmbeddedServer(Path(tempfile.mkdtemp(dir=folder))) as server:
        url = server.start()
        with Redis.from_url(url, decode_responses=True) as admin:
            yield url, admin


@exercises("connections to Redis")
def _connections(row: Row, request: pytest.FixtureRequest) -> None:
    few = 5
    assert shipped("maxclients") == row.number
    with embedded(request) as (url, admin), ExitStack() as stack:
        assert int(admin.config_get("maxclients")["maxclients"]) == row.number
        admin.config_set("maxclients", few)
        while admin.info("clients")["connected_clients"] > 1:
            threading.Event().wait(0.01)
        answers = []
        for _ in range(few):  # one place is the other client's
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(unquote(url.removeprefix("unix://")))
            with suppress(BrokenPipeError):  # the refused one has its answer already
                client.sendall(b"PING\r\n")
            answers.append(client.recv(100))
        assert answers[:-1] == [b"+PONG\r\n"] * (few - 1)
        assert answers[-1].startswith(b"-ERR max number of clients")


@exercises("seconds for which a connection to Redis may be idle")
def _idle(row: Row, request: pytest.FixtureRequest) -> None:
    assert shipped("timeout") == row.number
    with embedded(request) as (url, admin), Connection.open(url) as connection:
        assert int(admin.config_get("timeout")["timeout"]) == row.number
        first = connection.commands.client_id()
        admin.config_set("timeout", 1)
        while first in {int(each["id"]) for each in admin.client_list()}:
            threading.Event().wait(0.1)
        assert connection.commands.client_id() != first
