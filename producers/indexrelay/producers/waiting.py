"""Waiting until a commit is served: look at presence, pause a little longer each time, look again.

The waiting itself (`Waiting`) neither sleeps nor blocks on anything but Redis, so that the threaded
and the asyncio producer share it: they call `look` until it answers and pause in between in their
own way. Presence is all that is read in Redis, since that is all a job's user may read there. What
counts as served by its number is held against the catalog, which knows whose number it is.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.declarations import differing_processes
from indexrelay.producers.errors import NoRunningServerError, NotServedError
from indexrelay.producers.signals import Signals
from indexrelay.producers.standing import (
    Readers,
    Standing,
    covered_generations,
    failed_components,
    kept_back,
    standing,
)
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ComponentFailure, ReaderState
from indexrelay.storage.catalog import CollectionLog, Commit
from indexrelay.storage.errors import UnknownCollectionError
from indexrelay.streams.errors import WrongTypeError
from indexrelay.streams.passing import is_passing

log = get_logger(__name__)

LogOf: TypeAlias = Callable[[str, Iterable[int]], CollectionLog]
"""What the catalog knows of some generations of a collection."""
FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.05
"""Twenty looks a second cost a server nothing, and add little to the time that a job sees."""
_GROWTH = 1.5


@dataclass(frozen=True, kw_only=True)
class ServedBy:
    """Who serves a commit."""

    readers: tuple[str, ...]
    """The id of each process, sorted: an id is there as often as processes serve under it."""
    seconds: float
    """How long the wait took."""
    release: int
    """The newest release that all of them have worked through."""


class Waiting:
    """One wait for one commit."""

    def __init__(
        self,
        commit: Commit,
        *,
        signals: Signals,
        clock: Clock,
        timeout_seconds: float,
        readers: Readers,
        components: Collection[str] | None,
        fail_fast: bool,
        definitions: Mapping[str, ComponentDefinition],
        log_of: LogOf,
    ) -> None:
        _check(timeout_seconds, readers, components)
        self._commit = commit
        self._signals = signals
        self._clock = clock
        self._timeout = timeout_seconds
        self._readers = readers
        self._components = components
        self._fail_fast = fail_fast
        self._definitions = definitions
        self._log_of = log_of
        self._lost = False
        self._began_to_look = False
        self._began = clock.monotonic()
        self._pause = FIRST_PAUSE_SECONDS
        self._away: Exception | None = None
        self._other_settings: tuple[str, ...] = ()

    def look(self) -> ServedBy | None:
        """Look once; ``None``: not yet.

        Raises:
            NotServedError: the time is over, or (``fail_fast``) a component failed.
            RedisError: presence cannot be read, and waiting would not change that.
        """
        seconds = self._clock.monotonic() - self._began
        seen, failures, why_kept = self._seen(last=seconds >= self._timeout)
        given_up = self._lost or (bool(failures) and self._fail_fast)
        if seen is not None and seen.served and not given_up:
            return ServedBy(readers=seen.serving, seconds=seconds, release=seen.release)
        if seconds < self._timeout and not given_up:
            return None
        raise NotServedError(
            collection=self._commit.collection,
            generation=self._commit.generation,
            seconds=seconds,
            behind=() if seen is None else seen.behind,
            failures=failures,
            kept_back=why_kept,
            other_settings=self._other_settings,
            reason=self._reason(),
        ) from self._away

    def pause_seconds(self) -> float:
        """How long to pause before the next look; never beyond the time-out."""
        left = self._timeout - (self._clock.monotonic() - self._began)
        pause, self._pause = self._pause, min(self._pause * _GROWTH, LONGEST_PAUSE_SECONDS)
        return max(0.0, min(pause, left))

    def _seen(
        self, *, last: bool
    ) -> tuple[Standing | None, dict[str, ComponentFailure], dict[str, str]]:
        """Presence as it is now, and what failed or is kept back; ``None`` while Redis is away."""
        try:
            # Failures first: one that a later success has already cleared is not looked at again.
            known = self._began_to_look and not last
            rebuilders = self._signals.rebuilders(known=known)
            readers = self._signals.readers(known=known)
            if known and self._standing(readers, None).served:
                readers = self._signals.readers()  # whoever has just come counts as well
            self._began_to_look = True
        except (RedisError, OSError, NoRunningServerError) as error:
            # The embedded server may be started yet, like any other, and a rebuilder sets aside
            # what stands in the place of presence.
            ends = isinstance(error, NoRunningServerError | WrongTypeError) or is_passing(error)
            if not ends:
                raise
            if self._away is None:
                log.warning("presence.away", error=str(error), consequence="still waiting")
            self._away = error
            return None, {}, {}
        self._away = None
        seen = self._standing(readers, None)
        # By numbers alone: a catalog that went back in time gives them out a second time.
        if seen.served or last:
            try:
                seen = self._standing(readers, self._known(readers))
            except SQLAlchemyError:
                if seen.served:
                    raise
                # What was seen is enough to say that it is not served.
        if self._definitions:  # a job's own file may declare none, and says nothing of them then
            differing = differing_processes(self._definitions, None, rebuilders, readers)
            self._other_settings = tuple(problem.what for problem in differing)
        failures = failed_components(self._commit, rebuilders, readers, components=self._components)
        return seen, failures, kept_back(seen, rebuilders)

    def _standing(self, readers: Sequence[ReaderState], log: CollectionLog | None) -> Standing:
        return standing(
            self._commit,
            readers,
            readers=self._readers,
            components=self._components,
            definitions=self._definitions,
            log=log,
        )

    def _known(self, readers: Sequence[ReaderState]) -> CollectionLog | None:
        """What the catalog knows of the commit, and of what the readers cover."""
        commit = self._commit
        covered = covered_generations(commit.collection, readers)
        try:
            known = self._log_of(commit.collection, {*covered, commit.generation})
        except UnknownCollectionError:
            self._lost = True
            return None
        batch_id = known.batch_ids.get(commit.generation, commit.batch_id)
        self._lost = (
            known.epoch != commit.epoch
            or known.generation < commit.generation
            or batch_id != commit.batch_id
        )
        return known

    def _reason(self) -> str | None:
        if self._lost:
            return (
                "the catalog does not have this commit any more, since it went back in time (an "
                "older backup?): commit it again"
            )
        return None if self._away is None else f"presence cannot be read: {self._away}"


def _check(timeout_seconds: float, readers: Readers, components: Collection[str] | None) -> None:
    """Refuse what could only wait in vain, or not at all."""
    if not timeout_seconds >= 0:  # so that NaN is refused, too
        raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be at least 0")
    if isinstance(readers, str) or isinstance(components, str):
        raise TypeError("readers and components take several names: write ['a'], not 'a'")
    if isinstance(readers, int) and readers < 1:
        raise ValueError(f"readers is {readers}; ask for at least 1")
    if readers is not None and not isinstance(readers, int) and not readers:
        raise ValueError("readers is empty; name at least one, or leave it out")
    if components is not None and not components:
        raise ValueError("components is empty; name at least one, or leave it out")
