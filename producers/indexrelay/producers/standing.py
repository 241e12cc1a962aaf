"""Where the readers stand with one commit: a judgement over what they say of themselves.

A component *concerns* a commit when any live reader says that it covers the commit's collection, or
when the settings say that it is made from it; so a reader whose first load of it failed, and which
therefore cannot say what it covers, still counts as behind. A generation counts only in the epoch
of the commit: a collection that was dropped and made again starts a new count.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from indexrelay.health.dependencies import made_from
from indexrelay.producers.errors import Behind
from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.results import (
    ComponentFailure,
    ComponentState,
    ReaderState,
    RebuilderState,
)
from indexrelay.storage.catalog import CollectionLog, Commit

Readers: TypeAlias = int | Collection[str] | None
"""Which readers must serve it: that many processes; every live process under each of these ids, and
at least one; or (``None``) every live process."""


@dataclass(frozen=True, kw_only=True)
class Standing:
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


def standing(
    commit: Commit,
    states: Iterable[ReaderState],
    *,
    readers: Readers,
    components: Collection[str] | None,
    definitions: Mapping[str, ComponentDefinition],
    log: CollectionLog | None = None,
) -> Standing:
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
    return Standing(
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


def kept_back(seen: Standing, rebuilders: Iterable[RebuilderState]) -> dict[str, str]:
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
