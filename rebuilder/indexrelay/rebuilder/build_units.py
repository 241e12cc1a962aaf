"""Which components of a pass are built together: one after another, from the same snapshots.

A group moves only where its members contain the same generation of what they share. Built side by
side they read it at almost the same moment, which is quick and mostly does. But a member that
begins when another has ended reads what was committed meanwhile: with batches that come faster than
builds end, and fewer workers than members, no two would ever agree, and the group would wait for a
pause. So those are built together, and so are they after a pass in which a commit came between
members that began side by side. Then the group moves with the next pass, whatever comes meanwhile.

What is read from a table or a folder is always read together: their generation says that they
look as they did, and not that they hold the same rows.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from graphlib import TopologicalSorter
from typing import TypeVar

from indexrelay.health.dependencies import ancestors_of, parents_of
from indexrelay.health.facts import Facts
from indexrelay.schemas.groups import groups_of
from indexrelay.schemas.settings import CatalogSource

Unit = frozenset[str]
"""Components that are built together; one by itself, as a rule."""
NodeT = TypeVar("NodeT", bound=Hashable)
Order = Mapping[NodeT, AbstractSet[NodeT]]
"""For each component, or unit: those that are to be built before it."""


def find_together(
    due: AbstractSet[str], facts: Facts, *, workers: int, torn: AbstractSet[str]
) -> tuple[Unit, ...]:
    """The units of two components or more.

    Args:
        due: what the pass builds.
        workers: how many builds may begin at a time.
        torn: the groups whose members were built at different moments the last time.
    """
    order = parents_first(due, facts)
    units = {name: frozenset({name}) for name in order}
    grouped = {
        group: _moving(due, members, facts)
        for group, members in groups_of(facts.definitions).items()
    }
    at_once = {name for names in grouped.values() for name in names if not order[name]}
    for group, names in grouped.items():
        for collection, readers in _readers(names, facts).items():
            if len(readers) > 1 and (
                group in torn
                or len(at_once) > workers
                or any(order[name] for name in readers)  # begins when what it is made from ended
                or not _keeps_its_generations(collection, facts)
            ):
                _join(readers, units)
    _join_circles(units, order)
    return tuple(unit for unit in dict.fromkeys(units.values()) if len(unit) > 1)


def parents_first(due: AbstractSet[str], facts: Facts) -> dict[str, set[str]]:
    """For each component that is due: those of its parents that are."""
    return {
        name: {
            each for each in parents_of(facts.definitions[name], facts.definitions) if each in due
        }
        for name in sorted(due)
    }


def units_first(units: Iterable[Unit], order: Order[str]) -> dict[Unit, set[Unit]]:
    """The same order between units."""
    unit_of = {name: unit for unit in units for name in unit}
    return {
        unit: {unit_of[earlier] for name in unit for earlier in order[name]} - {unit}
        for unit in dict.fromkeys(unit_of.values())
    }


def reached(node: NodeT, order: Order[NodeT]) -> set[NodeT]:
    """All that is to be built before ``node``, and itself."""
    found: set[NodeT] = set()
    more = {node}
    while more:
        found |= more
        more = set().union(*(order[each] for each in more)) - found
    return found


def in_turn(unit: Unit, order: Order[str], *, last: AbstractSet[str]) -> tuple[str, ...]:
    """The components of a unit in the order in which they are built.

    Args:
        last: those that nobody has to wait for and that may take the snapshots with them.
    """
    sorter = TopologicalSorter({name: order[name] & unit for name in sorted(unit)})
    sorter.prepare()
    ready: set[str] = set()
    found: list[str] = []
    while sorter.is_active():
        ready.update(sorter.get_ready())
        found.append(min(ready, key=lambda name: (name in last, name)))
        ready.remove(found[-1])
        sorter.done(found[-1])
    return tuple(found)


def _moving(due: AbstractSet[str], members: Iterable[str], facts: Facts) -> set[str]:
    """The members of a group that are due, and what of their ancestors is."""
    mine = {name for name in members if name in due}
    return mine.union(*(due & set(ancestors_of(name, facts.definitions)) for name in mine))


def _readers(names: Iterable[str], facts: Facts) -> dict[str, list[str]]:
    """By collection: those that read it themselves."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        for source in facts.definitions[name].inputs:
            if source not in facts.definitions:
                found.setdefault(source, []).append(name)
    return found


def _keeps_its_generations(collection: str, facts: Facts) -> bool:
    """Whether two snapshots of one generation of it hold the same."""
    settings = facts.collections.get(collection)
    return settings is None or isinstance(settings.source, CatalogSource)


def _join(names: Sequence[str], units: dict[str, Unit]) -> None:
    joined = frozenset[str]().union(*(units[name] for name in names))
    for name in joined:
        units[name] = joined


def _join_circles(units: dict[str, Unit], order: Order[str]) -> None:
    """What would have to be built before a unit and after it belongs to it."""
    while True:
        between = units_first(units.values(), order)
        before = {unit: reached(unit, between) for unit in between}
        circle = next(
            (
                [*unit, *other]
                for unit, earlier in before.items()
                for other in earlier
                if other != unit and unit in before[other]
            ),
            None,
        )
        if circle is None:
            return
        _join(circle, units)
