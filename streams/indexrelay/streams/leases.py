"""A lease: at most one owner at a time, and it ends by itself when its owner dies.

A script compares the owner before anything is written, so that no process renews or releases the
lease of another. An error never means yes: it is raised, and a process that gets one must act as if
it did not hold the lease.

A lease saves work, and nothing more: an owner that was stopped for longer than the TTL can go on
for a while beside the next one, and a failover can lose the lease. What must not happen twice is
decided where it is written (a release file is created only if it is absent).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from indexrelay.streams.connection import Connection, replies_of, writes_to
from indexrelay.streams.presence import Identity


@dataclass(frozen=True, kw_only=True)
class LeaseOwner:
    """The process that takes leases; as text ``LABEL:PID:INSTANCE``.

    A process that comes back under the same label must not take its old lease for its own; nor must
    one that was forked.
    """

    label: str
    pid: str
    instance: str

    @classmethod
    def of(cls, identity: Identity) -> Self:
        """This process, at this moment: another one after a fork."""
        return cls(label=identity.label, pid=str(identity.pid), instance=identity.instance)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; of any other text all is the label."""
        label, *life = text.rsplit(":", 2)
        if len(life) != 2:
            return cls(label=text, pid="", instance="")
        return cls(label=label, pid=life[0], instance=life[1])

    def __str__(self) -> str:
        return f"{self.label}:{self.pid}:{self.instance}"


class Lease:
    """The lease ``key``, as ``owner`` sees it; safe to use from any thread.

    Args:
        connection: to the server that holds the lease.
        key: the lease's key.
        owner: unique among everyone who may want it, as a `LeaseOwner` is.
        ttl_seconds: how long a dead owner blocks it; renew it at a third of that.

    Every method raises:
        BackendRefusedError: the server refused it.
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: it did not answer.
    """

    def __init__(self, connection: Connection, key: str, *, owner: str, ttl_seconds: float) -> None:
        if not owner:
            raise ValueError("a lease needs an owner")
        if ttl_seconds < 0.001:
            raise ValueError(f"ttl_seconds={ttl_seconds}: at least a millisecond")
        self._connection = connection
        self._key = key
        self._owner = owner
        self._ttl_ms = round(ttl_seconds * 1000)

    def acquire(self) -> bool:
        """Take it if it is free; an owner that has it already renews it."""
        return self._run("lease_acquire", self._owner, self._ttl_ms)

    def renew(self) -> bool:
        """Let its TTL begin again; false: it is no longer ours, so stop what it was for."""
        return self._run("lease_renew", self._owner, self._ttl_ms)

    def release(self) -> bool:
        """Give it back; false: it was no longer ours."""
        return self._run("lease_release", self._owner)

    def _run(self, script: str, *arguments: str | int) -> bool:
        with writes_to(self._key):
            return bool(self._connection.script(script)(keys=[self._key], args=arguments))


@dataclass(frozen=True, kw_only=True)
class HeldLease:
    """A lease that some process holds."""

    owner: str
    seconds_left: float | None
    """``None``: it has no TTL, which every lease of ours has."""


def held_leases(connection: Connection, keys: Sequence[str]) -> dict[str, HeldLease]:
    """Those of the leases ``keys`` that are held now.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    if not keys:
        return {}
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.get(key)
            pipeline.pttl(key)
        replies = replies_of(pipeline)
    return {
        key: HeldLease(
            owner=owner.decode(errors="replace"),
            seconds_left=None if milliseconds == -1 else milliseconds / 1000,
        )
        for key, owner, milliseconds in zip(keys, replies[::2], replies[1::2], strict=True)
        if owner is not None and milliseconds != -2
    }


def limit_lease(connection: Connection, key: str, *, ttl_seconds: float) -> None:
    """Give a lease without a TTL one of ``ttl_seconds``, which its owner may renew.

    Raises:
        BackendRefusedError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as
            `Lease`.
    """
    with writes_to(key):
        connection.commands.pexpire(key, round(ttl_seconds * 1000))
