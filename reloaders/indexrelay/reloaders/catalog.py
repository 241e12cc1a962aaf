"""A reader's look into the catalog: how far a collection is, and what to do where it cannot look.

A reader serves releases, which say nothing about what was committed since. Where it may open the
catalog, one `Look` says how far a collection was at a moment of this process's own monotonic clock,
taken before the catalog was asked. So whoever has everything up to that generation has everything
that was committed before that moment, and no clock of another machine is in it.
"""

import itertools
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.settings import Settings

if TYPE_CHECKING:
    from indexrelay.storage.catalog import Catalog

log = get_logger(__name__)

_MOST_LOOKS: Final = 16
"""Of one collection, each at another generation: as far as one may lag behind and count."""


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """When something began; of two in one tick of the clock the later one is greater."""

    number: int
    at: float = field(compare=False)
    """By the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Look:
    """How far a collection was."""

    begun: Moment
    """Before the catalog was asked."""
    epoch: str
    """Empty: there was no such collection."""
    generation: int


class CatalogAccess:
    """A reader's view of the catalog, if it can have one; safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Nothing is opened before it is first asked for."""
        self._url = settings.catalog_url
        self._retry_seconds = settings.reader.poll_seconds
        self._clock = clock
        self._opening = threading.Lock()
        self._opened: Catalog | None = None
        self._retry_at = clock.monotonic()
        self._complaints = LogOnce()
        self._noting = threading.Lock()
        self._numbers = itertools.count()
        self._looks: Mapping[str, tuple[Look, ...]] = {}

    def get(self) -> "Catalog | None":
        """The catalog; ``None``: there is none here, or it cannot be opened now."""
        with self._opening:
            if self._opened is None and self._clock.monotonic() >= self._retry_at:
                self._opened = self._open()
            return self._opened

    def failed(self, error: Exception) -> None:
        """Log that it failed, once for each reason; the next look asks it again."""
        with self._opening:
            self._later(error)

    def moment(self) -> Moment:
        """Now."""
        return Moment(next(self._numbers), self._clock.monotonic())

    def look(self, collection: str) -> bool:
        """Ask how far a collection is, and note it; whether the catalog answered."""
        from indexrelay.storage.errors import UnknownCollectionError

        catalog = self.get()
        if catalog is None:
            return False
        begun = self.moment()
        try:
            found = catalog.collections.get(collection)
        except UnknownCollectionError:
            self.note(collection, Look(begun, "", 0))
        except Exception as error:  # noqa: BLE001 - whatever it is, the release is served
            self.failed(error)
            return False
        else:
            self.note(collection, Look(begun, found.epoch, found.generation))
        return True

    def note(self, collection: str, look: Look) -> None:
        """Keep a look; of several at one generation the newest."""
        with self._noting:
            known = self._looks.get(collection, ())
            same = (look.epoch, look.generation)
            others = [each for each in known if (each.epoch, each.generation) != same]
            newest = max((each for each in (*known, look) if each not in others), key=_begun)
            kept = sorted((*others, newest), key=_begun)[-_MOST_LOOKS:]
            self._looks = {**self._looks, collection: tuple(kept)}

    def looks(self, collection: str) -> tuple[Look, ...]:
        """The last looks, the oldest first."""
        return self._looks.get(collection, ())

    def request(
        self, request_id: str, components: Collection[str], reason: str, *, full: bool = False
    ) -> bool:
        """Ask for a rebuild, if that can be written down, of what no person has paused.

        Args:
            request_id: a request that was written down under it already is not another one.
            components: what to build.
            reason: why, for people.
            full: whether to build from scratch, and to check every file again.

        Returns:
            Whether the catalog has the request, or what it is for is paused.
        """
        catalog = self.get()
        if catalog is None:
            return False
        try:
            # A request by name is carried out whatever a person wants: this one is from none.
            paused = catalog.attempts.paused()
            wanted = [each for each in components if each not in paused]
            if not wanted:
                return True
            is_new = catalog.inbox.request(request_id, components=wanted, reason=reason, full=full)
        except Exception as error:  # noqa: BLE001 - the state says that a rebuild is needed
            log.warning("rebuild.not_requested", reason=reason, error=f"{error}")
            return False
        if is_new:
            log.info("rebuild.requested", request_id=request_id, reason=reason)
        return True

    def is_open(self, request_id: str) -> bool:
        """Whether a rebuild is asked for and not answered, as far as the catalog says so."""
        catalog = self.get()
        if catalog is None:
            return False
        try:
            answer = catalog.inbox.answer(request_id)
        except Exception as error:  # noqa: BLE001 - as in `request`
            self.failed(error)
            return False
        return answer is not None and not answer.finished

    def close(self) -> None:
        """Close what was opened; safe twice."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> "Catalog | None":
        from indexrelay.storage.catalog import Catalog

        try:
            # A reader makes no catalog: where there is none it has no access to one.
            if Catalog.is_there(self._url):
                return Catalog.open(self._url, clock=self._clock)
        except Exception as error:  # noqa: BLE001 - whatever keeps it away, the release is served
            self._later(error)
        else:
            self._later(None)
        return None

    def _later(self, error: Exception | None) -> None:
        self._retry_at = self._clock.monotonic() + self._retry_seconds
        text = "there is none" if error is None else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, IndexRelayError) else None
        for event in self._complaints.new(
            {"catalog.not_readable": kind or text.partition("\n")[0]}
        ):
            write = log.info if error is None else log.warning
            write(
                event,
                error=text,
                consequence="changes come by their stream alone, and what is lost there waits for "
                "a release",
            )


def _begun(look: Look) -> Moment:
    return look.begun
