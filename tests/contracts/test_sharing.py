"""Many publish and many consume at the same time, and each event is handled by one of them."""

import itertools
from collections import Counter
from functools import partial

from indexrelay.streams import publish, publish_many
from tests.contracts.backends import Backend
from tests.contracts.subscribing import numbered
from tests.contracts.together import together


def test_consumers_of_a_group_share_what_many_publish(backend: Backend) -> None:
    """Watermill: ConcurrentSubscribe."""
    sent = [numbered(100, prefix=f"{publisher}-") for publisher in range(50)]

    def publish_each(raws: list[bytes]) -> None:
        connection = backend.connect()
        for raw in raws:
            publish(connection, backend.keys.events, raw)

    together([partial(publish_each, raws) for raws in sent])
    consumers = [backend.subscriber(f"consumer-{number}") for number in range(50)]
    handled = together([partial(consumer.drain, count=10) for consumer in consumers])
    assert Counter(itertools.chain(*handled)) == Counter(itertools.chain(*sent))


def test_streams_that_are_used_at_the_same_time_stay_apart(backend: Backend) -> None:
    """Watermill: ConcurrentSubscribeMultipleTopics."""

    def publish_and_receive(collection: str) -> list[bytes]:
        stream = backend.keys.changes(collection)
        publish_many(backend.connect(), stream, numbered(100, prefix=f"{collection}-"))
        return backend.subscriber(key=stream).drain(count=10)

    collections = [f"collection_{number}" for number in range(20)]
    received = together([partial(publish_and_receive, name) for name in collections])
    assert received == [numbered(100, prefix=f"{name}-") for name in collections]


def test_nothing_is_lost_when_publishers_leave_right_after_their_last_event(
    backend: Backend,
) -> None:
    """Watermill: PublisherClose."""
    sent = [numbered(500, prefix=f"{publisher}-") for publisher in range(20)]

    def publish_and_leave(raws: list[bytes]) -> None:
        connection = backend.connect()
        for begin in range(0, len(raws), 50):
            publish_many(connection, backend.keys.events, raws[begin : begin + 50])
        connection.close()

    together([partial(publish_and_leave, raws) for raws in sent])
    handled = backend.subscriber().drain(count=1000)
    assert Counter(handled) == Counter(itertools.chain(*sent))


def test_batches_keep_their_order_while_others_are_published_and_consumed(
    backend: Backend,
) -> None:
    """Redpanda Connect: StreamTestSendBatches."""
    batches = [numbered(20, prefix=f"{batch}-") for batch in range(100)]

    def publish_batches(first: int) -> list[bytes]:
        connection = backend.connect()
        for batch in batches[first::10]:
            publish_many(connection, backend.keys.events, batch)
        return []

    subscriber = backend.subscriber()
    receive = partial(subscriber.receive, wanted=2000)
    *_, received = together([*(partial(publish_batches, each) for each in range(10)), receive])
    assert len(received) == 2000
    place = {raw: number for number, raw in enumerate(received)}
    for batch in batches:
        places = [place[raw] for raw in batch]
        assert places == sorted(places)
