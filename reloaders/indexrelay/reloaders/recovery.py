"""What a reader does about a version that is damaged, beside serving an earlier one.

The steps of a recovery, each of which is logged: the newest release (`component.load_failed` says
why not), the newest earlier version that is whole (`components.fell_back`), none of them
(`components.withdrawn`; a service then answers searches by text from another component of the same
collection, and calls that degraded), and in any case a new version, built from the entries.

A rebuilder that sees the damage builds by itself: readers report it by their presence, and the
rebuilder hashes again what they cannot load. It may see neither, where Redis is away or only this
host reads other bytes. So a reader that has the catalog asks for a full build there, where damage
is still found one look later. All readers ask under the same ids, one for each time, so that they
make one request together. Where one is answered and the damage is still there, the build failed or
did not help, and it is asked for again, with growing pauses. So is a version that was built and is
damaged again: a bad disk must not keep a rebuilder busy for ever.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from indexrelay.schemas.clock import Clock, backoff_seconds
from indexrelay.schemas.loggers import LogOnce, get_logger

log = get_logger(__name__)

_FIRST_PAUSE_SECONDS: Final = 60.0
_LONGEST_PAUSE_SECONDS: Final = 3600.0


class Requests(Protocol):
    """Where a rebuild is asked for: `indexrelay.reloaders.catalog.CatalogAccess`."""

    def request(
        self, request_id: str, components: Collection[str], reason: str, *, full: bool = False
    ) -> bool:
        """Ask for it, if that can be written down; whether it could."""
        ...

    def is_open(self, request_id: str) -> bool:
        """Whether it is asked for and not answered, as far as that is known."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Requests for one component."""

    times: int
    next_at: float
    version: str
    number: int
    """The last request for this version, from 1."""


class Recovery:
    """Asks for what cannot be repaired here; used by one thread."""

    def __init__(
        self,
        requests: Requests,
        *,
        damaged: Callable[[], Mapping[str, str]],
        held: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:
        """Nothing was asked for yet.

        Args:
            requests: where to ask.
            damaged: by component, the version that cannot be loaded because of its files.
            held: components that a person holds, which no build replaces.
            clock: the pauses between requests are taken by.
        """
        self._requests = requests
        self._damaged = damaged
        self._held = held
        self._clock = clock
        self._seen: Mapping[str, str] = {}
        self._asked: dict[str, _Asked] = {}
        self._complaints = LogOnce()

    def look(self) -> None:
        """Ask for a full build of what was damaged at the last look, and still is."""
        found = {
            name: version for name, version in self._damaged().items() if name not in self._held()
        }
        again = {name: each for name, each in found.items() if self._seen.get(name) == each}
        unasked = {name: version for name, version in again.items() if not self._ask(name, version)}
        self._seen = found
        if self._complaints.new({"recovery": tuple(unasked.items())}) and unasked:
            log.info(
                "recovery.reported",
                components=sorted(unasked),
                consequence="a rebuilder that sees this reader's presence looks at their files",
            )

    def _ask(self, name: str, version: str) -> bool:
        """Ask, unless that was done a moment ago; whether it is asked for."""
        now, before = self._clock.monotonic(), self._asked.get(name)
        if before is not None and now < before.next_at:
            return True
        number = 1
        if before is not None and before.version == version:
            waiting = self._requests.is_open(_request_id(name, version, before.number))
            number = before.number if waiting else before.number + 1
        if not self._requests.request(
            _request_id(name, version, number),
            (name,),
            f"files of version {version[:12]} of {name} are corrupt or missing",
            full=True,
        ):
            return False
        long_ago = before is not None and now - before.next_at > _LONGEST_PAUSE_SECONDS
        times = 1 if before is None or long_ago else before.times + 1
        pause = backoff_seconds(
            times, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS, key=name
        )
        self._asked[name] = _Asked(times=times, next_at=now + pause, version=version, number=number)
        return True


def _request_id(name: str, version: str, number: int) -> str:
    return f"{f'recovery-{name}-{version}'[:190]}-{number}"
