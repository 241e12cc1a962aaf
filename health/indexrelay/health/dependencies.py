"""Parents before children, and nobody built from a parent that failed."""

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.groups import groups_of

Definitions = Mapping[str, ComponentDefinition]


def parents_of(definition: ComponentDefinition, definitions: Definitions) -> list[str]:
    """Those of its inputs that are components (the others are collections)."""
    return [name for name in definition.inputs if name in definitions]


def in_order(definitions: Definitions) -> list[str]:
    """Every component, parents first; equals in the order of their names."""
    graph = {
        name: sorted(parents_of(definitions[name], definitions)) for name in sorted(definitions)
    }
    return list(TopologicalSorter(graph).static_order())


def with_descendants(names: Iterable[str], definitions: Definitions) -> set[str]:
    """``names`` and everything that is made from them, directly or not."""
    found = set(names)
    for name in in_order(definitions):
        if found.intersection(definitions[name].inputs):
            found.add(name)
    return found


def moving_with(names: Iterable[str], definitions: Definitions) -> set[str]:
    """``names`` and whatever cannot be released before them: what is made from them, their groups,
    what is made from those, and so on."""
    found: set[str] = set()
    more = set(names)
    while more != found:
        found = with_descendants(more, definitions)
        more = found.union(
            *(
                members
                for members in groups_of(definitions).values()
                if not found.isdisjoint(members)
            )
        )
    return found


def root_collections(name: str, definitions: Definitions) -> set[str]:
    """The collections that a component is made from, directly or through other components."""
    roots: set[str] = set()
    for source in definitions[name].inputs:
        roots |= root_collections(source, definitions) if source in definitions else {source}
    return roots


def made_from(collection: str, definitions: Definitions) -> frozenset[str]:
    """The components that are made from a collection, directly or through others."""
    return frozenset(with_descendants([collection], definitions) - {collection})


def ancestors_of(name: str, definitions: Definitions) -> list[str]:
    """The components that ``name`` is made from, directly or not; parents before children."""
    wanted = {name}
    for each in reversed(in_order(definitions)):
        if each in wanted:
            wanted.update(parents_of(definitions[each], definitions))
    return [each for each in in_order(definitions) if each in wanted - {name}]
