"""Redis servers with the shipped ACL file, one for each program that is on the machine."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from deploy.redis.render_acl import render
from indexrelay.streams import Connection, Keys
from tests.deploy.compose import ROOT
from tests.fixtures.servers import program_or_skip

PASSWORDS = {
    f"{name.upper()}_PASSWORD": f"{name}-0123456789abcdef"
    for name in ("health", "producer", "reader_a", "reader_b", "rebuilder")
}
NAMESPACE = "music"
ConnectAs = Callable[[str], Connection]
START_SECONDS = 20.0


@pytest.fixture(scope="session", params=["redis", "valkey"])
def guarded_socket(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The socket of a server that runs with the shipped configuration and the rendered ACL file."""
    program = program_or_skip(request.param)
    with tempfile.TemporaryDirectory(prefix="acl-") as name:
        folder = Path(name)
        template = (ROOT / "deploy" / "redis" / "users.acl").read_text(encoding="utf-8")
        environ = {**PASSWORDS, "INDEXRELAY_NAMESPACE": NAMESPACE}
        (folder / "users.acl").write_text(render(template, environ), encoding="utf-8")
        command: list[str | Path] = [
            program,
            ROOT / "deploy" / "redis" / "redis.conf",
            "--port",
            "0",
        ]
        command += ["--unixsocket", folder / "s", "--dir", folder]
        command += ["--aclfile", folder / "users.acl"]
        log = folder / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            _wait_until_it_answers(server, folder / "s", log)
            yield folder / "s"
        finally:
            server.kill()
            server.wait()


def client_of(socket: Path, *, username: str | None, password: str | None) -> Redis:
    """A bare client that tries once."""
    return Redis(
        unix_socket_path=str(socket),
        username=username,
        password=password,
        retry=Retry(NoBackoff(), 0),
    )


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    password = PASSWORDS["HEALTH_PASSWORD"]
    with client_of(socket, username="health", password=password) as redis:
        while True:
            with contextlib.suppress(RedisError):
                redis.ping()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.01)
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()


@pytest.fixture(scope="session")
def connect_as(guarded_socket: Path) -> Iterator[ConnectAs]:
    """A connection as one of the users, kept for the session."""
    opened: dict[str, Connection] = {}

    def connect(user: str) -> Connection:
        if user not in opened:
            password = PASSWORDS[f"{user.upper()}_PASSWORD"]
            opened[user] = Connection.open(f"unix://{user}:{password}@{quote(str(guarded_socket))}")
        return opened[user]

    yield connect
    for connection in opened.values():
        connection.close()


@pytest.fixture
def keys() -> Keys:
    return Keys(NAMESPACE)
