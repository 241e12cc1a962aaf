"""An event goes onto a stream as it is, or the producer hears why not."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from indexrelay.schemas.messages import FIELD
from indexrelay.streams import connection as connection_module
from indexrelay.streams import publisher
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError, is_transient
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish, publish_many
from indexrelay.streams.retention import trim
from tests.fixtures.servers import ServerFactory


def test_an_event_is_one_entry_with_one_field(each_connection: Connection, keys: Keys) -> None:
    entry_id = publish(each_connection, keys.events, b'{"id": "1"}')
    assert each_connection.commands.xrange(keys.events) == [(entry_id, {FIELD: b'{"id": "1"}'})]


def test_many_events_keep_their_order(each_connection: Connection, keys: Keys) -> None:
    raws = [b"%d" % number for number in range(50)]
    entry_ids = publish_many(each_connection, keys.events, raws)
    entries: Any = each_connection.commands.xrange(keys.events)
    assert [entry_id for entry_id, _ in entries] == entry_ids
    assert [fields[FIELD] for _, fields in entries] == raws


def test_no_events_are_no_entries(each_connection: Connection, keys: Keys) -> None:
    assert publish_many(each_connection, keys.events, []) == []


def test_more_events_than_go_in_one_round_trip_keep_their_order_too(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MOST_EVENTS", 7)
    monkeypatch.setattr(connection_module, "ROUND_TRIP_BYTES", 40)
    raws = [b"%d " % number * (number % 9) for number in range(60)]
    entry_ids = publish_many(each_connection, keys.events, raws)
    entries: Any = each_connection.commands.xrange(keys.events)
    assert [entry_id for entry_id, _ in entries] == entry_ids
    assert [fields[FIELD] for _, fields in entries] == raws


def test_a_refusal_among_many_leaves_no_reply_for_the_next_command(
    each_connection: Connection, keys: Keys
) -> None:
    each_connection.commands.set(keys.events, "mine")
    with pytest.raises(BackendRefusedError):
        publish_many(each_connection, keys.events, [b"1", b"2", b"3"])
    assert each_connection.commands.get(keys.events) == b"mine"
    each_connection.commands.delete(keys.events)
    assert len(publish_many(each_connection, keys.events, [b"4", b"5"])) == 2


def test_a_round_trip_that_was_cut_leaves_no_reply_for_the_next_command(
    real_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([b"first"])

    def cut(connection: Any) -> bytes:
        try:
            return next(replies)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("indexrelay.streams.publisher._reply", cut)
    with pytest.raises(KeyboardInterrupt):
        publish_many(real_connection, keys.events, [b"1", b"2", b"3"])
    assert real_connection.commands.echo("next") == b"next"


def test_a_key_of_another_type_is_refused_for_good(each_connection: Connection, keys: Keys) -> None:
    each_connection.commands.set(keys.events, "mine")
    with pytest.raises(BackendRefusedError, match="it is not ours") as refused:
        publish(each_connection, keys.events, b"x")
    assert refused.value.code == "WRONGTYPE"
    assert not is_transient(refused.value)


def test_a_full_server_refuses_events_for_now(real_connection: Connection, keys: Keys) -> None:
    real_connection.commands.config_set("maxmemory", 1)
    try:
        with pytest.raises(BackendRefusedError, match="raise maxmemory") as refused:
            publish(real_connection, keys.events, b"x")
    finally:
        real_connection.commands.config_set("maxmemory", 0)
    assert isinstance(refused.value.__cause__, OutOfMemoryError)
    assert (refused.value.key, refused.value.code) == (keys.events, "OOM")
    assert is_transient(refused.value)


def test_a_replica_refuses_events_for_now(real_connection: Connection, keys: Keys) -> None:
    real_connection.commands.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(BackendRefusedError, match="the URL of the primary") as refused:
            publish(real_connection, keys.events, b"x")
    finally:
        real_connection.commands.replicaof("NO", "ONE")
    assert refused.value.code == "READONLY"
    assert is_transient(refused.value)


def test_a_server_that_is_away_is_a_network_error(
    server_factory: ServerFactory, keys: Keys
) -> None:
    server = server_factory()
    with Connection.open(server.url) as connection:
        server.stop()
        with pytest.raises(RedisConnectionError) as away:
            publish(connection, keys.events, b"x")
        assert is_transient(away.value)


def test_trimming_keeps_the_entry_that_it_is_given(each_connection: Connection, keys: Keys) -> None:
    entry_ids = publish_many(each_connection, keys.events, [b"1", b"2", b"3", b"4"])
    assert trim(each_connection, keys.events, below=entry_ids[2]) == 2
    left: Any = each_connection.commands.xrange(keys.events)
    assert [entry_id for entry_id, _ in left] == entry_ids[2:]
    assert trim(each_connection, keys.events, below=entry_ids[2]) == 0
