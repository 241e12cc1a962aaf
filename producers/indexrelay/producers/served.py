"""Waiting until readers serve a commit: look at presence, pause, look again.

A component *concerns* a commit when any live reader says that it covers the commit's collection, or
when the settings say that it is made from it. So a reader whose first load of it failed counts as
behind. A generation counts only in the epoch of the commit: a collection that was dropped and made
again starts a new count. Before a commit counts as served, the generations that readers name are
compared with the catalog, which knows whether it gave them out.

A wait neither sleeps nor blocks on anything but Redis and the catalog, so that the threaded and the
asyncio producer share it: they call `look` until it answers, and pause in between in their own way.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.redis import differing_processes
from indexrelay.producers.errors import Behind, NoRunningServerError, NotServedError
from indexrelay.producers.events import Signals
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    ComponentFailure,
    ComponentState,
    ReaderState,
    RebuilderState,
)
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import made_from
from indexrelay.storage.catalog import CollectionLog, Commit
from indexrelay.storage.errors import UnknownCollectionError
from indexrelay.streams.errors import WrongTypeError, is_transient

Readers: TypeAlias = int | Collection[str] | None
"""Which readers must serve it: that many processes; every live process under each of these ids, and
at least one; or (``None``) every live process."""


@dataclass(frozen=True, kw_only=True)
class ServedStatus:
    """What one look at presence showed."""

    serving: tuple[str, ...]
    """The id of each process that serves the commit in every component that concerns it."""
    release: int
    """The newest release that all of those have worked through; 0 when there are none."""
    behind: tuple[Behind, ...]
    """Why it does not count as served; empty when it does."""

    @property
    def served(self) -> bool:
        """Whether the readers that were asked for serve it."""
        return not self.behind


def served_status(
    commit: Commit,
    states: Iterable[ReaderState],
    *,
    readers: Readers,
    components: Collection[str] | None,
    definitions: Mapping[str, ComponentDefinition],
    log: CollectionLog | None = None,
) -> ServedStatus:
    """Judge ``states`` (one per live reader process) against ``commit``.

    Args:
        log: which commits made the generations that they cover; ``None``: by numbers alone.
    """
    live = {state.member: state for state in states}
    concerned = (
        frozenset(components)
        if components is not None
        else made_from(commit.collection, definitions) | _covering(commit.collection, live.values())
    )
    found = {
        member: tuple(_behind(commit, state, concerned, log, named=components is not None))
        for member, state in sorted(live.items())
    }
    serving = [live[member] for member, behind in found.items() if not behind]
    lacking = _lacking(live, found, len(serving), readers)
    return ServedStatus(
        serving=tuple(state.reader for state in serving),
        release=min((state.release for state in serving), default=0),
        behind=tuple(lacking),
    )


def covered_generations(collection: str, states: Iterable[ReaderState]) -> set[int]:
    """What readers cover of a collection, each in some component."""
    return {
        component.covers[collection]
        for state in states
        for component in state.components.values()
        if collection in component.covers
    }


def failed_components(
    commit: Commit,
    rebuilders: Iterable[RebuilderState],
    readers: Sequence[ReaderState],
    *,
    components: Collection[str] | None,
) -> dict[str, ComponentFailure]:
    """The components whose last build was to cover the commit, and failed.

    A component that readers serve at the commit nevertheless has been mended since: a rebuilder
    says so only with its next heartbeat, the readers are ahead of it.
    """
    return {
        name: failure
        for state in rebuilders
        for name, failure in state.failures.items()
        if (components is None or name in components)
        and failure.targets.get(commit.collection, -1) >= commit.generation
        and not _served_everywhere(commit, name, readers)
    }


def kept_back(seen: ServedStatus, rebuilders: Iterable[RebuilderState]) -> dict[str, str]:
    """Of the components that are behind: those that a person keeps from following, and why."""
    behind = {each.component for each in seen.behind}
    return {
        name: why for state in rebuilders for name, why in state.kept_back.items() if name in behind
    }


def _served_everywhere(commit: Commit, component: str, readers: Sequence[ReaderState]) -> bool:
    generations = [
        _generation(commit, state.components[component])
        for state in readers
        if component in state.components
    ]
    return bool(generations) and all(
        generation is not None and generation >= commit.generation for generation in generations
    )


def _covering(collection: str, states: Iterable[ReaderState]) -> frozenset[str]:
    return frozenset(
        name
        for state in states
        for name, component in state.components.items()
        if collection in component.covers
    )


def _behind(
    commit: Commit,
    state: ReaderState,
    concerned: frozenset[str],
    log: CollectionLog | None,
    *,
    named: bool,
) -> Iterable[Behind]:
    """What keeps one reader from serving the commit.

    Components that were asked for by name must all be there; otherwise a reader answers for those
    that it serves, since its settings may leave the others out.
    """
    mine = {name: state.components[name] for name in sorted(concerned) if name in state.components}
    if named:
        for name in sorted(concerned - mine.keys()):
            yield Behind(reader=state.reader, process=_process(state), component=name)
    elif not mine:
        yield Behind(reader=state.reader, process=_process(state))
    for name, component in mine.items():
        generation = _generation(commit, component)
        error = component.error
        if generation is not None and not _is_ours(generation, component, commit, log):
            error = "which this catalog did not commit: it went back in time"
        elif generation is not None and generation >= commit.generation:
            continue
        yield Behind(
            reader=state.reader,
            process=_process(state),
            component=name,
            generation=generation,
            outcome=component.outcome,
            error=error,
        )


def _is_ours(
    generation: int, component: ComponentState, commit: Commit, log: CollectionLog | None
) -> bool:
    """Whether what is served may come from this catalog, as far as that is looked at."""
    stamp = component.stamps.get(commit.collection)
    if log is None:
        return True
    if generation < commit.generation:  # one from before a restore is behind, and no more than that
        return not log.lost(generation, stamp)
    return log.knows(generation, stamp)


def _generation(commit: Commit, component: ComponentState) -> int | None:
    if component.epochs.get(commit.collection) != commit.epoch:
        return None
    return component.covers.get(commit.collection)


def _process(state: ReaderState) -> str:
    return f"{state.host}:{state.pid}"


def _lacking(
    live: Mapping[str, ReaderState],
    found: Mapping[str, tuple[Behind, ...]],
    serving: int,
    readers: Readers,
) -> Iterable[Behind]:
    """What is missing to the readers that were asked for."""
    match readers:
        case int():
            if serving < readers:
                yield from (behind for each in found.values() for behind in each)
                if len(found) < readers:
                    yield Behind(reader="readers", error=f"{len(found)} alive, {readers} asked for")
        case None:
            if not found:
                yield Behind(reader="readers", error="none is alive")
            yield from (behind for each in found.values() for behind in each)
        case _:
            for name in sorted(readers):
                processes = [member for member, state in live.items() if state.reader == name]
                if not processes:
                    yield Behind(reader=name, error="not alive")
                for member in processes:
                    yield from found[member]


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


class ServedWait:
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
    ) -> tuple[ServedStatus | None, dict[str, ComponentFailure], dict[str, str]]:
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
            ends = isinstance(error, NoRunningServerError | WrongTypeError) or is_transient(error)
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

    def _standing(self, readers: Sequence[ReaderState], log: CollectionLog | None) -> ServedStatus:
        return served_status(
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
