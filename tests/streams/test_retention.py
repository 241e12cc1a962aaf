"""What groups and leases look like from outside; the same on every server."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from indexrelay.streams import Connection, ConsumerGroup, Keys, Lease, publish_many
from indexrelay.streams.consumer import Position
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.retention import group_state, waiting_entries
from tests.fixtures.servers import ServerFactory


def group(connection: Connection, keys: Keys, consumer: str) -> ConsumerGroup:
    return ConsumerGroup(connection, keys.events, group="g", consumer=consumer)


def test_a_group_that_is_missing_has_no_state(each_connection: Connection, keys: Keys) -> None:
    assert group_state(each_connection, keys.events, "g") is None
    each_connection.commands.xadd(keys.events, {"event": b"x"})
    assert group_state(each_connection, keys.events, "g") is None


def test_pending_entries_are_counted_for_each_consumer(
    each_connection: Connection, keys: Keys
) -> None:
    ids = publish_many(each_connection, keys.events, [b"a", b"b", b"c"])
    one, two = group(each_connection, keys, "one"), group(each_connection, keys, "two")
    one.read(count=2, block_seconds=0)
    two.read(count=1, block_seconds=0)
    one.acknowledge(ids[:1])
    state = group_state(each_connection, keys.events, "g")
    assert state is not None
    assert state.last_delivered == Position.of(ids[2])
    assert state.lowest_pending == Position.of(ids[1])
    assert {each.name: each.pending for each in state.consumers} == {"one": 1, "two": 1}
    assert all(0 <= each.idle_seconds < 60 for each in state.consumers)
    one.acknowledge(ids)
    settled = group_state(each_connection, keys.events, "g")
    assert settled is not None
    assert settled.lowest_pending is None


def test_what_waits_for_a_group_is_counted_and_only_the_oldest_read(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waiting_entries(each_connection, keys.events, None, most=10) is None
    consumer = group(each_connection, keys, "one")
    consumer.ensure()
    publish_many(each_connection, keys.events, [b"x"] * 20)
    read: list[int] = []
    xrange = each_connection.commands.xrange

    def counted(*arguments: Any, **options: Any) -> Any:
        found: Any = xrange(*arguments, **options)
        read.append(len(found))
        return found

    monkeypatch.setattr(each_connection.commands, "xrange", counted)
    for state, most, count in (
        (None, 10, 10),
        (None, 1000, 20),
        (group_state(each_connection, keys.events, "g"), 1000, 20),
    ):
        waiting = waiting_entries(each_connection, keys.events, state, most=most)
        assert waiting is not None
        assert waiting.count == count
        assert 0 <= waiting.seconds < 60
    state = group_state(each_connection, keys.events, "g")
    counts = state is not None and state.lag is not None
    assert max(read) == (1 if counts else 10)  # a few at a time: they may be large
    consumer.read(count=100, block_seconds=0)
    state = group_state(each_connection, keys.events, "g")
    assert waiting_entries(each_connection, keys.events, state, most=10) is None


@pytest.mark.server
def test_a_group_that_is_there_needs_no_memory(server_factory: ServerFactory, keys: Keys) -> None:
    with Connection.open(server_factory().url) as connection:
        assert group(connection, keys, "one").ensure()
        publish_many(connection, keys.events, [b"x"])
        connection.commands.config_set("maxmemory", 1)
        again = group(connection, keys, "one")
        assert not again.ensure()
        assert len(again.read(count=10, block_seconds=0)) == 1
        connection.commands.delete(keys.events)
        with pytest.raises(ResponseError, match="memory"):
            group(connection, keys, "two").ensure()


def test_held_leases_have_their_owner_and_their_ttl(
    each_connection: Connection, keys: Keys
) -> None:
    names = [keys.lease(name) for name in ("held", "free", "endless")]
    assert held_leases(each_connection, []) == {}
    Lease(each_connection, names[0], owner="one", ttl_seconds=60).acquire()
    each_connection.commands.set(names[2], "stranger")
    held = held_leases(each_connection, names)
    assert {key: lease.owner for key, lease in held.items()} == {
        names[0]: "one",
        names[2]: "stranger",
    }
    assert 0 < (held[names[0]].seconds_left or 0) <= 60
    assert held[names[2]].seconds_left is None
    limit_lease(each_connection, names[2], ttl_seconds=5)
    assert 0 < (held_leases(each_connection, names)[names[2]].seconds_left or 0) <= 5
