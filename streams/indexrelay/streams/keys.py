"""The names of everything that one installation keeps in Redis, and how keys are found.

All names share the hash tag ``{namespace}``, so that on a Redis Cluster they live in one slot and
a script may touch several of them.

Keys are found by SCAN, which goes through all keys of its database, a few thousand in each step, so
that no other client waits for it; it returns every key that is there from its beginning to its end.
Whoever may write one key may write millions under its label; so every look has an end (`Scan.cut`).
Where other programs keep millions of keys on the same server, a database number of one's own makes
it short.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
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

    def improvement_lease(self, component: str) -> str:
        """String with a TTL: the process that builds a better version behind the one that serves.

        No component has a colon in its name.
        """
        return self._key(f"lease:{component}:improvement")

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


_LONG_STEP: Final = 20_000
_FEW: Final = 100
"""A step that found no more is followed by a longer one: hardly any of the keys match."""
_ONE_BY_ONE: Final = 16
"""Labels that are looked for by themselves; to go through all keys once for each of more takes
longer than to be given all of them."""
_GLOB: Final = re.compile(r"[][*?\\]")


def _escaped(character: "re.Match[str]") -> str:
    return f"\\{character[0]}"


SCAN_SECONDS: Final = 1.0
"""How long one look for keys may take that is given no other time: whoever may write adds keys as
fast as they are found, and then it would never end. Some million keys of others take that long."""


def within(seconds: float) -> Callable[[], bool]:
    """Whether fewer than ``seconds`` have passed since this call."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() < ends


class Scan:
    """The keys that match a glob; one may come twice.

    A name that is no text is given with replacement characters, and names no key of ours.

    Going through them raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """

    def __init__(
        self, connection: Connection, pattern: str, *, in_time: Callable[[], bool] | None = None
    ) -> None:
        """``in_time``: whether there is time for one more step; ``None``: for `SCAN_SECONDS`."""
        self._connection = connection
        self._pattern = pattern
        self._in_time = in_time
        self.cut = False
        """Whether it was ended before all keys were found."""

    def __iter__(self) -> Iterator[str]:
        for found in self.steps():
            for key in found:
                yield key.decode(errors="replace")

    def steps(self) -> Iterator[list[bytes]]:
        """The same, as they are found: some thousands at a time."""
        commands: Any = self._connection.commands
        in_time = self._in_time or within(SCAN_SECONDS)
        cursor, step = 0, _STEP
        while True:
            cursor, found = commands.scan(cursor, match=self._pattern, count=step)
            yield found
            step = _STEP if len(found) > _FEW else _LONG_STEP
            if not cursor:
                return
            if not in_time():
                self.cut = True
                return


def scan(
    connection: Connection, pattern: str, *, in_time: Callable[[], bool] | None = None
) -> Scan:
    """The keys that match the glob ``pattern``, as far as there is time to find them."""
    return Scan(connection, pattern, in_time=in_time)


@dataclass(frozen=True, kw_only=True)
class KeysByLabel:
    """The keys of one kind, by the label in their names."""

    keys: Mapping[str, AbstractSet[str]]
    """Of each label no more than were asked for."""
    crowded: Mapping[str, int]
    """Labels that have more, and how many were counted."""
    cut: bool
    """Whether there are more keys than were gone through."""


def keys_by_label(
    connection: Connection,
    prefix: str,
    *,
    most: int,
    labels: Collection[str] | None = None,
    in_time: Callable[[], bool] | None = None,
) -> KeysByLabel:
    """The keys ``PREFIX LABEL:INSTANCE`` and ``PREFIX LABEL``, up to ``most`` of each label.

    Few labels that are known are looked for one by one: the server passes over all others, and a
    look ends when there are more than ``most``. So who floods another label delays it little.

    Args:
        labels: those that are looked for; ``None``: all.
        in_time: whether there is time for one more step; ``None``: for `SCAN_SECONDS`.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    in_time = in_time or within(SCAN_SECONDS)
    one_by_one = labels is not None and len(labels) <= _ONE_BY_ONE
    patterns = [f"{prefix}*"]
    if labels is not None and one_by_one:
        patterns = [f"{prefix}{_GLOB.sub(_escaped, label)}:*" for label in sorted(labels)]
    wanted = None if labels is None else {label.encode() for label in labels}
    found: dict[bytes, set[bytes]] = {}
    if wanted is not None and one_by_one:
        found = {label: {prefix.encode() + label} for label in wanted}
    crowded: dict[bytes, int] = {}
    cut = False
    for pattern in patterns:
        looked, label = scan(connection, pattern, in_time=in_time), b""
        for step in looked.steps():
            for key in step:
                label = key[len(prefix) :].partition(b":")[0]
                if label in crowded:
                    crowded[label] += 1
                    continue
                if wanted is not None and label not in wanted:
                    continue
                known = found.setdefault(label, set())
                known.add(key)
                if len(known) > most:
                    known.discard(key)
                    crowded[label] = most + 1
            if one_by_one and label in crowded:
                break
        cut = cut or looked.cut
    return KeysByLabel(
        keys={
            label.decode(errors="replace"): {key.decode(errors="replace") for key in known}
            for label, known in found.items()
        },
        crowded={label.decode(errors="replace"): count for label, count in crowded.items()},
        cut=cut,
    )
