"""What is trimmed, and what is kept for whom; the same on every server."""

from datetime import UTC, datetime
from typing import Any

import pytest

from indexrelay.producers.events import BacklogGauge, JobConnection
from indexrelay.rebuilder.gc import StreamTrimmer
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BatchCompleted, Event, ReaderState
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection, ConsumerGroup, Keys, Presence, Tail, publish_many
from indexrelay.streams.keys import REBUILDERS_GROUP
from tests.fixtures.logs import capture_logs


def trimmer(connection: Connection, keys: Keys, **limits: Any) -> StreamTrimmer:
    settings = Settings.model_validate({"namespace": keys.namespace, "rebuilder": limits})
    return StreamTrimmer(settings, connection, keys)


def fill(connection: Connection, key: str, count: int = 10) -> list[bytes]:
    return publish_many(connection, key, [b"%d" % number for number in range(count)])


def kept(connection: Connection, key: str) -> list[bytes]:
    entries: Any = connection.commands.xrange(key)
    return [entry_id for entry_id, _ in entries]


def group(connection: Connection, key: str, name: str = REBUILDERS_GROUP) -> ConsumerGroup:
    return ConsumerGroup(connection, key, group=name, consumer="one")


def read_up_to(connection: Connection, keys: Keys, member: str, cursor: bytes | None) -> None:
    now = datetime.now(UTC)
    label, instance = split_member_id(member)
    state = ReaderState(
        reader=label,
        instance=instance,
        host="h",
        pid=1,
        started_at=now,
        updated_at=now,
        ready=True,
        release=1,
        cursor=None if cursor is None else cursor.decode(),
    )
    raw = state.model_dump_json().encode()
    Presence(connection, keys, "reader").publish(member, raw, ttl_seconds=60)


def test_events_are_kept_from_the_oldest_that_is_not_acknowledged(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.events)
    consumer = group(each_connection, keys.events)
    consumer.read(count=6, block_seconds=0)
    consumer.acknowledge([*ids[:3], *ids[4:6]])
    assert not trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.events) == ids[3:]


def test_the_last_event_that_was_read_stays_and_with_it_the_groups_place(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.events)
    consumer = group(each_connection, keys.events)
    consumer.read(count=10, block_seconds=0)
    consumer.acknowledge(ids)
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.events) == ids[-1:]
    # Made again, the group goes on behind that entry, and does not start again from the first.
    each_connection.commands.xgroup_destroy(keys.events, REBUILDERS_GROUP)
    (new,) = publish_many(each_connection, keys.events, [b"new"])
    assert [each.entry_id for each in consumer.read(count=10, block_seconds=0)] == [new]


def test_the_slowest_group_counts_and_without_any_nothing_goes(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.events)
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.events) == ids
    quick, slow = group(each_connection, keys.events), group(each_connection, keys.events, "slow")
    quick.read(count=10, block_seconds=0)
    quick.acknowledge(ids)
    slow.read(count=2, block_seconds=0)
    slow.acknowledge(ids[:2])
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.events) == ids[1:]


def test_reload_messages_are_kept_for_the_slowest_reader_that_is_alive(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.reloads)
    read_up_to(each_connection, keys, "quick", ids[8])
    # Two processes under one id: the slower of them counts.
    read_up_to(each_connection, keys, "slow:0a", ids[4])
    read_up_to(each_connection, keys, "slow:0b", ids[9])
    read_up_to(each_connection, keys, "of_an_earlier_version", None)
    Presence(each_connection, keys, "reader").publish("alien", b"{}", ttl_seconds=60)
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.reloads) == ids[4:]
    Presence(each_connection, keys, "reader").remove("slow:0a")
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.reloads) == ids[8:]


def test_where_nobody_reads_the_newest_reload_message_stays(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.reloads)
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, keys.reloads) == ids[-1:]


def test_a_reader_at_its_cursor_misses_nothing_by_trimming(
    each_connection: Connection, keys: Keys
) -> None:
    fill(each_connection, keys.reloads)
    tail = Tail(each_connection, keys.reloads)
    tail.read(count=100, block_seconds=0)
    read_up_to(each_connection, keys, "web", tail.cursor)
    new = fill(each_connection, keys.reloads, 3)
    trimmer(each_connection, keys).trim()
    read = tail.read(count=100, block_seconds=0)
    assert ([each.entry_id for each in read.deliveries], read.gap) == (new, False)


def test_a_reader_that_the_cap_cut_off_has_a_gap_and_looks(
    each_connection: Connection, keys: Keys
) -> None:
    tail = Tail(each_connection, keys.reloads)
    fill(each_connection, keys.reloads, 1)
    tail.read(count=100, block_seconds=0)
    read_up_to(each_connection, keys, "web", tail.cursor)
    ids = fill(each_connection, keys.reloads)
    with capture_logs() as events:
        trimmer(each_connection, keys, stream_max_entries=4).trim()
    assert kept(each_connection, keys.reloads) == ids[-4:]
    [capped] = [event for event in events if event["event"] == "stream.capped"]
    assert (capped["key"], capped["entries"]) == (keys.reloads, 7)
    assert tail.read(count=100, block_seconds=0).gap


def test_events_above_the_cap_go_unread_and_a_look_is_due(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.events)
    consumer = group(each_connection, keys.events)
    consumer.read(count=3, block_seconds=0)
    trimming = trimmer(each_connection, keys, stream_max_entries=5)
    assert trimming.trim()
    assert not trimming.trim()
    assert kept(each_connection, keys.events) == ids[-5:]
    trimmed = [each for each in consumer.read(count=3, block_seconds=0) if each.raw is not None]
    assert {each.entry_id for each in trimmed} <= set(ids[-5:])


def test_a_flood_of_valid_events_takes_a_sixteenth_of_the_memory_and_holds_up_no_job(
    real_connection: Connection, keys: Keys
) -> None:
    commands, limit, max_backlog = real_connection.commands, 64 * 1024 * 1024, 12_000
    group(real_connection, keys.events).read(count=1, block_seconds=0)  # then the group is there
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="b" * 100, generation=1)
    now = datetime.now(UTC)
    publish_many(
        real_connection,
        keys.events,
        [Event.of(data, source="flood", time=now).to_bytes() for _ in range(20_000)],
    )
    gauge = BacklogGauge(keys.events, max_backlog=max_backlog, clock=SystemClock())
    assert gauge.is_full(JobConnection(Settings(), real_connection))
    trimming = trimmer(real_connection, keys)
    assert not trimming.trim()  # without a limit there is room for all of them
    commands.config_set("maxmemory", limit)
    try:
        assert trimming.trim()
        assert int(commands.memory_usage(keys.events) or 0) <= limit // 16
        assert commands.xlen(keys.events) > 1000
        assert not trimming.trim()
    finally:
        commands.config_set("maxmemory", 0)
    gauge = BacklogGauge(keys.events, max_backlog=max_backlog, clock=SystemClock())
    assert not gauge.is_full(JobConnection(Settings(), real_connection))


@pytest.mark.parametrize("stream", ["results", "reports"])
def test_what_people_read_goes_by_age_and_by_number(
    each_connection: Connection, keys: Keys, stream: str
) -> None:
    key = keys.results if stream == "results" else keys.reports("web")
    old: Any = each_connection.commands.xadd(key, {"event": b"of 1970"}, id="1000-0")
    ids = fill(each_connection, key)
    assert kept(each_connection, key)[0] == old
    trimmer(each_connection, keys).trim()
    assert kept(each_connection, key) == ids
    with capture_logs() as events:
        trimmer(each_connection, keys, history_entries=3).trim()
    assert kept(each_connection, key) == ids[-3:]
    assert [event for event in events if event["event"] == "stream.capped"] == []


def test_streams_of_changes_are_capped_and_end_by_themselves(
    each_connection: Connection, keys: Keys
) -> None:
    ids = fill(each_connection, keys.changes("tracks"))
    trimmer(each_connection, keys, stream_max_entries=4, history_seconds=60).trim()
    assert kept(each_connection, keys.changes("tracks")) == ids[-4:]
    left: Any = each_connection.commands.pttl(keys.changes("tracks"))
    assert 0 < left <= 60_000
