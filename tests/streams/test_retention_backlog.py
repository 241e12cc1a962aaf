"""What a group has not taken yet, the same on every server."""

import pytest

from indexrelay.streams import Connection, ConsumerGroup, Keys, publish_many, trim
from indexrelay.streams.retention import backlog


@pytest.fixture
def group(each_connection: Connection, keys: Keys) -> ConsumerGroup:
    return ConsumerGroup(each_connection, keys.events, group="g", consumer="one")


def waiting(connection: Connection, keys: Keys, *, most: int) -> int:
    return backlog(connection, keys.events, "g", most=most)


def test_a_group_that_was_never_made_has_taken_nothing(
    each_connection: Connection, keys: Keys
) -> None:
    assert waiting(each_connection, keys, most=3) == 0
    publish_many(each_connection, keys.events, [b"x"] * 9)
    assert waiting(each_connection, keys, most=3) == 4
    assert waiting(each_connection, keys, most=100) == 9


def test_what_was_taken_waits_no_more_even_before_it_is_trimmed(
    each_connection: Connection, keys: Keys, group: ConsumerGroup
) -> None:
    ids = publish_many(each_connection, keys.events, [b"x"] * 9)
    group.read(count=7, block_seconds=0)
    assert waiting(each_connection, keys, most=3) == 2
    group.acknowledge(ids[:7])
    trim(each_connection, keys.events, below=ids[3])
    assert waiting(each_connection, keys, most=3) == 2


def test_a_group_that_begins_in_the_middle_is_counted_as_well(
    each_connection: Connection, keys: Keys
) -> None:
    ids = publish_many(each_connection, keys.events, [b"x"] * 9)
    each_connection.commands.xgroup_create(keys.events, "g", ids[4])
    assert waiting(each_connection, keys, most=3) == 4
    assert waiting(each_connection, keys, most=2) == 3
