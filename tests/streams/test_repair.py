"""A repair by hand: what it sees that no key shows, and what it does about that."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.streams import Connection, Keys, publish
from indexrelay.streams import repair as module
from indexrelay.streams.errors import UnkillableScriptError, refusal_code
from indexrelay.streams.repair import Action, Repair
from tests.fixtures.servers import PrivateServer, ServerFactory
from tests.streams.polling import eventually

KEYS = Keys("test")
ENDLESS = "while true do end"
WRITES_AND_IS_ENDLESS = "redis.call('SET', KEYS[1], 'x') while true do end"


@pytest.fixture
def server(server_factory: ServerFactory) -> PrivateServer:
    return server_factory()


@pytest.fixture
def connection(server: PrivateServer) -> Iterator[Connection]:
    with Connection.open(server.url) as connection:
        connection.commands.config_set("lua-time-limit", 20)
        yield connection


def repair_of(connection: Connection) -> Repair:
    return Repair(connection, KEYS, RebuilderSettings(), components=["map"])


def run_for_ever(connection: Connection, url: str, *command: str) -> threading.Thread:
    """Let the server do it, until it is busy."""

    def run() -> None:
        with Connection.open(url, timeout_seconds=60) as other, suppress(RedisError):
            other.commands.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py has no types here

    thread = threading.Thread(target=run)
    thread.start()

    def is_busy() -> bool:
        try:
            connection.commands.get("x")
        except ResponseError as error:
            return refusal_code(error) == "BUSY"
        return False

    eventually(is_busy)
    return thread


def test_a_script_that_does_not_end_is_ended_and_then_the_rest_is_seen(
    server: PrivateServer, connection: Connection
) -> None:
    repair = repair_of(connection)
    connection.commands.rpush(KEYS.release, "x")
    thread = run_for_ever(connection, server.url, "EVAL", ENDLESS, "0")
    [step] = repair.look()
    assert step.action is Action.END_SCRIPT
    assert repair.carry_out(step) == "the script or function was ended"
    thread.join(30)
    [rest] = repair.look()
    assert rest.action is Action.REPAIR_KEY
    assert "was set aside" in repair.carry_out(rest)
    assert repair.look() == ()
    assert repair.carry_out(step) == "the script or function had ended by itself"


def test_a_function_that_does_not_end_is_ended(
    server: PrivateServer, connection: Connection
) -> None:
    code = f"#!lua name=f\nredis.register_function('f', function() {ENDLESS} end)"
    try:
        connection.commands.function_load(code)
    except ResponseError as error:
        assert "unknown command" in str(error).lower()  # noqa: PT017 - Redis 6.2 has none
        return
    repair = repair_of(connection)
    thread = run_for_ever(connection, server.url, "FCALL", "f", "0")
    [step] = repair.look()
    assert repair.carry_out(step) == "the script or function was ended"
    thread.join(30)
    assert repair.look() == ()


def test_the_error_for_a_script_that_has_written_advises_to_end_the_server(
    server: PrivateServer, connection: Connection
) -> None:
    thread = run_for_ever(connection, server.url, "EVAL", WRITES_AND_IS_ENDLESS, "1", KEYS.release)
    repair = repair_of(connection)
    [step] = repair.look()
    with pytest.raises(UnkillableScriptError, match="SHUTDOWN NOSAVE"):
        repair.carry_out(step)
    server.kill()
    thread.join(30)


def test_scripts_and_functions_that_take_much_memory_are_removed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SCRIPT_BYTES", 1_000_000)
    repair = repair_of(connection)
    publish(connection, KEYS.events, b"{}")
    assert repair.look() == ()
    for number in range(20):
        connection.commands.script_load(f"return '{number}{'x' * 200_000}'")
    [step] = repair.look()
    assert step.action is Action.FLUSH_SCRIPTS
    repair.carry_out(step)
    assert repair.look() == ()
    with suppress(ResponseError):  # Redis 6.2 has none
        for number in range(20):
            text = "x" * 200_000
            code = f"#!lua name=f{number}\nlocal text = '{text}' "
            code += f"redis.register_function('f{number}', function() return text end)"
            connection.commands.function_load(code)
        [step] = repair.look()
        assert step.action is Action.FLUSH_FUNCTIONS
        repair.carry_out(step)
        assert repair.look() == ()
    assert connection.commands.xlen(KEYS.events) == 1
