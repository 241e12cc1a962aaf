"""A process that takes events, and is ended by a certain one: ``python … URL CATALOG_URL``."""

import os
import signal
import sys
from datetime import datetime

from indexrelay.rebuilder import inbox
from indexrelay.rebuilder.inbox import read_event
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Catalog, ReceivedEvent
from indexrelay.streams import Connection, ConsumerGroup, Keys
from indexrelay.streams.keys import REBUILDERS_GROUP

DEADLY = b"deadly"
MAX_DELIVERIES = 3


def read_or_die(raw: bytes, *, received_at: datetime) -> ReceivedEvent:
    """As a parser that crashes would."""
    if raw == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_event(raw, received_at=received_at)


def main(url: str, catalog_url: str) -> None:
    """Take what is there, until nothing is."""
    inbox.read_event = read_or_die
    keys = Keys("test")
    with Connection.open(url) as connection:
        group = ConsumerGroup(
            connection, keys.events, group=REBUILDERS_GROUP, consumer="the_same_each_time"
        )
        taking = inbox.Intake(
            group,
            stream=keys.events,
            catalog=Catalog.open(catalog_url),
            limits=RebuilderSettings(max_deliveries=MAX_DELIVERIES, max_dead_letters=10),
            clock=SystemClock(),
        )
        while taking.take(block_seconds=0):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
