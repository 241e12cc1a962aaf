"""Behind Sentinels a connection goes to whichever server is the primary."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import exceptions

from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import Tail
from indexrelay.streams.errors import BackendRefusedError, is_transient
from indexrelay.streams.keys import Keys
from indexrelay.streams.leases import Lease
from indexrelay.streams.publisher import publish
from tests.fixtures.logs import capture_logs
from tests.fixtures.sentinels import (
    PASSWORD,
    SENTINEL_PASSWORD,
    SERVICE,
    GuardedServers,
)
from tests.fixtures.servers import program_or_skip
from tests.streams.polling import eventually

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=["valkey", "redis", "redis62"])
def guarded(request: pytest.FixtureRequest) -> Iterator[GuardedServers]:
    program = program_or_skip(request.param)
    with tempfile.TemporaryDirectory(prefix="ir-") as folder:
        servers = GuardedServers(Path(folder), program)
        yield servers
        servers.stop()


def test_the_error_for_a_service_that_no_sentinel_watches_names_what_to_check(
    guarded: GuardedServers,
) -> None:
    url = guarded.url.replace(f"/{SERVICE}/", "/trakcs/")
    with (
        Connection.open(url, timeout_seconds=2) as connection,
        pytest.raises(exceptions.ConnectionError, match="named 'trakcs'") as refused,
    ):
        connection.commands.ping()
    assert PASSWORD not in str(refused.value)


def test_an_error_about_a_wrong_password_of_the_sentinels_does_not_show_it(
    guarded: GuardedServers,
) -> None:
    url = guarded.url.replace(SENTINEL_PASSWORD, "s3cret")
    with capture_logs() as logs, Connection.open(url, timeout_seconds=2) as connection:
        with pytest.raises(exceptions.ConnectionError, match="Authentication") as refused:
            connection.commands.ping()
        shown = f"{refused.value} {logs} {connection.commands!r}"
    assert "s3cret" not in shown
    assert PASSWORD not in shown


def test_after_a_failover_commands_and_reads_reach_the_new_primary(
    guarded: GuardedServers, keys: Keys
) -> None:
    with Connection.open(guarded.url, timeout_seconds=2, block_seconds=0.2) as connection:
        tail = Tail(connection, keys.reloads)
        lease = Lease(connection, keys.lease("index"), owner="me", ttl_seconds=60)
        assert tail.read(count=1, block_seconds=0).gap
        publish(connection, keys.reloads, b"before")
        assert lease.acquire()
        assert [each.raw for each in tail.read(count=9, block_seconds=0.2).deliveries] == [
            b"before"
        ]
        old = guarded.primary
        guarded.fail_over()
        eventually(lambda: guarded.primary not in (0, old), seconds=30)
        eventually(lambda: published(connection, keys.reloads, b"after"), seconds=30)
        seen: list[bytes | None] = []

        def arrived() -> bool:
            seen.extend(each.raw for each in tail.read(count=9, block_seconds=0.2).deliveries)
            return b"after" in seen

        eventually(arrived, seconds=30)

        def held() -> bool:
            """For a while the old primary still takes leases, which go with what it forgets."""
            mine = lease.acquire()
            return mine and guarded.ask(guarded.primary, "GET", keys.lease("index")) == "me"

        eventually(held)
        assert guarded.ask(guarded.primary, "ROLE")[0] == "master"


def published(connection: Connection, key: str, raw: bytes) -> bool:
    """Whether the event was taken: as long as nobody is the primary it is not, and that passes."""
    try:
        return bool(publish(connection, key, raw))
    except BackendRefusedError as error:
        if is_transient(error):
            return False
        raise
