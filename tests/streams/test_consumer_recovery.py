"""Streams, groups and servers vanish under a consumer, and it goes on without losing an event."""

import threading
from typing import Any

import pytest
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import ConsumerGroup, Tail
from indexrelay.streams.errors import is_transient
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish, publish_many
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import ServerFactory
from tests.streams.polling import eventually


def consumer(connection: Connection, keys: Keys, name: str = "a") -> ConsumerGroup:
    return ConsumerGroup(connection, keys.events, group="rebuilder", consumer=name)


def take(group: ConsumerGroup) -> list[bytes | None]:
    """Take what is there, and acknowledge it."""
    deliveries = group.read(count=100, block_seconds=0)
    group.acknowledge([delivery.entry_id for delivery in deliveries])
    return [delivery.raw for delivery in deliveries]


def blocked_clients(connection: Connection) -> int:
    return int(connection.commands.info("clients")["blocked_clients"])


def test_a_stream_deleted_under_a_blocked_read_is_made_again(
    real_connection: Connection, keys: Keys
) -> None:
    """Redis 6.2 says nothing, Redis 7 UNBLOCKED, Valkey NOGROUP."""
    group = consumer(real_connection, keys)
    group.ensure()
    taken: list[bytes | None] = []
    failures: list[RedisError] = []

    def read_until_taken() -> None:
        while not taken and not failures:
            try:
                deliveries = group.read(count=10, block_seconds=1)
            except RedisError as error:
                failures.append(error)
            else:
                taken.extend(delivery.raw for delivery in deliveries)

    reading = threading.Thread(target=read_until_taken)
    reading.start()
    eventually(lambda: blocked_clients(real_connection))
    real_connection.commands.delete(keys.events)
    eventually(lambda: real_connection.commands.exists(keys.events))
    publish(real_connection, keys.events, b"after")
    reading.join()
    assert (taken, failures, group.recreated) == ([b"after"], [], 1)


def test_events_of_a_recreated_stream_are_all_read(real_connection: Connection, keys: Keys) -> None:
    group = consumer(real_connection, keys)
    publish_many(real_connection, keys.events, [b"1", b"2"])
    assert take(group) == [b"1", b"2"]
    real_connection.commands.flushall()
    publish_many(real_connection, keys.events, [b"3", b"4"])
    assert take(group) == [b"3", b"4"]


def test_events_of_a_stream_that_went_back_in_time_are_all_read(
    real_connection: Connection, keys: Keys
) -> None:
    group = consumer(real_connection, keys)
    publish(real_connection, keys.events, b"1")
    assert take(group) == [b"1"]
    real_connection.commands.delete(keys.events)
    real_connection.commands.xadd(keys.events, {b"event": b"old"}, id="5-0")
    assert take(group) == [b"old"]


def test_a_recreated_stream_that_gives_the_same_ids_is_not_taken_for_the_old_one(
    real_connection: Connection, keys: Keys
) -> None:
    """As one does that is deleted and made again within a millisecond."""
    group = consumer(real_connection, keys)
    real_connection.commands.xadd(keys.events, {b"event": b"1"}, id="5-0")
    assert take(group) == [b"1"]
    real_connection.commands.delete(keys.events)
    real_connection.commands.xadd(keys.events, {b"event": b"2"}, id="5-0")
    assert take(group) == [b"2"]


def test_a_group_destroyed_alone_does_not_repeat_what_all_had_acknowledged(
    real_connection: Connection, keys: Keys
) -> None:
    group = consumer(real_connection, keys)
    publish_many(real_connection, keys.events, [b"1", b"2"])
    assert take(group) == [b"1", b"2"]
    publish(real_connection, keys.events, b"3")
    real_connection.commands.xgroup_destroy(keys.events, "rebuilder")
    assert take(group) == [b"3"]


def test_a_group_destroyed_alone_repeats_what_another_consumer_had_taken(
    real_connection: Connection, keys: Keys
) -> None:
    """The anchor is the whole group's: nobody has anything pending below it."""
    first, other = consumer(real_connection, keys, "a"), consumer(real_connection, keys, "b")
    publish_many(real_connection, keys.events, [b"1", b"2", b"3"])
    assert [d.raw for d in first.read(count=1, block_seconds=0)] == [b"1"]
    assert [d.raw for d in other.read(count=1, block_seconds=0)] == [b"2"]
    (third,) = first.read(count=1, block_seconds=0)
    assert third.raw == b"3"
    assert first.acknowledge([third.entry_id]) == 1
    real_connection.commands.xgroup_destroy(keys.events, "rebuilder")
    assert take(first) == [b"1", b"2", b"3"]


def test_acknowledging_in_a_group_that_is_gone_does_nothing(
    real_connection: Connection, keys: Keys
) -> None:
    group = consumer(real_connection, keys)
    publish(real_connection, keys.events, b"1")
    (delivery,) = group.read(count=1, block_seconds=0)
    real_connection.commands.flushall()
    assert group.acknowledge([delivery.entry_id]) == 0


def test_a_key_of_another_type_is_an_error_for_the_caller(
    real_connection: Connection, keys: Keys
) -> None:
    real_connection.commands.set(keys.events, "mine")
    with pytest.raises(RedisError) as refused:
        consumer(real_connection, keys).read(count=1, block_seconds=0)
    assert not is_transient(refused.value)


def test_a_blocking_read_is_sent_once_however_short_the_time_out(
    real_connection: Connection, keys: Keys, started_servers: dict[str, str]
) -> None:
    pool: Any = real_connection.commands.connection_pool
    url = f"unix://{pool.connection_kwargs['path']}"
    with Connection.open(url, timeout_seconds=0.3, block_seconds=0.6) as connection:
        group = consumer(connection, keys)
        group.ensure()
        connection.commands.config_resetstat()
        assert group.read(count=1, block_seconds=0.6) == []
        calls = connection.commands.info("commandstats")["cmdstat_xreadgroup"]["calls"]
    assert calls == 2, "own pending entries, then new ones"


def test_an_outage_is_logged_once_and_so_is_its_end(
    server_factory: ServerFactory, keys: Keys
) -> None:
    server = server_factory()
    with Connection.open(server.url) as connection:
        group, tail = consumer(connection, keys), Tail(connection, keys.events)
        assert take(group) == []
        assert tail.read(count=1, block_seconds=0).gap
        server.stop()
        with capture_logs() as logs:
            for _ in range(5):
                for reader in (group, tail):
                    with pytest.raises(RedisError) as away:
                        reader.read(count=1, block_seconds=0)
                    assert is_transient(away.value)
            server.start()
            assert group.read(count=1, block_seconds=0) == []
            assert tail.read(count=1, block_seconds=0).gap, "in doubt after an outage"
            assert not tail.read(count=1, block_seconds=0).gap
        said = [line["event"] for line in logs if line["event"].startswith("stream.")]
        assert said == ["stream.unreadable"] * 2 + ["stream.readable"] * 2


def test_a_write_to_a_stalled_server_is_sent_once(
    server_factory: ServerFactory, keys: Keys
) -> None:
    server = server_factory()
    with Connection.open(server.url, timeout_seconds=0.5) as connection:
        connection.commands.ping()
        server.stall()
        try:
            with pytest.raises(RedisTimeoutError) as stalled:
                publish(connection, keys.events, b"1")
        finally:
            server.go_on()
        assert is_transient(stalled.value)
        eventually(lambda: connection.commands.xlen(keys.events))
        assert connection.commands.xlen(keys.events) == 1


def test_what_a_lost_reply_took_comes_first(server_factory: ServerFactory, keys: Keys) -> None:
    """The server hands an entry out, and the consumer never hears of it."""
    server = server_factory()
    with Connection.open(server.url, timeout_seconds=0.5) as connection:
        group = consumer(connection, keys)
        assert take(group) == []
        publish(connection, keys.events, b"1")
        server.stall()
        try:
            with pytest.raises(RedisTimeoutError):
                group.read(count=1, block_seconds=0)
        finally:
            server.go_on()
        # The same read as the stalled one, sent by hand: its reply goes nowhere.
        connection.commands.xreadgroup("rebuilder", "a", {keys.events: ">"}, count=1)
        publish(connection, keys.events, b"2")
        assert take(group) == [b"1"]
        assert take(group) == [b"2"]
