"""Waiting until readers serve a commit: look at presence, pause, look again.

A component *concerns* a commit when the settings say that it is made from the commit's collection,
or when a process under the same id covers it. So a reader whose first load of it failed counts as
behind, and no id decides what concerns another. A generation counts only in the epoch of the
commit: a collection that was dropped and made again starts a new count. Before a commit counts as
served, the generations that readers name are compared with the catalog, which knows which commits
made them.

A wait neither sleeps nor blocks on anything but Redis and the catalog, so that the threaded and the
asyncio producer share it: they call `look` until it answers, and pause in between in their own way.
Only the states of the readers that were asked for are read, only those that changed are parsed, and
a look ends when the time is over, however much there is.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeAlias

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.redis import differing_processes
from indexrelay.producers.errors import Behind, NoRunningServerError, NotServedError
from indexrelay.producers.events import JobConnection
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    ComponentFailure,
    ComponentState,
    ReaderState,
    RebuilderState,
    Role,
)
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.versions import made_from
from indexrelay.storage.catalog import CollectionLog, Commit
from indexrelay.storage.errors import UnknownCollectionError
from indexrelay.streams.errors import WrongTypeError, is_transient
from indexrelay.streams.keys import Keys
from indexrelay.streams.presence import (
    MAX_PROCESSES,
    Members,
    ParsedStates,
    Presence,
    Roster,
    StateT,
    members_of,
)

_log = get_logger(__name__)

Readers: TypeAlias = int | Collection[str] | Mapping[str, int] | None
"""Which readers must serve it: so many processes, of ids whose live processes all serve it; every
live process under each of these ids, and at least one, or at least so many; or (``None``) every
live process."""
LogOf: TypeAlias = Callable[[str, Iterable[int]], CollectionLog]
"""Which commits made some generations of a collection, by the catalog."""
FIRST_PAUSE_SECONDS: Final = 0.01
LONGEST_PAUSE_SECONDS: Final = 0.05
"""Twenty looks a second cost a server nothing, and add little to the time that a job sees."""
_GROWTH: Final = 1.5
_LOOK_SECONDS: Final = 1.0
"""How long a look may go on when the time is over: an ordinary one takes less."""
_MOST_GENERATIONS: Final = 100
"""Generations of one id that the catalog is asked about; a fleet serves a few at a time."""


@dataclass(frozen=True, kw_only=True)
class ServedBy:
    """Who serves a commit."""

    readers: tuple[str, ...]
    """The id of each process, sorted: an id is there as often as processes serve under it."""
    seconds: float
    """How long the wait took."""
    release: int
    """The newest release that all of them have worked through."""


@dataclass(frozen=True, kw_only=True)
class ServedQuery:
    """Which commit is to be served, by whom, and in which components.

    Raises:
        ValueError, TypeError: no reader could ever meet it, or text is given for names.
    """

    commit: Commit
    readers: Readers
    components: Collection[str] | None
    """Those that must cover it, in every reader; ``None``: those of each that concern it."""
    definitions: Mapping[str, ComponentDefinition]
    """The components that the job's settings declare; it may declare none."""
    live: bool = False
    """Whether a process serves it that has laid it over its release."""

    def __post_init__(self) -> None:
        readers, components = self.readers, self.components
        if isinstance(readers, str) or isinstance(components, str):
            raise TypeError("readers and components take several names: write ['a'], not 'a'")
        if isinstance(readers, int) and readers < 1:
            raise ValueError(f"readers is {readers}; ask for at least 1")
        if readers is not None and not isinstance(readers, int) and not readers:
            raise ValueError("readers is empty; name at least one, or leave it out")
        if isinstance(readers, Mapping) and min(readers.values()) < 1:
            raise ValueError("readers asks for no process of an id; ask for at least 1 of each")
        if components is not None and not components:
            raise ValueError("components is empty; name at least one, or leave it out")

    @property
    def labels(self) -> frozenset[str] | None:
        """The ids whose states are looked at; ``None``: all."""
        if self.readers is None or isinstance(self.readers, int):
            return None
        return frozenset(self.readers)

    @cached_property
    def declared(self) -> frozenset[str]:
        """The components that concern the commit, under whatever id they are served."""
        if self.components is not None:
            return frozenset(self.components)
        return made_from(self.commit.collection, self.definitions)

    def concerned(self, states: Iterable[ReaderState]) -> frozenset[str]:
        """The components that concern the commit in the processes under one id."""
        if self.components is not None:
            return self.declared
        return self.declared.union(
            name
            for state in states
            for name, component in state.components.items()
            if self.commit.collection in component.covers
        )


class ServedWait:
    """One wait for one commit."""

    def __init__(
        self,
        query: ServedQuery,
        *,
        presence: "PresenceView",
        log_of: LogOf,
        clock: Clock,
        timeout_seconds: float,
        fail_fast: bool,
    ) -> None:
        if not timeout_seconds >= 0:  # so that NaN is refused, too
            raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be at least 0")
        self._query = query
        self._presence = presence
        self._log_of = log_of
        self._clock = clock
        self._fail_fast = fail_fast
        self._began = clock.monotonic()
        self._ends = self._began + timeout_seconds
        self._pause = FIRST_PAUSE_SECONDS
        self._looked = False
        self._lost = False
        self._away: Exception | None = None

    def look(self) -> ServedBy | None:
        """Look once; ``None``: not yet.

        Raises:
            NotServedError: the time is over, or (``fail_fast``) a component failed.
            RedisError: presence cannot be read, and waiting would not change that.
        """
        began = self._clock.monotonic()
        last = began >= self._ends
        try:
            view = self._view(last=last, stops=max(began, self._ends) + _LOOK_SECONDS)
        except (RedisError, OSError, NoRunningServerError) as error:
            self._note_away(error)
            view = _View()
        else:
            self._away = None
        if view.late or view.cut:
            last = True
        status = view.status
        failures = failed_components(self._query, view.rebuilders, view.readers)
        given_up = self._lost or (bool(failures) and self._fail_fast)
        seconds = self._clock.monotonic() - self._began
        if status is not None and status.served and not given_up:
            return ServedBy(readers=status.serving, seconds=seconds, release=status.release)
        if not last and not given_up:
            return None
        raise self._not_served(view, failures, seconds) from self._away

    def pause_seconds(self) -> float:
        """How long to pause before the next look; never beyond the time-out."""
        left = self._ends - self._clock.monotonic()
        pause, self._pause = self._pause, min(self._pause * _GROWTH, LONGEST_PAUSE_SECONDS)
        return max(0.0, min(pause, left))

    def _view(self, *, last: bool, stops: float) -> "_View":
        """What presence shows now, and what that means for the commit."""

        def in_time() -> bool:
            return self._clock.monotonic() < stops

        known = self._looked and not last
        labels = self._query.labels
        # Failures first: one that a later success has already cleared is not looked at again.
        rebuilders = self._presence.rebuilders(known=known, in_time=in_time)
        readers = self._presence.readers(labels, known=known, in_time=in_time)
        status = served_status(self._query, readers.known.values())
        if known and status.served:  # a process that has just come counts as well
            readers = self._presence.readers(labels, in_time=in_time)
            status = served_status(self._query, readers.known.values())
        self._looked = True
        late, cut = rebuilders.late + readers.late, rebuilders.cut or readers.cut
        view = _View(
            readers=list(readers.known.values()),
            rebuilders=list(rebuilders.known.values()),
            late=late,
            cut=cut,
            crowded=readers.crowded,
        )
        if late or cut:  # of those who were not read nothing is known
            return view
        # By numbers alone until here: a catalog that went back in time gives them out again.
        if status.served or last:
            try:
                status = served_status(self._query, view.readers, self._known(view.readers))
            except SQLAlchemyError:
                if status.served:
                    raise
                # The numbers alone show that it is not served.
        return replace(view, status=status)

    def _note_away(self, error: Exception) -> None:
        """Note that presence cannot be read; raises where waiting would not change that."""
        # A server may be started yet, also the embedded one, and a rebuilder sets a key of another
        # type aside.
        ends = isinstance(error, NoRunningServerError | WrongTypeError) or is_transient(error)
        if not ends:
            raise error
        if self._away is None:
            _log.warning("presence.away", error=str(error), consequence="still waiting")
        self._away = error

    def _known(self, readers: Iterable[ReaderState]) -> "KnownCommits | None":
        """What the catalog knows of the commit, and of what the readers cover."""
        commit = self._query.commit
        asked = {*covered_generations(self._query, readers), commit.generation}
        try:
            log = self._log_of(commit.collection, asked)
        except UnknownCollectionError:
            self._lost = True
            return None
        batch_id = log.batch_ids.get(commit.generation, commit.batch_id)
        self._lost = (
            log.epoch != commit.epoch
            or log.generation < commit.generation
            or batch_id != commit.batch_id
        )
        return KnownCommits(log=log, asked=frozenset(asked))

    def _not_served(
        self, view: "_View", failures: Mapping[str, ComponentFailure], seconds: float
    ) -> NotServedError:
        other_settings: tuple[str, ...] = ()
        if self._query.definitions:  # a job's own file may declare none, and nothing differs then
            differing = differing_processes(
                self._query.definitions, None, view.rebuilders, view.readers
            )
            other_settings = tuple(problem.what for problem in differing)
        reason = None if self._away is None else f"presence cannot be read: {self._away}"
        if self._lost:
            reason = (
                "the catalog does not have this commit any more, since it went back in time (an "
                "older backup?): commit it again"
            )
        elif view.cut:
            crowds = ", ".join(sorted(view.crowded)[:_CROWDS_SHOWN])
            reason = "presence holds so many keys that they could not be gone through in time" + (
                f": more than {MAX_PROCESSES:,} under {crowds}" if crowds else ""
            )
        elif view.late:
            reason = (
                f"presence holds so much that {view.late} state(s) of it could not be read in time"
            )
        behind = () if view.status is None else view.status.behind
        return NotServedError(
            collection=self._query.commit.collection,
            generation=self._query.commit.generation,
            seconds=seconds,
            behind=behind,
            failures=failures,
            kept_back=kept_back({each.component for each in behind}, view.rebuilders),
            other_settings=other_settings,
            reason=reason,
        )


@dataclass(frozen=True, kw_only=True)
class _View:
    """What one look at presence showed."""

    readers: Sequence[ReaderState] = ()
    rebuilders: Sequence[RebuilderState] = ()
    late: int = 0
    """States for which there was no time left."""
    cut: bool = False
    """Whether there were more keys than there was time to find."""
    crowded: frozenset[str] = frozenset()
    """Labels with more processes than are looked at."""
    status: "ServedStatus | None" = None
    """``None``: unknown, since presence cannot be read, or not in time."""


_ROSTER_SECONDS: Final = 0.5
"""How long the same processes are taken to be there: to find them costs more than to read them."""
_FORGOTTEN_SECONDS: Final = 5.0
"""How long what was parsed is kept for a wait that does not look again."""
_CROWDS_SHOWN: Final = 5
_Asked: TypeAlias = tuple[Role, frozenset[str] | None]
"""A role, and the labels that were looked for; ``None``: all."""


class PresenceView:
    """The states of live processes, as a job sees them; safe to use from several threads.

    Every method raises:
        RedisError, NoRunningServerError, OSError: presence cannot be read.
    """

    def __init__(self, settings: Settings, *, connection: JobConnection, clock: Clock) -> None:
        self._keys = Keys(settings.namespace)
        self._connection = connection
        self._clock = clock
        self._readers = ParsedStates(ReaderState)
        self._rebuilders = ParsedStates(RebuilderState)
        self._rosters: dict[_Asked, tuple[float, Roster]] = {}
        """Who was there, and when that was."""

    def readers(
        self,
        labels: Collection[str] | None = None,
        *,
        known: bool = False,
        in_time: Callable[[], bool] | None = None,
    ) -> Members[ReaderState]:
        """The live reader processes.

        Args:
            labels: the ids whose processes are read; ``None``: all.
            known: one that came within the last half second may be missing.
            in_time: whether there is time for one more; ``None``: always.
        """
        return self._members(ReaderState, self._readers, labels, known=known, in_time=in_time)

    def rebuilders(
        self, *, known: bool = False, in_time: Callable[[], bool] | None = None
    ) -> Members[RebuilderState]:
        """The live rebuilder processes; as `readers`."""
        return self._members(RebuilderState, self._rebuilders, None, known=known, in_time=in_time)

    def _members(
        self,
        model: type[StateT],
        parsed: ParsedStates[StateT],
        labels: Collection[str] | None,
        *,
        known: bool,
        in_time: Callable[[], bool] | None,
    ) -> Members[StateT]:
        connection, now = self._connection.get(), self._clock.monotonic()
        asked = model.ROLE, None if labels is None else frozenset(labels)
        at, roster = self._rosters.get(asked, (now, None))
        if roster is None or not known or now - at >= _ROSTER_SECONDS:
            presence = Presence(connection, self._keys, model.ROLE)
            roster = presence.members(labels, in_time=in_time)
            now = self._clock.monotonic()
            recent = {
                each: (at, other)
                for each, (at, other) in list(self._rosters.items())
                if now - at < _FORGOTTEN_SECONDS
            }
            self._rosters = {**recent, asked: (now, roster)}
            parsed.forget_others(
                {
                    member
                    for (role, _), (_, other) in self._rosters.items()
                    if role == model.ROLE
                    for member in other.ids
                }
            )
        return members_of(
            connection, self._keys, model, roster=roster, parsed=parsed, in_time=in_time
        )


@dataclass(frozen=True, kw_only=True)
class ServedStatus:
    """Whether the readers that were asked for serve a commit."""

    serving: tuple[str, ...]
    """The id of each process that counts, and serves the commit in all that concerns it."""
    release: int
    """The newest release that all of those have worked through; 0 when there are none."""
    behind: tuple[Behind, ...]
    """Why it does not count as served; empty when it does."""

    @property
    def served(self) -> bool:
        """Whether nothing is lacking."""
        return not self.behind


@dataclass(frozen=True, kw_only=True)
class KnownCommits:
    """What the catalog knows of the generations that readers cover."""

    log: CollectionLog
    asked: frozenset[int]
    """The generations that it was asked about."""

    def doubt(self, commit: Commit, component: ComponentState, generation: int) -> str | None:
        """Why what is served may not come from this catalog; ``None``: it does."""
        stamp = component.stamps.get(commit.collection)
        if generation < self.log.generation and generation not in self.asked:
            return "and so many other generations that they are not compared with the catalog"
        if generation < commit.generation:  # one from before a restore is behind, and no more
            ours = not self.log.lost(generation, stamp)
        elif stamp is None and (self.log.whole or generation in self.log.stamps):
            return "without the stamp of its commit"
        else:
            ours = self.log.knows(generation, stamp)
        return None if ours else "which this catalog did not commit: it went back in time"


def served_status(
    query: ServedQuery, states: Iterable[ReaderState], known: KnownCommits | None = None
) -> ServedStatus:
    """Judge the states of live reader processes against a query.

    Args:
        query: what is asked for.
        states: one for each process.
        known: what the catalog knows of what they cover; ``None``: their numbers are believed.
    """
    behind: _ByLabel = {}
    for label, processes in _by_label(states).items():
        concerned = query.concerned(processes)
        behind[label] = [
            (state, tuple(_behind(query, state, concerned, known))) for state in processes
        ]
    match query.readers:
        case int() as wanted:
            serving = {
                label: each for label, each in behind.items() if not any(lacks for _, lacks in each)
            }
            if _count(serving) >= wanted:
                behind = serving
                lacking: list[Behind] = []
            else:
                lacking = _all(behind)
                if _count(behind) < wanted:
                    lacking.append(Behind(reader="readers", error=_too_few(_count(behind), wanted)))
        case None:
            lacking = _all(behind) if behind else [Behind(reader="readers", error="none is alive")]
        case names:
            least = names if isinstance(names, Mapping) else dict.fromkeys(names, 1)
            behind = {label: behind.get(label, []) for label in sorted(least)}
            lacking = _all(behind)
            lacking += [
                Behind(reader=label, error=_too_few(len(behind[label]), least[label]))
                for label in behind
                if len(behind[label]) < least[label]
            ]
    counted = [state for each in behind.values() for state, lacks in each if not lacks]
    return ServedStatus(
        serving=tuple(state.reader for state in counted),
        release=min((state.release for state in counted), default=0),
        behind=tuple(lacking),
    )


_ByLabel: TypeAlias = dict[str, list[tuple[ReaderState, tuple[Behind, ...]]]]
"""The processes of each label, each with what it lacks."""


def _count(behind: _ByLabel) -> int:
    return sum(len(processes) for processes in behind.values())


def _all(behind: _ByLabel) -> list[Behind]:
    return [each for processes in behind.values() for _, lacks in processes for each in lacks]


def _too_few(alive: int, wanted: int) -> str:
    return "not alive" if not alive else f"{alive} process(es) alive, {wanted} asked for"


def _by_label(states: Iterable[ReaderState]) -> dict[str, list[ReaderState]]:
    found: dict[str, list[ReaderState]] = {}
    for state in sorted(states, key=lambda each: each.member):
        found.setdefault(state.label, []).append(state)
    return found


def covered_generations(query: ServedQuery, states: Iterable[ReaderState]) -> Iterator[int]:
    """What readers cover of the collection, in what concerns the commit; of each id so many."""
    collection = query.commit.collection
    for processes in _by_label(states).values():
        concerned = query.concerned(processes)
        found = {
            component.covers[collection]
            for state in processes
            for name, component in state.components.items()
            if name in concerned and collection in component.covers
        }
        yield from sorted(found)[:_MOST_GENERATIONS]


def failed_components(
    query: ServedQuery, rebuilders: Iterable[RebuilderState], readers: Sequence[ReaderState]
) -> dict[str, ComponentFailure]:
    """The components whose last build was to cover the commit, and failed.

    A component that readers serve at the commit nevertheless has been mended since: a rebuilder
    publishes that only with its next heartbeat.
    """
    commit = query.commit
    return {
        name: failure
        for state in rebuilders
        for name, failure in state.failures.items()
        if (query.components is None or name in query.components)
        and failure.targets.get(commit.collection, -1) >= commit.generation
        and not _served_everywhere(commit, name, readers)
    }


def kept_back(
    behind: Collection[str | None], rebuilders: Iterable[RebuilderState]
) -> dict[str, str]:
    """Of the components that are behind: those that a person keeps from following, and why."""
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


def _behind(
    query: ServedQuery,
    state: ReaderState,
    concerned: frozenset[str],
    known: KnownCommits | None,
) -> Iterator[Behind]:
    """What keeps one process from serving the commit.

    Components that were asked for by name must all be there; otherwise a process answers for those
    that it serves, since its settings may leave the others out.
    """
    if query.live and _is_laid_over(query.commit, state):
        return
    process = f"{state.host}:{state.pid}"
    mine = sorted(name for name in state.components if name in concerned)
    if query.components is not None:
        for name in sorted(concerned.difference(mine)):
            yield Behind(reader=state.reader, process=process, component=name)
    elif not mine:
        yield Behind(reader=state.reader, process=process)
    for name in mine:
        component = state.components[name]
        generation = _generation(query.commit, component)
        doubt = None
        if known is not None and generation is not None:
            doubt = known.doubt(query.commit, component, generation)
        if doubt is None and generation is not None and generation >= query.commit.generation:
            continue
        yield Behind(
            reader=state.reader,
            process=process,
            component=name,
            generation=generation,
            outcome=component.outcome,
            error=doubt or component.error,
        )


def _is_laid_over(commit: Commit, state: ReaderState) -> bool:
    """Whether a process has laid the commit over its release."""
    live = state.live.get(commit.collection)
    return live is not None and live.epoch == commit.epoch and live.generation >= commit.generation


def _generation(commit: Commit, component: ComponentState) -> int | None:
    """What a component covers of the commit's collection; ``None``: nothing of its epoch."""
    if component.epochs.get(commit.collection) != commit.epoch:
        return None
    return component.covers.get(commit.collection)
