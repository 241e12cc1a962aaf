"""What is published arrives: whole, in order, in its own stream, and in every group."""

from datetime import UTC, datetime

from indexrelay.schemas.messages import BatchCompleted, Event
from tests.contracts.backends import Backend
from tests.contracts.subscribing import numbered, raws

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _batch_completed(number: int) -> Event:
    said = BatchCompleted(
        collection="tracks", epoch="e", batch_id=f"batch-{number}", generation=number
    )
    trace = f"00-{number:032x}-{number:016x}-01"
    return Event.of(said, source="/contracts", time=MOMENT, traceparent=trace)


def test_every_published_event_arrives_with_all_that_it_says(backend: Backend) -> None:
    """Watermill: PublishSubscribe."""
    sent = [_batch_completed(number) for number in range(1, 101)]
    backend.publish(*(event.to_bytes() for event in sent))
    received = [Event.from_bytes(raw) for raw in backend.subscriber().drain()]
    assert received == sent


def test_events_come_in_order_however_many_consumers_take_turns(backend: Backend) -> None:
    """Watermill: PublishSubscribeInOrder."""
    sent = numbered(1000)
    backend.publish(*sent)
    consumers = [backend.subscriber(f"consumer-{number}") for number in range(4)]
    taken: list[bytes] = []
    while more := [raw for consumer in consumers for raw in raws(consumer.take(7))]:
        taken += more
    assert taken == sent


def test_streams_are_apart(backend: Backend) -> None:
    """Watermill: Topic."""
    streams = [backend.keys.events, backend.keys.changes("tracks")]
    for stream in streams:
        backend.publish(stream.encode(), key=stream)
    for stream in streams:
        assert backend.subscriber(key=stream).drain() == [stream.encode()]


def test_a_new_group_receives_old_events_and_then_the_new_ones(backend: Backend) -> None:
    """Watermill: NewSubscriberReceivesOldMessages."""
    groups = []
    sent = [b"before anyone"]
    backend.publish(b"before anyone")
    received: list[list[bytes]] = []
    for number, raw in enumerate(numbered(3)):
        backend.publish(raw)
        sent.append(raw)
        groups.append(backend.subscriber(group=f"group_{number}"))
        received.append([])
        for group, so_far in zip(groups, received, strict=True):
            so_far.extend(group.drain())
            assert so_far == sent


def test_each_group_receives_every_event(backend: Backend) -> None:
    """Watermill: ConsumerGroups."""
    names = ("rebuilder", "audit")
    for name in names:  # both are there before anything is published
        with_nothing_yet = backend.subscriber(group=name)
        assert with_nothing_yet.drain() == []
        with_nothing_yet.close()
    sent = numbered(50)
    backend.publish(*sent)
    for name in names:
        assert backend.subscriber(group=name).drain() == sent


def test_a_group_that_comes_after_all_was_written_receives_it(backend: Backend) -> None:
    """Redpanda Connect: StreamTestStreamIsolated."""
    sent = numbered(100)
    for raw in sent:
        backend.publish(raw)
    assert backend.subscriber().drain(count=9) == sent


def test_a_read_brings_as_many_events_as_it_asks_for(backend: Backend) -> None:
    """Redpanda Connect: StreamTestReceiveBatchCount."""
    backend.publish(*numbered(25))
    subscriber = backend.subscriber()
    assert [len(subscriber.handle(10)) for _ in range(4)] == [10, 10, 5, 0]
