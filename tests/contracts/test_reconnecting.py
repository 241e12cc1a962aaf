"""The server goes away and comes back under publishers, a group and a tail, and nothing is lost."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from indexrelay.schemas.messages import FIELD
from indexrelay.streams import (
    Connection,
    Keys,
    Tail,
    is_transient,
    publish,
    publish_many,
)
from tests.contracts.subscribing import Subscriber, numbered, raws
from tests.fixtures.servers import PrivateServer
from tests.streams.polling import eventually

EVENTS = 10_000
PUBLISHERS = 10
KEYS = Keys("test")


class Publishers:
    """Publish `EVENTS` events, and repeat each write whose fate they do not know."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.published = 0
        """How many events were answered for."""
        self.leaving = (threading.Event(), threading.Event())
        """Set when the server goes. Nobody publishes past 40 % before the first time, nor past 60 %
        before the second: however fast they are, there are writes in each outage."""
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._publish, args=(numbered(EVENTS)[each::PUBLISHERS],))
            for each in range(PUBLISHERS)
        ]
        for thread in self._threads:
            thread.start()

    def _publish(self, raws: list[bytes]) -> None:
        pause = threading.Event()
        with Connection.open(self._url) as connection:
            for begin in range(0, len(raws), 20):
                for percent, leaving in zip((40, 60), self.leaving, strict=True):
                    if begin * 100 >= len(raws) * percent:
                        leaving.wait(timeout=60)
                batch = raws[begin : begin + 20]
                while not self._arrived(connection, batch):
                    pause.wait(0.01)
                with self._counting:
                    self.published += len(batch)

    def _arrived(self, connection: Connection, batch: list[bytes]) -> bool:
        try:
            publish_many(connection, KEYS.events, batch)
        except RedisError as error:
            if not is_transient(error):
                raise
            return False
        return True

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
        assert self.published == EVENTS


def _restart_twice(
    server: PrivateServer, publishers: Publishers, received: Sequence[bytes]
) -> None:
    """In order after a third of the events, and by SIGKILL after half of them.

    Whoever receives has its third, or half, as well: it meets each outage by itself.
    """
    leaves = zip((3, 2), (server.stop, server.kill), publishers.leaving, strict=True)
    for share, leave, leaving in leaves:
        arrived = partial(_arrived, publishers, received, EVENTS // share)
        eventually(arrived, seconds=60)
        leaving.set()
        leave()
        server.start()


def _arrived(publishers: Publishers, received: Sequence[bytes], events: int) -> bool:
    return publishers.published >= events and len(received) >= events


def test_ten_thousand_events_reach_a_group_over_two_restarts(restartable: PrivateServer) -> None:
    """Watermill: Reconnect."""
    received: list[bytes] = []
    with Connection.open(restartable.url) as connection:
        subscriber = Subscriber(
            connection, KEYS.events, group="rebuilder", name="a", claim_idle_seconds=1.0
        )

        def receive() -> bool:
            deliveries = subscriber.take(wait_seconds=0.05)
            received.extend(raws(deliveries))
            subscriber.accept(*deliveries)
            return len(set(received)) == EVENTS

        receiving = threading.Thread(target=partial(eventually, receive, seconds=60))
        receiving.start()
        publishers = Publishers(restartable.url)
        _restart_twice(restartable, publishers, received)
        publishers.join()
        receiving.join()
        assert set(received) == set(numbered(EVENTS))
        # What was taken when the server went is pending still, and no more than that.
        eventually(lambda: subscriber.handle() == [] and _pending(connection) == 0)


def _pending(connection: Connection) -> int:
    return int(connection.commands.xpending(KEYS.events, "rebuilder")["pending"])


def test_a_tail_reads_ten_thousand_events_in_order_over_two_restarts(
    restartable: PrivateServer,
) -> None:
    """Watermill: Reconnect, for a reader with a cursor of its own."""
    read: list[bytes] = []
    gaps = 0
    with Connection.open(restartable.url) as connection:
        publish(connection, KEYS.events, b"before")
        tail = Tail(connection, KEYS.events)
        assert tail.read(count=1, block_seconds=0).gap, "it takes its cursor, and is in doubt"

        def follow() -> bool:
            nonlocal gaps
            found = tail.read(count=100, block_seconds=0.05)
            read.extend(raws(found.deliveries))
            gaps += found.gap
            return len(set(read)) == EVENTS

        following = threading.Thread(target=partial(eventually, follow, seconds=60))
        following.start()
        publishers = Publishers(restartable.url)
        _restart_twice(restartable, publishers, read)
        publishers.join()
        following.join()
        entries: Any = connection.commands.xrange(KEYS.events)
    written = [fields[FIELD] for _, fields in entries]
    assert [b"before", *read] == written, "each once, and in order"
    # A connection has two sockets, and may meet the end of each at another read.
    assert 2 <= gaps <= 4, "each outage was a reason to look at the truth"
