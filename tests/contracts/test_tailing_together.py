"""Readers follow a stream side by side, each at its own pace: the scenarios for a `Tail`."""

from collections.abc import Callable
from functools import partial

from indexrelay.streams import Tail, publish, trim
from tests.contracts.backends import Backend
from tests.contracts.subscribing import numbered, raws
from tests.contracts.together import together
from tests.streams.polling import eventually


def _tail(backend: Backend) -> Tail:
    """A tail at the stream's end, with the doubt of its first read behind it."""
    tail = Tail(backend.connect(), backend.keys.reloads)
    assert tail.read(count=1, block_seconds=0).gap
    return tail


def _follow(tail: Tail, wanted: int, *, count: int = 100) -> list[bytes]:
    """Read, waiting where there is nothing, until ``wanted`` events came; none may be missed."""
    read: list[bytes] = []

    def enough() -> bool:
        found = tail.read(count=count, block_seconds=0.05)
        assert not found.gap
        read.extend(raws(found.deliveries))
        return len(read) >= wanted

    eventually(enough, seconds=30)
    return read


def test_every_tail_reads_every_event_in_order_while_it_is_published(backend: Backend) -> None:
    """Watermill: ConcurrentSubscribe and PublishSubscribeInOrder, for readers with own cursors."""
    publish(backend.connect(), backend.keys.reloads, b"before")
    sent = numbered(1000)
    tails = [_tail(backend) for _ in range(10)]

    def publish_one_by_one() -> list[bytes]:
        connection = backend.connect()
        for raw in sent:
            publish(connection, backend.keys.reloads, raw)
        return sent

    following: list[Callable[[], list[bytes]]] = [
        partial(_follow, tail, len(sent), count=10 * (1 + number))
        for number, tail in enumerate(tails)
    ]
    assert together([publish_one_by_one, *following]) == [sent] * 11


def test_a_new_tail_is_told_to_look_at_the_truth_instead_of_reading_old_events(
    backend: Backend,
) -> None:
    """Watermill: NewSubscriberReceivesOldMessages, which a tail answers with a gap."""
    backend.publish(b"old", key=backend.keys.reloads)
    tail = Tail(backend.connect(), backend.keys.reloads)
    first = tail.read(count=10, block_seconds=0)
    assert (first.deliveries, first.gap) == ([], True)
    backend.publish(b"new", key=backend.keys.reloads)
    assert _follow(tail, 1) == [b"new"]


def test_a_slow_tail_is_told_of_what_was_trimmed_and_a_quick_one_is_not(backend: Backend) -> None:
    """Redpanda Connect: StreamTestStreamSaturatedUnacked, for readers that never acknowledge."""
    backend.publish(b"before", key=backend.keys.reloads)
    quick, slow = _tail(backend), _tail(backend)
    sent = numbered(100)
    entry_ids = backend.publish(*sent, key=backend.keys.reloads)
    assert _follow(quick, 100) == sent
    assert raws(slow.read(count=10, block_seconds=0).deliveries) == sent[:10]
    trim(backend.connect(), backend.keys.reloads, below=entry_ids[60])
    assert quick.read(count=100, block_seconds=0).deliveries == []
    found = slow.read(count=100, block_seconds=0)
    assert (raws(found.deliveries), found.gap) == (sent[60:], True)
    backend.publish(b"after", key=backend.keys.reloads)
    assert _follow(quick, 1) == _follow(slow, 1) == [b"after"]
