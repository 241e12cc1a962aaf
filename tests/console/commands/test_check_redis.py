"""What prevents the use of Redis with these settings: `check` and `status` report it, exit 3."""

import json
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.console.conftest import Run
from tests.fixtures.refusing import RefusingServer
from tests.fixtures.servers import PrivateServer, program_or_skip

pytestmark = pytest.mark.server

CONFIG = """
[redis]
url = "{url}"
timeout_seconds = 0.3

[collections.tracks]
dimension = 3
"""
SECRET = "hidden-7c1"
REFUSED = re.compile(r"(?<=to run the ')\w+(?=' command)")
USERS = {
    "whole": "~* +@all",
    "job": "+strlen %R~{indexrelay}:reader:*",
    "reader": "+get %R~{indexrelay}:release",
    "nobody": "+ping",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One that knows a few users, and lets in nobody without a password."""
    with tempfile.TemporaryDirectory(prefix="ir-") as folder:
        server = PrivateServer(Path(folder), program_or_skip("valkey"))
        with Redis.from_url(server.url) as client:
            for user, rights in USERS.items():
                rules = ("on", f">{SECRET}", *rights.split())
                client.execute_command("ACL", "SETUSER", user, *rules)
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield server
        with whole(server) as client:
            client.execute_command("ACL", "SETUSER", "default", "on")
        server.stop()


@contextmanager
def whole(server: PrivateServer) -> Iterator[Any]:
    with Redis.from_url(url_of(server, "whole")) as client:
        yield client


def url_of(server: PrivateServer, user: str, password: str = SECRET, database: int = 0) -> str:
    login = f"{user}:{password}@" if user else ""
    return f"{server.url.replace('unix://', f'unix://{login}')}?db={database}"


@contextmanager
def as_user(server: PrivateServer, *login: Any) -> Iterator[str]:
    yield url_of(server, *login)


@contextmanager
def evicting(server: PrivateServer) -> Iterator[str]:
    with whole(server) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield url_of(server, "whole")
        client.config_set("maxmemory-policy", "noeviction")


@contextmanager
def stalled(server: PrivateServer) -> Iterator[str]:
    server.stall()
    yield url_of(server, "whole")
    server.go_on()


@contextmanager
def refusing(refusal: str) -> Iterator[str]:
    node = RefusingServer(refusal)
    node.start()
    yield node.url
    node.stop()


@contextmanager
def nobody_listens() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"redis://x:{SECRET}@127.0.0.1:{port}"


Trouble = Callable[[PrivateServer], Any]
TROUBLES: dict[str, tuple[Trouble, str, str]] = {
    "nobody listens": (lambda _: nobody_listens(), "Connection refused", "correct redis.url"),
    "it does not answer": (stalled, "Timeout reading", "redis.timeout_seconds"),
    "wrong password": (
        lambda server: as_user(server, "whole", "guess-9"),
        "invalid username-password pair",
        "redis.url = redis://USER:PASSWORD@HOST:PORT/DB",
    ),
    "unknown user": (
        lambda server: as_user(server, "who"),
        "invalid username-password pair",
        "redis.url = redis://USER:PASSWORD@HOST:PORT/DB",
    ),
    "no password": (
        lambda server: as_user(server, ""),
        "Authentication required",
        "redis.url = redis://USER:PASSWORD@HOST:PORT/DB",
    ),
    "no permission": (
        lambda server: as_user(server, "nobody"),
        "no permissions",
        "deploy/redis/users.acl has it all",
    ),
    "no such database": (
        lambda server: as_user(server, "whole", SECRET, 99),
        "DB index is out of range",
        "correct redis.url",
    ),
    "a node of a cluster": (
        lambda _: refusing("MOVED 8384 127.0.0.1:7001"),
        "a node of a Redis Cluster",
        "cluster-enabled no",
    ),
    "a cluster that is down": (
        lambda _: refusing("CLUSTERDOWN Hash slot not served"),
        "a node of a Redis Cluster that is down: Hash slot not served",
        "cluster-enabled no",
    ),
    "it loads its file": (lambda _: refusing("LOADING it reads"), "it reads", "try again"),
    "it evicts": (
        evicting,
        "with maxmemory-policy allkeys-lru Redis may drop events",
        "set maxmemory-policy noeviction",
    ),
}


def problems(run: Run, door: str, config: Path) -> list[dict[str, Any]]:
    told = run(door, "--json", "--config", str(config))
    assert told.err == ""  # a line of the log beside the answer would say it twice
    document = json.loads(told.out)
    found = [each for each in document["problems"] if each["code"].startswith("redis_")]
    assert (told.code == 3) >= bool(found)
    assert not any(secret in told.out for secret in (SECRET, "guess-9"))
    return found


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_prevents_the_use_of_redis_is_reported_with_what_to_do(
    run: Run, server: PrivateServer, tmp_path: Path, trouble: str
) -> None:
    make, what, advice = TROUBLES[trouble]
    config = tmp_path / "indexrelay.toml"
    with make(server) as url:
        config.write_text(CONFIG.format(url=url))
        [problem] = problems(run, "check", config)
        [same] = problems(run, "status", config)
    # Each names the first command that it was refused.
    assert {**same, "what": REFUSED.sub("…", same["what"])} == {
        **problem,
        "what": REFUSED.sub("…", problem["what"]),
    }
    assert what in problem["what"]
    assert advice in problem["what"] + problem["advice"]


@pytest.mark.parametrize("user", ["whole", "job", "reader"])
def test_a_user_with_the_permissions_of_one_role_is_accepted(
    run: Run, server: PrivateServer, tmp_path: Path, user: str
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG.format(url=url_of(server, user)))
    said = run("check", "--config", str(config))
    assert (said.code, "Redis answers" in said.out) == (0, True)
    with whole(server) as client:  # a key that is not ours is no matter of reaching it
        client.lpush("{indexrelay}:release", "x")
        assert problems(run, "check", config) == []
        client.flushall()
