"""The names of everything that one installation keeps in Redis.

All of them share the hash tag ``{namespace}``, so that on a Redis Cluster they live in one slot and
a script may touch several of them.
"""

from dataclasses import dataclass
from typing import Final

from indexrelay.schemas.names import is_name

REBUILDERS_GROUP: Final = "rebuilder"
"""The group in which all rebuilders read the events together."""


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
        """Stream: what jobs and people say to the rebuilders."""
        return self._key("events")

    @property
    def results(self) -> str:
        """Stream: what came of each rebuild."""
        return self._key("results")

    @property
    def reloads(self) -> str:
        """Stream: published releases, for every reader."""
        return self._key("reloads")

    def reports(self, label: str) -> str:
        """Stream: what the readers under one label made of each release."""
        return self._key(f"reports:{label}")

    @property
    def release(self) -> str:
        """String: the number of the newest announced release."""
        return self._key("release")

    def changes(self, collection: str) -> str:
        """Stream: live upserts and deletes of one collection."""
        return self._key(f"changes:{collection}")

    def lease(self, component: str) -> str:
        """String: who builds the component now."""
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
        """What was found under ``key`` and is not ours."""
        return self._key(f"aside:{key.partition(':')[2]}")

    def _key(self, rest: str) -> str:
        return f"{{{self.namespace}}}:{rest}"
