"""What groups and leases look like from outside; the same on every server."""

from indexrelay.streams import Connection, ConsumerGroup, Keys, Lease, publish_many
from indexrelay.streams.inspection import group_state
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.position import Position


def group(connection: Connection, keys: Keys, consumer: str) -> ConsumerGroup:
    return ConsumerGroup(connection, keys.events, group="g", consumer=consumer)


def test_a_group_that_is_missing_has_no_state(each_connection: Connection, keys: Keys) -> None:
    assert group_state(each_connection, keys.events, "g") is None
    each_connection.commands.xadd(keys.events, {"event": b"x"})
    assert group_state(each_connection, keys.events, "g") is None


def test_what_each_consumer_did_not_acknowledge_is_told(
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


def test_held_leases_tell_their_owner_and_their_end(
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
