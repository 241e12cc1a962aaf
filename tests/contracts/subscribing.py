"""Whoever subscribes in a scenario: one consumer of a group, with a connection of its own.

Watermill and Redpanda Connect speak of a negative acknowledgement. There is none here: who fails to
handle an event says nothing, and it comes again, to the same consumer when it starts anew or to any
once it lay idle for ``claim_idle_seconds``.
"""

from indexrelay.streams import Connection, ConsumerGroup, Delivery
from tests.streams.polling import eventually


class Subscriber:
    """Takes events, and says which of them it has handled; for use by one thread."""

    def __init__(
        self,
        connection: Connection,
        key: str,
        *,
        group: str,
        name: str,
        claim_idle_seconds: float,
    ) -> None:
        self._connection = connection
        self.group = ConsumerGroup(
            connection, key, group=group, consumer=name, claim_idle_seconds=claim_idle_seconds
        )

    def take(self, count: int = 100, *, wait_seconds: float = 0.0) -> list[Delivery]:
        """Take what is there, and say nothing of it."""
        return self.group.read(count=count, block_seconds=wait_seconds)

    def accept(self, *deliveries: Delivery) -> None:
        """Say that these are handled."""
        self.group.acknowledge([delivery.entry_id for delivery in deliveries])

    def handle(self, count: int = 100) -> list[bytes]:
        """Take what is there, and accept all of it."""
        deliveries = self.take(count)
        self.accept(*deliveries)
        return raws(deliveries)

    def drain(self, *, count: int = 100) -> list[bytes]:
        """Handle everything, until there is nothing left."""
        handled: list[bytes] = []
        while more := self.handle(count):
            handled += more
        return handled

    def receive(self, wanted: int) -> list[bytes]:
        """Handle until there were ``wanted`` different events; repeated ones are in the result."""
        received: list[bytes] = []

        def enough() -> bool:
            deliveries = self.take()
            received.extend(raws(deliveries))
            self.accept(*deliveries)
            return len(set(received)) >= wanted

        eventually(enough, seconds=30)
        return received

    def close(self) -> None:
        """Leave, as a process that ends: nothing more is said about what was taken."""
        self._connection.close()


def raws(deliveries: list[Delivery]) -> list[bytes]:
    """What the deliveries hold; none of them may have been trimmed."""
    found = [delivery.raw for delivery in deliveries if delivery.raw is not None]
    assert len(found) == len(deliveries)
    return found


def numbered(count: int, *, prefix: str = "") -> list[bytes]:
    """``count`` different events, in this order."""
    return [f"{prefix}{number}".encode() for number in range(count)]
