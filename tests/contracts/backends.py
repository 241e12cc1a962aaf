"""The servers that a contract is held against, and the ways to them.

A `Backend` is one server in the state that a test finds it in: empty. Whoever takes part in a
scenario gets a connection of its own from it, as a process of its own would have, and what a test
opened is closed when it ends.

What fakeredis cannot do is no lack of the machine: those scenarios are skipped for it everywhere,
in CI too, with the reason.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import pytest

from indexrelay.streams import Connection, Keys, publish_many
from tests.contracts.subscribing import Subscriber

FAKE: Final = "fakeredis"
REAL: Final = ("valkey", "redis", "redis62")

NO_PROCESS: Final = "fakeredis is no process that could be stopped and started again"


class Backend:
    """One server, emptied; `connect` and `subscriber` may be called from several threads."""

    def __init__(self, name: str, opening: Callable[[], Connection], opened: ExitStack) -> None:
        self.name = name
        self.keys = Keys("test")
        self._opening = opening
        self._opened = opened

    def needs_a_real_server(self, reason: str) -> None:
        """Skip the rest of the test on fakeredis."""
        if self.name == FAKE:
            pytest.skip(reason)

    def connect(self) -> Connection:
        """One more connection, closed with the test."""
        return self._opened.enter_context(self._opening())

    def subscriber(
        self,
        name: str = "a",
        *,
        key: str | None = None,
        group: str = "rebuilder",
        claim_idle_seconds: float = 60.0,
    ) -> Subscriber:
        """A consumer of a group of the stream ``key`` (the events), on a connection of its own."""
        return Subscriber(
            self.connect(),
            key or self.keys.events,
            group=group,
            name=name,
            claim_idle_seconds=claim_idle_seconds,
        )

    def publish(self, *raws: bytes, key: str | None = None) -> list[bytes]:
        """Add events to the stream ``key`` (the events); their entry ids."""
        with self._opening() as connection:
            return publish_many(connection, key or self.keys.events, raws)
