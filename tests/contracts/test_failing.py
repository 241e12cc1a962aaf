"""Who fails on an event says nothing of it: it comes again, and nothing else waits for it."""

from collections import Counter

from tests.contracts.backends import Backend
from tests.contracts.subscribing import numbered, raws
from tests.contracts.together import together
from tests.streams.polling import eventually


def test_an_event_that_its_consumer_failed_on_comes_again(backend: Backend) -> None:
    """Watermill: ResendOnError."""
    sent = numbered(100)
    backend.publish(*sent)
    subscriber = backend.subscriber(claim_idle_seconds=0.2)
    failed = raws(subscriber.take(2))
    received = subscriber.receive(len(sent))
    assert failed == sent[:2]
    assert Counter(received) == Counter(sent)


def test_an_unacknowledged_event_goes_to_nobody_else_and_holds_up_no_other(
    backend: Backend,
) -> None:
    """Watermill: NoAck, but for one thing: what follows an unacknowledged event is handed out."""
    backend.publish(b"slow", b"next")
    worker, other = backend.subscriber("worker"), backend.subscriber("other")
    (slow,) = worker.take(1)
    assert other.handle() == [b"next"]
    for _ in range(3):
        assert worker.take() == other.take() == []
    worker.accept(slow)
    late = backend.subscriber("late", claim_idle_seconds=0.0)
    assert late.take() == []


def test_consumers_that_fail_on_everything_leave_everything_for_the_next(
    backend: Backend,
) -> None:
    """Watermill: ContinueAfterErrors."""
    sent = numbered(50)
    backend.publish(*sent)
    for number in range(3):
        failing = backend.subscriber(f"failing-{number}", claim_idle_seconds=0.0)
        for _ in range(2):
            assert len(failing.take()) == len(sent)
        failing.close()
    good = backend.subscriber("good", claim_idle_seconds=0.0)
    deliveries = good.take()
    good.accept(*deliveries)
    assert raws(deliveries) == sent
    assert {delivery.deliveries for delivery in deliveries} == {7}, "each failure was counted"
    assert good.drain() == []


def test_what_was_refused_comes_again_after_a_restart_and_nothing_else_does(
    backend: Backend,
) -> None:
    """Redpanda Connect: StreamTestAtLeastOnceDelivery."""
    backend.publish(b"A", b"B", b"C", b"D", b"E")
    before = backend.subscriber()
    deliveries = before.take()
    before.accept(*(each for each in deliveries if each.raw not in (b"C", b"E")))
    before.close()
    assert backend.subscriber().drain() == [b"C", b"E"]
    assert backend.subscriber(claim_idle_seconds=0.0).drain() == []


def test_a_tenth_that_is_refused_comes_again_while_more_is_published(backend: Backend) -> None:
    """Redpanda Connect: StreamTestStreamParallelLossy."""
    _lose_a_tenth(backend, reconnect=False)


def test_a_tenth_that_is_refused_comes_again_to_a_consumer_that_reconnected(
    backend: Backend,
) -> None:
    """Redpanda Connect: StreamTestStreamParallelLossyThroughReconnect."""
    _lose_a_tenth(backend, reconnect=True)


def _lose_a_tenth(backend: Backend, *, reconnect: bool) -> None:
    """Refuse every tenth event of a thousand, published meanwhile, when it comes first."""
    sent = numbered(1000)

    def publish_one_by_one() -> Counter[bytes]:
        for begin in range(0, len(sent), 10):
            backend.publish(*sent[begin : begin + 10])
        return Counter()

    def receive() -> Counter[bytes]:
        subscriber = backend.subscriber(claim_idle_seconds=60.0 if reconnect else 0.1)
        seen: Counter[bytes] = Counter()
        refused: set[bytes] = set()

        def first_time() -> bool:
            for delivery in subscriber.take():
                (raw,) = raws([delivery])
                seen[raw] += 1
                if int(raw) % 10 == 1 and raw not in refused:
                    refused.add(raw)
                else:
                    subscriber.accept(delivery)
            return len(seen) == len(sent)

        eventually(first_time, seconds=30)
        if reconnect:
            subscriber.close()
            subscriber = backend.subscriber()
        while sum(seen.values()) < len(sent) + len(refused):
            seen.update(subscriber.receive(1))
        assert subscriber.drain() == []
        return seen

    _, seen = together([publish_one_by_one, receive])
    assert seen == Counter(sent) + Counter(sent[1::10])
