"""A group hands every entry to someone, in order, at least once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import ConsumerGroup, Delivery
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish, publish_many


def consumer(
    connection: Connection,
    keys: Keys,
    name: str = "a",
    *,
    group: str = "rebuilder",
    claim_idle_seconds: float = 60.0,
) -> ConsumerGroup:
    return ConsumerGroup(
        connection,
        keys.events,
        group=group,
        consumer=name,
        claim_idle_seconds=claim_idle_seconds,
    )


def raws(deliveries: list[Delivery]) -> list[bytes | None]:
    return [delivery.raw for delivery in deliveries]


def drain(group: ConsumerGroup, *, count: int = 100) -> list[Delivery]:
    """Take and acknowledge until there is nothing left."""
    taken: list[Delivery] = []
    while deliveries := group.read(count=count, block_seconds=0):
        taken += deliveries
        group.acknowledge([delivery.entry_id for delivery in deliveries])
    return taken


def test_published_events_are_read_and_acknowledged_once(
    each_connection: Connection, keys: Keys
) -> None:
    publish_many(each_connection, keys.events, [b"1", b"2", b"3"])
    group = consumer(each_connection, keys)
    deliveries = group.read(count=10, block_seconds=0)
    assert raws(deliveries) == [b"1", b"2", b"3"]
    assert [delivery.deliveries for delivery in deliveries] == [1, 1, 1]
    assert group.acknowledge([delivery.entry_id for delivery in deliveries]) == 3
    assert group.acknowledge([delivery.entry_id for delivery in deliveries]) == 0
    assert group.read(count=10, block_seconds=0) == []


def test_a_group_may_wait_for_a_stream_that_does_not_exist(
    each_connection: Connection, keys: Keys
) -> None:
    group = consumer(each_connection, keys)
    assert group.read(count=10, block_seconds=0) == []
    publish(each_connection, keys.events, b"first")
    assert raws(drain(group)) == [b"first"]
    assert group.recreated == 0


def test_an_unacknowledged_event_comes_first_after_a_restart(
    each_connection: Connection, keys: Keys
) -> None:
    publish_many(each_connection, keys.events, [b"1", b"2", b"3"])
    assert len(consumer(each_connection, keys).read(count=10, block_seconds=0)) == 3
    publish(each_connection, keys.events, b"4")
    again = consumer(each_connection, keys)
    first = again.read(count=2, block_seconds=0)
    assert raws(first) == [b"1", b"2"]
    assert all(delivery.deliveries > 1 for delivery in first)
    again.acknowledge([delivery.entry_id for delivery in first])
    assert raws(drain(again)) == [b"3", b"4"]


def test_an_event_that_its_consumer_forgot_is_claimed_with_its_count(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.events, b"1")
    consumer(each_connection, keys, "dead").read(count=10, block_seconds=0)
    claimed = consumer(each_connection, keys, "b", claim_idle_seconds=0).read(
        count=10, block_seconds=0
    )
    assert raws(claimed) == [b"1"]
    assert claimed[0].deliveries == 2


def test_claiming_goes_on_where_it_stopped(real_connection: Connection, keys: Keys) -> None:
    """A scan that began anew each time would hand out the first ones for ever."""
    sent = [b"%d" % number for number in range(40)]
    publish_many(real_connection, keys.events, sent)
    consumer(real_connection, keys, "dead").read(count=100, block_seconds=0)
    group = consumer(real_connection, keys, "b", claim_idle_seconds=0)
    seen = [raw for _ in range(4) for raw in raws(group.read(count=10, block_seconds=0))]
    assert seen == sent


@pytest.mark.parametrize("taker", ["same", "other"])
def test_a_trimmed_event_is_delivered_as_trimmed(
    each_connection: Connection, keys: Keys, taker: str
) -> None:
    publish_many(each_connection, keys.events, [b"1", b"2"])
    taken = consumer(each_connection, keys, "same").read(count=10, block_seconds=0)
    each_connection.commands.xtrim(keys.events, minid=taken[1].entry_id.decode(), approximate=False)
    group = consumer(each_connection, keys, taker, claim_idle_seconds=0)
    found: dict[bytes, bytes | None] = {}
    for _ in range(3):  # Redis 6.2 names a claimed one only on the read after
        for delivery in group.read(count=10, block_seconds=0):
            found[delivery.entry_id] = delivery.raw
    assert found == {taken[0].entry_id: None, taken[1].entry_id: b"2"}
    group.acknowledge(list(found))
    assert each_connection.commands.xpending(keys.events, "rebuilder")["pending"] == 0


def test_claimed_entries_that_redis_62_does_not_name_are_named_by_the_next_read(
    each_connection: Connection, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of 6.2, where no 6.2 is at hand: nil in the place of a trimmed entry."""
    publish(each_connection, keys.events, b"1")
    (taken,) = consumer(each_connection, keys, "a").read(count=10, block_seconds=0)
    group = consumer(each_connection, keys, "a")
    group.read(count=10, block_seconds=0)
    each_connection.commands.xtrim(keys.events, maxlen=0, approximate=False)
    monkeypatch.setattr(
        each_connection.commands, "xautoclaim", lambda *_, **__: [b"0-0", [(None, None)]]
    )
    assert group.read(count=10, block_seconds=0) == []
    (named,) = group.read(count=10, block_seconds=0)
    assert (named.entry_id, named.raw) == (taken.entry_id, None)


def test_a_foreign_entry_keeps_its_bytes(each_connection: Connection, keys: Keys) -> None:
    each_connection.commands.xadd(keys.events, {b"who": b"me", b"what": b"\xff"})
    each_connection.commands.xadd(keys.events, {b"other": b"1"})
    assert raws(drain(consumer(each_connection, keys))) == [b"who=me\nwhat=\xff", b"other=1"]


def test_acknowledging_no_entries_does_nothing(each_connection: Connection, keys: Keys) -> None:
    assert consumer(each_connection, keys).acknowledge([]) == 0


def test_a_wait_longer_than_the_sockets_wait_is_refused(
    each_connection: Connection, keys: Keys
) -> None:
    with pytest.raises(ValueError, match="block_seconds"):
        consumer(each_connection, keys).read(count=1, block_seconds=60)


@contextmanager
def publishing_behind(connection: Connection, keys: Keys, raw: bytes) -> Iterator[None]:
    """Publish once a client is blocked."""

    def publish_when_blocked() -> None:
        pause = threading.Event()
        while not connection.commands.info("clients")["blocked_clients"]:
            pause.wait(0.002)
        publish(connection, keys.events, raw)

    thread = threading.Thread(target=publish_when_blocked)
    thread.start()
    yield
    thread.join()


def test_a_waiting_consumer_is_woken_by_an_event(real_connection: Connection, keys: Keys) -> None:
    group = consumer(real_connection, keys)
    with publishing_behind(real_connection, keys, b"now"):
        assert raws(group.read(count=10, block_seconds=2)) == [b"now"]
