"""Whoever has the password of one reader fills the memory: it is seen, named, and freed.

MEMORY USAGE counts the first five nodes of a stream, unless it is asked for more. So who may add to
a stream makes these small and the others large.
"""

from collections.abc import Iterator

import pytest

from indexrelay.rebuilder.gc import MAX_HISTORY_BYTES, StreamTrimmer
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.streams import Connection, Keys, consumer
from indexrelay.streams.consumer import memory_of
from indexrelay.streams.repair import Action, Remedy, Repair, find_wrong_keys, repair_key
from indexrelay.streams.retention import held_memory

pytestmark = pytest.mark.server

KEYS = Keys("held")
REPORTS = KEYS.reports("reader_a")
ASIDE = KEYS.aside(REPORTS)
GREATEST = "18446744073709551615-18446744073709551615"
LIMITS = RebuilderSettings()


@pytest.fixture
def connection(real_connection: Connection) -> Iterator[Connection]:
    yield real_connection
    real_connection.commands.flushdb()


def fill(connection: Connection, key: str, megabytes: int) -> None:
    """Small nodes first, and large ones after them."""
    for _ in range(1000):
        connection.commands.xadd(key, {"e": b"x"})
    for _ in range(megabytes):
        connection.commands.xadd(key, {"e": b"x" * 1_000_000})


def wrong_keys(connection: Connection) -> dict[str, Remedy]:
    found = find_wrong_keys(connection, KEYS, LIMITS, components=())
    return {wrong.key: wrong.remedy for wrong in found}


def test_reports_that_begin_with_small_entries_are_weighed_trimmed_and_deleted(
    connection: Connection,
) -> None:
    fill(connection, REPORTS, 80)
    assert (memory_of(connection, REPORTS) or 0) > 80_000_000
    assert held_memory(connection, KEYS)["reader_a"] > 80_000_000
    assert wrong_keys(connection) == {REPORTS: Remedy.DELETE}
    settings = Settings.model_validate({"namespace": "held"})
    StreamTrimmer(settings, connection, KEYS).trim()
    assert 0 < (memory_of(connection, REPORTS) or 0) <= MAX_HISTORY_BYTES


def test_a_stream_of_more_nodes_than_are_counted_is_weighed_by_those_that_are(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is not to count any number of them: nobody else is served meanwhile."""
    monkeypatch.setattr(consumer, "SAMPLED_NODES", 50)
    fill(connection, REPORTS, 80)  # some ten small nodes, and eighty large ones
    whole = connection.commands.memory_usage(REPORTS, samples=0)
    assert whole is not None
    assert 0.5 * whole < (memory_of(connection, REPORTS) or 0) < 1.5 * whole
    monkeypatch.undo()
    assert memory_of(connection, REPORTS) == whole


def test_no_stream_within_its_limits_has_more_nodes_than_are_counted(
    connection: Connection,
) -> None:
    node_bytes = connection.commands.config_get("stream-node-max-bytes")["stream-node-max-bytes"]
    assert node_bytes is not None
    assert RebuilderSettings().stream_max_bytes / int(node_bytes) < consumer.SAMPLED_NODES


def test_reports_that_take_no_more_entries_are_deleted_where_they_are_large(
    connection: Connection,
) -> None:
    fill(connection, REPORTS, 10)
    connection.commands.xadd(REPORTS, {"e": b"x"}, id=GREATEST)
    [wrong] = find_wrong_keys(connection, KEYS, LIMITS, components=())
    assert "and was deleted" in repair_key(connection, KEYS, wrong, ttl_seconds=15)
    assert not connection.commands.exists(REPORTS, ASIDE)


def test_what_is_added_between_the_look_and_the_repair_is_not_kept(connection: Connection) -> None:
    connection.commands.xadd(REPORTS, {"e": b"x"}, id=f"{2**63}-0")
    [wrong] = find_wrong_keys(connection, KEYS, LIMITS, components=())
    for number in range(10):
        connection.commands.xadd(REPORTS, {"e": b"x" * 1_000_000}, id=f"{2**63}-{number + 1}")
    assert "and was deleted" in repair_key(connection, KEYS, wrong, ttl_seconds=15)
    assert not connection.commands.exists(REPORTS, ASIDE)


def test_what_was_set_aside_is_named_by_its_label_and_freed(connection: Connection) -> None:
    fill(connection, ASIDE, 10)  # as an earlier version left it
    connection.commands.pexpire(ASIDE, 1000 * 600_000)
    for number in range(4):  # none of them is large
        state = KEYS.aside(KEYS.reader(f"reader_b:0{number}"))
        connection.commands.rpush(state, b"x" * 400_000)
        connection.commands.pexpire(state, 1000 * 600_000)
    held = held_memory(connection, KEYS)
    assert held["reader_a"] > 10_000_000
    assert held["reader_b"] > 1_600_000
    found = find_wrong_keys(connection, KEYS, LIMITS, components=())
    assert {wrong.label for wrong in found} == {"reader_a", "reader_b"}
    repair = Repair(connection, KEYS, LIMITS, components=())
    for step in repair.look():
        assert step.action is Action.REPAIR_KEY
        assert "deleted" in repair.carry_out(step)
    assert connection.commands.dbsize() == 0


def test_what_was_set_aside_without_an_end_is_given_one(connection: Connection) -> None:
    connection.commands.xadd(ASIDE, {"e": b"x"})
    assert wrong_keys(connection) == {ASIDE: Remedy.TTL}
    [wrong] = find_wrong_keys(connection, KEYS, LIMITS, components=())
    repair_key(connection, KEYS, wrong, ttl_seconds=15)
    assert 0 < connection.commands.pttl(ASIDE) <= 15_000
    assert wrong_keys(connection) == {}
