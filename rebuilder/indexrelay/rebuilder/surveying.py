"""What Redis shows of a pipeline that does not flow: events, leases and readers left behind.

Nothing of it is the truth about anything, and most of it ends by itself: a lease by its TTL, an
event that a dead consumer took by being claimed, a reader's delay by its next poll. Seen here it
explains why something waits, and what never ends by itself is told.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from indexrelay.rebuilder.findings import Finding, Standing
from indexrelay.schemas.names import member_id
from indexrelay.schemas.results import LoadOutcome, ReaderState, RebuilderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.streams import Connection, Keys, present
from indexrelay.streams.connection import NO_EVICTION
from indexrelay.streams.inspection import group_state
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.leases import HeldLease, held_leases, limit_lease

_POLLS = 3
"""A reader that has not followed within so many of its polls is behind, and not just on its way."""


class Survey:
    """Looks at what one installation keeps in Redis.

    Every method raises:
        redis.exceptions.RedisError, BackendRefusedError: the server is away, or says no.
    """

    def __init__(self, settings: Settings, connection: Connection, keys: Keys) -> None:
        self._settings = settings
        self._connection = connection
        self._keys = keys

    def rebuilders(self) -> dict[str, RebuilderState | None]:
        """Those that are alive."""
        return present(self._connection, self._keys, "rebuilder", RebuilderState)

    def eviction(self) -> Iterator[Finding]:
        """A server that makes room by forgetting; it may be another one than at the start."""
        policy = self._connection.eviction_policy()
        if policy not in (None, NO_EVICTION):
            yield Finding(
                about="redis",
                what=f"with maxmemory-policy {policy} the server may drop events and leases "
                "silently when its memory is full",
                standing=Standing.LEFT,
                advice=f"set maxmemory-policy {NO_EVICTION} in its configuration: it then refuses "
                "what does not fit, and jobs are told",
            )

    def pending(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        """Events that somebody took and never acknowledged."""
        group = group_state(self._connection, self._keys.events, REBUILDERS_GROUP)
        longest = self._settings.rebuilder.claim_idle_seconds
        for consumer in group.consumers if group is not None else ():
            if consumer.pending and consumer.idle_seconds > longest:
                yield Finding(
                    about="events",
                    what=f"{consumer.pending} event(s) were taken by rebuilder {consumer.name}, "
                    f"which has been silent for {consumer.idle_seconds:.0f} s",
                    **_by_a_rebuilder(alive, "the next read of a running rebuilder takes them"),
                )

    def leases(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        """Leases whose owner is gone, and such as would never end."""
        names = {self._keys.lease(name): name for name in self._settings.components}
        for key, lease in held_leases(self._connection, list(names)).items():
            if lease.seconds_left is None:
                ttl_seconds = self._settings.rebuilder.lease_ttl_seconds
                limit_lease(self._connection, key, ttl_seconds=ttl_seconds)
                yield Finding(
                    about="lease",
                    what=f"the lease of {names[key]} had no end and was given one",
                    standing=Standing.MENDED,
                    advice=f"{names[key]} is free in {ttl_seconds:g} s at the latest",
                )
            elif not _is_alive(lease, alive):
                yield Finding(
                    about="lease",
                    what=f"{names[key]} is leased by a rebuilder that is gone",
                    standing=Standing.WAITING,
                    advice=f"the lease ends by itself in {lease.seconds_left:.0f} s",
                )

    def readers(self) -> dict[str, ReaderState | None]:
        """Those that are alive."""
        return present(self._connection, self._keys, "reader", ReaderState)

    def behind(
        self, readers: Mapping[str, ReaderState | None], newest: Release | None, now: datetime
    ) -> Iterator[Finding]:
        """Readers that do not serve the newest release, or not all of it."""
        for member, state in readers.items():
            if state is None:
                yield Finding(
                    about="reader",
                    what=f"reader {member} reports in a form that is not understood here",
                    standing=Standing.LEFT,
                    advice="bring it and this process to the same major version",
                )
                continue
            if newest is not None and self._is_behind(state, newest, now):
                yield Finding(
                    about="reader",
                    what=f"reader {state.process} is at release {state.release}, "
                    f"{newest.number} is the newest",
                    standing=Standing.LEFT,
                    advice="look into its log; restarted, it begins with the newest release",
                )
            yield from _failed_loads(state)

    def _is_behind(self, state: ReaderState, newest: Release, now: datetime) -> bool:
        if state.release >= newest.number:
            return False
        grace = timedelta(seconds=_POLLS * self._settings.reader.poll_seconds)
        # One that starts late has its own time, too.
        return now - max(newest.created_at, state.started_at) > grace


def _is_alive(lease: HeldLease, alive: Mapping[str, RebuilderState | None]) -> bool:
    """Whether the life of a rebuilder that took the lease goes on (see `Workshop` for owners)."""
    label, *life = lease.owner.rsplit(":", 2)
    pid, instance = life if len(life) == 2 else ("", "")
    if member_id(label, instance) in alive:
        return True
    # One of schema 1.0 is present by its label alone, and its leases name another random part.
    state = alive.get(label)
    return label in alive and (state is None or pid == str(state.pid))


def _failed_loads(state: ReaderState) -> Iterable[Finding]:
    for name, component in state.components.items():
        if component.outcome is LoadOutcome.FAILED:
            yield Finding(
                about="reader",
                what=f"reader {state.process} could not load {name}: {component.error}",
                standing=Standing.LEFT,
                advice="what may pass it tries again by itself; "
                f"a damaged version needs a new one: indexrelay rebuild {name}",
            )


def _by_a_rebuilder(alive: Mapping[str, object], what: str) -> dict[str, str]:
    """How something stands that any rebuilder puts right by itself."""
    if alive:
        return {"standing": Standing.WAITING, "advice": what}
    return {"standing": Standing.LEFT, "advice": "start a rebuilder: indexrelay rebuilder"}
