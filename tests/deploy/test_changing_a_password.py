"""A password that leaked is changed as docs/security.md says, without a restart of Redis."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from deploy.redis.render_acl import render
from indexrelay.streams import Connection, Keys, Presence
from tests.fixtures.acl import (
    ADMIN_LINE,
    DEPLOY,
    NAMESPACE,
    PASSWORDS,
    ConnectAs,
    password_of,
    url_of,
)

NEW = "another-0123456789abcdef"
pytestmark = pytest.mark.server


@pytest.fixture
def acl_file(guarded_socket: Path, connect_as: ConnectAs) -> Iterator[Path]:
    """What the server has read; put back at the end."""
    file = guarded_socket.parent / "users.acl"
    before = file.read_text(encoding="utf-8")
    yield file
    file.write_text(before, encoding="utf-8")
    operator: Any = connect_as("operator").commands
    operator.acl_load()


def rendered(**passwords: str) -> str:
    template = (DEPLOY / "redis" / "users.acl").read_text(encoding="utf-8")
    environ = {**PASSWORDS, **passwords, "INDEXRELAY_NAMESPACE": NAMESPACE}
    return render(template, environ) + ADMIN_LINE


def ping_again(client: Any) -> None:
    """Ping, whatever connections were ended before."""
    for _ in range(10):
        try:
            client.ping()
        except AuthenticationError:  # a ConnectionError, too
            raise
        except RedisConnectionError:
            continue


def test_whoever_has_the_old_password_is_out_and_the_others_stay(
    acl_file: Path, guarded_socket: Path, connect_as: ConnectAs
) -> None:
    keys, operator = Keys(NAMESPACE), connect_as("operator")
    intruder: Any = connect_as("reader_a").commands
    other = Presence(connect_as("reader_b"), keys, "reader")
    assert intruder.ping()
    acl_file.write_text(rendered(READER_A_PASSWORD=NEW), encoding="utf-8")
    commands: Any = operator.commands
    commands.acl_load()
    ping_again(commands)  # Redis 7.0 may end everyone's connections with it, a moment later
    commands.execute_command("CLIENT", "KILL", "USER", "reader_a")
    with pytest.raises(AuthenticationError):
        ping_again(intruder)
    other.publish("reader_b", b"{}", ttl_seconds=60)
    other.remove("reader_b")
    new = url_of(guarded_socket, "reader_a").replace(password_of("reader_a"), NEW)
    with Connection.open(new) as connection:
        assert connection.commands.ping()
