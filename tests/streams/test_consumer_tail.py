"""A tail sees every entry after its beginning, or says that it may not have."""

import threading

import pytest

from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import Tail, TailRead
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish, publish_many
from indexrelay.streams.retention import trim


def tail_at_end(connection: Connection, keys: Keys) -> Tail:
    """A tail that has taken its cursor, with the doubt of the first read behind it."""
    tail = Tail(connection, keys.reloads)
    first = tail.read(count=10, block_seconds=0)
    assert (first.deliveries, first.gap) == ([], True)
    return tail


def look(tail: Tail, *, count: int = 100) -> tuple[list[bytes | None], bool]:
    found = tail.read(count=count, block_seconds=0)
    return [delivery.raw for delivery in found.deliveries], found.gap


def test_a_tail_begins_at_the_end_and_asks_to_look_at_the_truth(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = Tail(each_connection, keys.reloads)
    assert tail.cursor is None
    assert look(tail) == ([], True)
    assert look(tail) == ([], False)


def test_a_tail_reads_each_event_once_and_in_order(each_connection: Connection, keys: Keys) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    entry_ids = publish_many(each_connection, keys.reloads, [b"1", b"2", b"3"])
    assert look(tail, count=2) == ([b"1", b"2"], False)
    assert look(tail) == ([b"3"], False)
    assert look(tail) == ([], False)
    assert tail.cursor == entry_ids[-1]


def test_what_comes_between_two_reads_is_not_dropped(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    for raw in (b"1", b"2"):
        publish(each_connection, keys.reloads, raw)
        assert look(tail) == ([raw], False)


def test_every_tail_sees_every_event(each_connection: Connection, keys: Keys) -> None:
    publish(each_connection, keys.reloads, b"before")
    tails = [tail_at_end(each_connection, keys) for _ in range(3)]
    publish(each_connection, keys.reloads, b"1")
    assert [look(tail) for tail in tails] == [([b"1"], False)] * 3


def test_the_first_event_of_a_new_stream_is_read(each_connection: Connection, keys: Keys) -> None:
    tail = tail_at_end(each_connection, keys)
    assert look(tail) == ([], False)
    publish(each_connection, keys.reloads, b"1")
    assert look(tail)[0] == [b"1"]
    publish(each_connection, keys.reloads, b"2")
    assert look(tail) == ([b"2"], False)


def test_events_trimmed_before_they_were_read_are_a_gap(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    entry_ids = publish_many(each_connection, keys.reloads, [b"1", b"2", b"3"])
    trim(each_connection, keys.reloads, below=entry_ids[1])
    assert look(tail) == ([b"2", b"3"], True)
    assert look(tail) == ([], False)


def test_trimming_below_the_cursor_is_no_gap(each_connection: Connection, keys: Keys) -> None:
    publish_many(each_connection, keys.reloads, [b"1", b"2"])
    tail = tail_at_end(each_connection, keys)
    assert tail.cursor is not None
    assert trim(each_connection, keys.reloads, below=tail.cursor) == 1
    publish(each_connection, keys.reloads, b"3")
    assert look(tail) == ([b"3"], False)


def test_a_stream_emptied_before_it_was_read_is_one_gap(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    publish(each_connection, keys.reloads, b"1")
    each_connection.commands.xtrim(keys.reloads, maxlen=0, approximate=False)
    assert look(tail) == ([], True)
    assert look(tail) == ([], False)


def test_a_stream_emptied_after_it_was_read_is_no_gap(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    each_connection.commands.xtrim(keys.reloads, maxlen=0, approximate=False)
    assert look(tail) == ([], False)


def test_a_deleted_stream_is_one_gap_and_its_successor_is_read_from_the_start(
    each_connection: Connection, keys: Keys
) -> None:
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    each_connection.commands.delete(keys.reloads)
    assert look(tail) == ([], True)
    assert look(tail) == ([], False)
    publish(each_connection, keys.reloads, b"1")
    assert look(tail)[0] == [b"1"]


def test_a_stream_that_went_back_in_time_is_read_from_its_start(
    each_connection: Connection, keys: Keys
) -> None:
    """A failover to a copy, or a server whose clock was set back."""
    publish(each_connection, keys.reloads, b"before")
    tail = tail_at_end(each_connection, keys)
    each_connection.commands.delete(keys.reloads)
    each_connection.commands.xadd(keys.reloads, {b"event": b"old"}, id="5-0")
    assert look(tail) == ([], True)
    assert look(tail)[0] == [b"old"]
    each_connection.commands.xadd(keys.reloads, {b"event": b"next"}, id="6-0")
    assert look(tail) == ([b"next"], False)


def test_a_recreated_stream_with_newer_entries_is_a_gap(
    each_connection: Connection, keys: Keys
) -> None:
    each_connection.commands.xadd(keys.reloads, {b"event": b"before"}, id="5-0")
    tail = tail_at_end(each_connection, keys)
    each_connection.commands.delete(keys.reloads)
    publish(each_connection, keys.reloads, b"new")
    assert look(tail) == ([b"new"], True)


def test_a_tail_read_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError, match=r"ask for \.deliveries or \.gap"):
        bool(TailRead(deliveries=[], gap=False))


def test_a_waiting_tail_is_woken_by_an_event(real_connection: Connection, keys: Keys) -> None:
    tail = tail_at_end(real_connection, keys)
    found: list[TailRead] = []
    reading = threading.Thread(target=lambda: found.append(tail.read(count=1, block_seconds=2)))
    reading.start()
    pause = threading.Event()
    while not real_connection.commands.info("clients")["blocked_clients"]:
        pause.wait(0.002)
    publish(real_connection, keys.reloads, b"now")
    reading.join()
    assert [delivery.raw for delivery in found[0].deliveries] == [b"now"]


def test_a_wait_without_events_ends(real_connection: Connection, keys: Keys) -> None:
    tail = tail_at_end(real_connection, keys)
    assert tail.read(count=1, block_seconds=0.01) == TailRead(deliveries=[], gap=False)
