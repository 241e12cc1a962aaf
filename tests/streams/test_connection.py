"""Connections keep their shape and their secrets, whatever the URL says."""

import os

import pytest
from redis import exceptions

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError, RedisUrlError, is_transient, refusal_code
from indexrelay.streams.keys import Keys
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import ServerFactory

AWAY = "unix:///nowhere/server.sock"


def test_a_server_that_is_away_is_no_error_yet() -> None:
    with (
        capture_logs() as logs,
        Connection.open(AWAY) as connection,
        pytest.raises(exceptions.ConnectionError),
    ):
        connection.commands.ping()
    assert [line["event"] for line in logs] == ["redis.away"]


def test_a_url_cannot_change_what_the_reads_rely_on() -> None:
    url = AWAY + "?protocol=3&decode_responses=1&socket_timeout=0.1&retry_on_timeout=1&db=2"
    with Connection.open(url, timeout_seconds=5, block_seconds=1) as connection:
        blocking = connection.blocking.connection_pool.connection_kwargs
        commands = connection.commands.connection_pool.connection_kwargs
    assert (blocking["socket_timeout"], commands["socket_timeout"]) == (6, 5)
    for settings in (blocking, commands):
        assert settings["protocol"] == 2
        assert settings["decode_responses"] is False
        assert settings["retry"].get_retries() == 0
        assert settings["db"] == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@host:6379",
        "redis://user:s3cret/x@host:6379/0",
        "redis://user:s3cret@host:notaport/0",
        "redis://user:s3cret@host:6379/0?socket_keepalive_options=x&max_connections=s3cret",
        "redis://user:s3cret@host:6379/0?s3cret=1",
        "redis+sentinel://user:s3cret@host:26379",
        "redis+sentinel://host:26379/service?sentinel_s3cret=1",
        "s3cret",
    ],
)
def test_an_unreadable_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(RedisUrlError, match="percent-encoded") as refused:
        Connection.open(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_password_is_in_no_error_and_no_log() -> None:
    url = "redis://user:s3cret@127.0.0.1:1/0"
    with capture_logs() as logs, Connection.open(url, timeout_seconds=1) as connection:
        assert "s3cret" not in repr(connection.commands)
        with pytest.raises(exceptions.ConnectionError) as refused:
            connection.commands.ping()
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in str(logs)


def test_where_no_sentinel_answers_the_error_names_what_to_check() -> None:
    url = "redis+sentinel://user:s3cret@127.0.0.1:1,127.0.0.1:2/tracks?sentinel_password=s3cret"
    with capture_logs() as logs, Connection.open(url, timeout_seconds=1) as connection:
        with pytest.raises(exceptions.ConnectionError, match="No master found") as refused:
            connection.commands.ping()
        shown = f"{refused.value} {connection.commands!r} {logs}"
    assert "'tracks' (SENTINEL MASTERS)" in shown
    assert "port=1" in shown
    assert "port=2" in shown
    assert "s3cret" not in shown
    assert is_transient(refused.value)


def test_a_server_that_evicts_is_warned_about(server_factory: ServerFactory) -> None:
    server = server_factory()
    with capture_logs() as logs, Connection.open(server.url) as connection:
        connection.commands.config_set("maxmemory-policy", "allkeys-lru")
        assert not logs
        Connection.open(server.url).close()
    assert [(line["event"], line["maxmemory_policy"]) for line in logs] == [
        ("redis.evicts", "allkeys-lru")
    ]


def test_a_server_that_does_not_allow_to_ask_for_its_policy_is_no_warning(
    server_factory: ServerFactory,
) -> None:
    server = server_factory()
    with Connection.open(server.url) as connection:
        connection.commands.acl_setuser(
            "shy", enabled=True, passwords=["+pw"], keys=["*"], commands=["+ping"]
        )
    with capture_logs() as logs, Connection.open(f"{server.url}?username=shy&password=pw") as shy:
        assert shy.commands.ping()
    assert [line["log_level"] for line in logs] == ["debug"]


@pytest.mark.parametrize("block_seconds", [0, -1, 2.5])
def test_reads_block_for_two_seconds_at_most(block_seconds: float) -> None:
    with pytest.raises(ValueError, match="block_seconds"):
        Connection.open(AWAY, block_seconds=block_seconds)


# Python 3.12 and later warn about any fork in a process with threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_sockets_of_its_own(redis_url: str) -> None:
    with Connection.open(redis_url) as connection:
        ids = {connection.commands.client_id(), connection.blocking.client_id()}
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            said = f"{connection.commands.client_id()} {connection.blocking.client_id()}"
            os.write(sending, said.encode())
            os._exit(0)
        os.waitpid(child, 0)
        childs = {int(part) for part in os.read(receiving, 100).split()}
        os.close(receiving)
        os.close(sending)
        assert len(childs) == 2
        assert not childs & ids
        assert connection.commands.client_id() in ids, "the parent's sockets are as they were"


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (exceptions.ResponseError("UNBLOCKED the stream key no longer exists"), "UNBLOCKED", True),
        (exceptions.ResponseError("NOGROUP No such key"), "NOGROUP", True),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), "MISCONF", True),
        (exceptions.ResponseError("-BUSY Redis is busy running a script"), "BUSY", True),
        (exceptions.OutOfMemoryError("command not allowed"), "OOM", True),
        (exceptions.ReadOnlyError("You can't write against a replica"), "READONLY", True),
        (exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served"), "CLUSTERDOWN", True),
        (
            exceptions.ResponseError(
                "Error running script (call to f_1): @user_script:9: -OOM command not allowed"
            ),
            "OOM",
            True,
        ),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), "WRONGTYPE", False),
        (exceptions.NoPermissionError("no permissions to run 'xadd'"), "NOPERM", False),
        (exceptions.ResponseError("unknown command 'XAUTOCLAIM'"), "ERR", False),
    ],
)
def test_refusals_differ_by_their_first_word(
    error: exceptions.ResponseError, code: str, *, transient: bool
) -> None:
    assert refusal_code(error) == code
    assert is_transient(error) is transient
    assert is_transient(BackendRefusedError("key", code, "reason")) is transient


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (exceptions.ConnectionError("refused"), True),
        (exceptions.TimeoutError("slow"), True),
        (exceptions.BusyLoadingError("loading"), True),
        (exceptions.AuthenticationError("WRONGPASS"), False),
        (exceptions.DataError("not bytes"), False),
        (IndexRelayError("ours"), False),
        (ValueError("a mistake"), False),
    ],
)
def test_only_an_error_that_goes_away_by_itself_is_transient(
    error: Exception, *, transient: bool
) -> None:
    assert is_transient(error) is transient


def test_all_keys_of_a_namespace_share_a_hash_tag() -> None:
    keys = Keys("music")
    every = [keys.events, keys.results, keys.reloads, keys.reports("r-1"), keys.release]
    every += [
        keys.changes("songs"),
        keys.lease("map"),
        keys.reader("r-1"),
    ]
    every += [keys.rebuilder("b-1"), keys.announced("00ff")]
    assert all(key.startswith("{music}:") for key in every)
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("namespace", ["", "a}b", "A", "a b", "a\n"])
def test_a_namespace_is_a_name(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        Keys(namespace)
