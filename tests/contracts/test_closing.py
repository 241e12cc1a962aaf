"""Consumers come and go, at any moment and at the same time, and no event goes with them."""

import threading
from functools import partial

from tests.contracts.backends import Backend
from tests.contracts.subscribing import numbered, raws
from tests.contracts.together import together
from tests.streams.polling import eventually


def test_what_a_consumer_left_behind_is_there_for_its_successor(backend: Backend) -> None:
    """Watermill: ContinueAfterSubscribeClose."""
    sent = numbered(5000)
    backend.publish(*sent)
    accepted: list[bytes] = []
    for _ in range(5):
        subscriber = backend.subscriber()
        deliveries = subscriber.take(1000)
        half = deliveries[:500]
        subscriber.accept(*half)
        accepted += raws(half)
        subscriber.close()
    assert accepted == sent[:2500], "what one had taken is the first that the next is given"
    assert backend.subscriber().drain(count=1000) == sent[2500:]


def test_what_a_consumer_left_behind_is_there_for_another_one(backend: Backend) -> None:
    """Watermill: ContinueAfterSubscribeClose, when the consumer does not come back."""
    sent = numbered(100)
    backend.publish(*sent)
    gone = backend.subscriber("gone")
    gone.accept(*gone.take(50)[:10])
    gone.close()
    received = backend.subscriber("other", claim_idle_seconds=0.1).receive(90)
    assert sorted(received) == sorted(sent[10:])


def test_consumers_that_close_at_the_same_time_disturb_nobody(backend: Backend) -> None:
    """Watermill: ConcurrentClose."""

    def subscribe_and_leave(name: str) -> None:
        subscriber = backend.subscriber(name)
        assert subscriber.take() == []
        together([subscriber.close] * 3)

    together([partial(subscribe_and_leave, f"consumer-{number}") for number in range(10)])
    sent = numbered(50)
    backend.publish(*sent)
    assert backend.subscriber("consumer-3").drain() == sent


def test_a_closed_connection_may_be_used_again(backend: Backend) -> None:
    """Watermill: ConcurrentClose, and then the same subscriber once more."""
    subscriber = backend.subscriber()
    assert subscriber.take() == []
    together([subscriber.close] * 10)
    backend.publish(b"after")
    assert subscriber.drain() == [b"after"]


def test_a_consumer_that_is_told_to_end_ends_and_leaves_what_it_had_not_handled(
    backend: Backend,
) -> None:
    """Watermill: SubscribeCtx."""
    cancelled = threading.Event()
    taken: list[bytes] = []

    def take_until_cancelled() -> None:
        subscriber = backend.subscriber()
        while not cancelled.is_set():
            taken.extend(raws(subscriber.take(wait_seconds=0.05)))
        subscriber.close()

    sent = numbered(20)
    backend.publish(*sent)
    consumer = threading.Thread(target=take_until_cancelled)
    consumer.start()
    eventually(lambda: len(taken) == len(sent))
    cancelled.set()
    consumer.join(timeout=10)
    assert not consumer.is_alive()
    assert backend.subscriber().drain() == sent
