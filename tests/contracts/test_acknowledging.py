"""An acknowledgement says something of one event, and never of those before it."""

from indexrelay.streams.consumer import Position
from indexrelay.streams.retention import group_state
from tests.contracts.backends import Backend
from tests.contracts.subscribing import Subscriber, numbered, raws


def _take_five_and_refuse_c_and_e(backend: Backend) -> tuple[Subscriber, bytes]:
    """Take A to E one by one, accept A, B and, out of turn, D; the entry id of C."""
    backend.publish(b"A", b"B", b"C", b"D", b"E")
    subscriber = backend.subscriber()
    taken = {}
    for expected in (b"A", b"B", b"C", b"D", b"E"):
        (delivery,) = subscriber.take(1)
        assert delivery.raw == expected
        taken[expected] = delivery
        if expected in (b"A", b"B", b"D"):
            subscriber.accept(delivery)
    return subscriber, taken[b"C"].entry_id


def test_a_later_acknowledgement_says_nothing_of_an_earlier_event(backend: Backend) -> None:
    """Redpanda Connect: StreamTestCheckpointCapture."""
    before, unacknowledged = _take_five_and_refuse_c_and_e(backend)
    state = group_state(backend.connect(), backend.keys.events, "rebuilder")
    assert state is not None
    assert state.lowest_pending == Position.of(unacknowledged), "trimming stops below it"
    before.close()
    assert backend.subscriber().drain() == [b"C", b"E"]


def test_a_group_that_is_lost_begins_again_at_the_first_unacknowledged_event(
    backend: Backend,
) -> None:
    """Redpanda Connect: StreamTestCheckpointCapture, by its offsets: C, D and E come again."""
    subscriber, _ = _take_five_and_refuse_c_and_e(backend)
    backend.connect().commands.xgroup_destroy(backend.keys.events, "rebuilder")
    assert subscriber.drain() == [b"C", b"D", b"E"]
    assert subscriber.group.recreated == 1


def test_a_consumer_that_took_much_unacknowledged_goes_on_once_it_acknowledges(
    backend: Backend,
) -> None:
    """Redpanda Connect: StreamTestStreamSaturatedUnacked."""
    sent = numbered(400)
    backend.publish(*sent)
    subscriber = backend.subscriber()
    held = [delivery for _ in range(100) for delivery in subscriber.take(1)]
    assert raws(held) == sent[:100]
    subscriber.accept(*held)
    assert subscriber.drain() == sent[100:]
    state = group_state(backend.connect(), backend.keys.events, "rebuilder")
    assert state is not None
    assert state.lowest_pending is None
