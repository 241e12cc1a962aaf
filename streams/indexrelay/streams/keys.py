"""The names of everything that one installation keeps in Redis, and how keys are found.

All names share the hash tag ``{namespace}``, so that on a Redis Cluster they live in one slot and
a script may touch several of them.

Keys are found by SCAN, which goes through all keys of its database, a few thousand in each step, so
that no other client waits for it; it returns every key that is there from its beginning to its end.
Where other programs keep millions of keys on the same server, a database number of one's own makes
it short.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.schemas.names import is_name, split_member_id
from indexrelay.streams.connection import Connection

REBUILDERS_GROUP: Final = "rebuilder"
"""The consumer group in which all rebuilders read the events."""


@dataclass(frozen=True)
class Keys:
    """The keys of ``namespace``; installations with different ones do not see each other.

    Raises:
        ValueError: ``namespace`` is not a name (it would break out of the hash tag).
    """

    namespace: str

    def __post_init__(self) -> None:
        if not is_name(self.namespace):
            raise ValueError(
                f"namespace {self.namespace!r}: lower-case letters, digits and _ after a letter, "
                "at most 64"
            )

    @property
    def events(self) -> str:
        """Stream: events of jobs and people, for the rebuilders."""
        return self._key("events")

    @property
    def results(self) -> str:
        """Stream: the result of each rebuild."""
        return self._key("results")

    @property
    def reloads(self) -> str:
        """Stream: published releases, for every reader."""
        return self._key("reloads")

    def reports(self, label: str) -> str:
        """Stream: how the readers under one label loaded each release."""
        return self._key(f"reports:{label}")

    @property
    def release(self) -> str:
        """String: the number of the newest announced release."""
        return self._key("release")

    def changes(self, collection: str) -> str:
        """Stream: live upserts and deletes of one collection."""
        return self._key(f"changes:{collection}")

    def lease(self, component: str) -> str:
        """String with a TTL: the process that builds the component now."""
        return self._key(f"lease:{component}")

    def reader(self, member: str) -> str:
        """String with a TTL: the whole state of one reader process, ``LABEL:INSTANCE``."""
        return self._key(f"reader:{member}")

    def rebuilder(self, member: str) -> str:
        """String with a TTL: the whole state of one rebuilder process, ``LABEL:INSTANCE``."""
        return self._key(f"rebuilder:{member}")

    def announced(self, digest: str) -> str:
        """String with a TTL: the result with this digest was announced."""
        return self._key(f"announced:{digest}")

    def aside(self, key: str) -> str:
        """A key that was set aside, since what ``key`` held is not ours."""
        return self.aside_of(key.partition(":")[2])

    def aside_of(self, name: str) -> str:
        """A key that was set aside, by the name that it had without the namespace."""
        return self._key(f"aside:{name}")

    def _key(self, rest: str) -> str:
        return f"{{{self.namespace}}}:{rest}"


def label_of(key: str) -> str | None:
    """The only label of readers that may write ``key``, or wrote what was set aside there.

    ``None``: rebuilders or jobs may.
    """
    name = key.partition("}:")[2].removeprefix("aside:")
    kind, _, rest = name.partition(":")
    return split_member_id(rest)[0] if kind in {"reader", "reports"} else None


_STEP: Final = 5000
"""Keys that one step looks at: 0.3 ms of the server's time, and a round trip."""


def scan(connection: Connection, pattern: str) -> Iterator[str]:
    """The keys that match the glob ``pattern``; one may come twice.

    A name that is no text is given with replacement characters, and names no key of ours.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    commands: Any = connection.commands
    cursor = 0
    while True:
        cursor, found = commands.scan(cursor, match=pattern, count=_STEP)
        for key in found:
            yield key.decode(errors="replace")
        if not cursor:
            return
