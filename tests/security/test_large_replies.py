"""A server hangs up on whoever asks for more than it wants to hold: nobody's messages do that.

On servers with the shipped configuration, by whoever may add to a stream.
"""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from indexrelay.streams import Connection, ConsumerGroup, Keys, Tail
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.retention import group_state, waiting_entries
from tests.fixtures.acl import NAMESPACE, ConnectAs

pytestmark = pytest.mark.server
KEYS = Keys(NAMESPACE)
LARGE = 1_900_000
"""Nearly as much as that server takes for one value."""
ENTRIES = 60
"""More than 64 MB of them, beyond which it hangs up at once."""


@pytest.fixture
def full(connect_as: ConnectAs) -> Connection:
    """A rebuilder's connection, where large entries wait that a job's user has added."""
    rebuilder = connect_as("rebuilder")
    consumer(rebuilder).ensure()
    producer = connect_as("producer").commands
    for _ in range(ENTRIES):
        producer.xadd(KEYS.events, {"event": b"x" * LARGE})
    return rebuilder


def consumer(connection: Connection) -> ConsumerGroup:
    return ConsumerGroup(connection, KEYS.events, group=REBUILDERS_GROUP, consumer="one")


def read_out(reader: ConsumerGroup | Tail, broken: type[Exception]) -> tuple[int, int]:
    """Read until nothing is left: how many entries came, and how many reads broke off."""
    came = failed = 0
    for _ in range(4 * ENTRIES):
        try:
            read: Any = reader.read(count=500, block_seconds=0)
        except broken:
            failed += 1
            continue
        deliveries = read if isinstance(reader, ConsumerGroup) else read.deliveries
        if not deliveries and isinstance(reader, ConsumerGroup):
            return came, failed
        if isinstance(reader, ConsumerGroup):
            reader.acknowledge([each.entry_id for each in deliveries])
        came += len(deliveries)
        if came == ENTRIES:
            return came, failed
    return came, failed


def test_large_events_are_read_to_the_last_after_a_few_reads_that_broke_off(
    full: Connection,
) -> None:
    waiting = waiting_entries(
        full, KEYS.events, group_state(full, KEYS.events, REBUILDERS_GROUP), most=1000
    )
    assert waiting is not None
    assert waiting.count >= ENTRIES
    came, failed = read_out(consumer(full), RedisConnectionError)
    assert came >= ENTRIES
    assert failed <= 3
    full.commands.xtrim(KEYS.events, maxlen=0, approximate=False)


def test_a_tail_reads_large_entries_as_well(full: Connection) -> None:
    tail = Tail(full, KEYS.reloads)
    tail.read(count=1, block_seconds=0)
    for _ in range(ENTRIES):
        full.commands.xadd(KEYS.reloads, {"event": b"x" * LARGE})
    came, failed = read_out(tail, RedisConnectionError)
    assert (came, failed <= 3) == (ENTRIES, True)
    for key in (KEYS.events, KEYS.reloads):
        full.commands.xtrim(key, maxlen=0, approximate=False)
