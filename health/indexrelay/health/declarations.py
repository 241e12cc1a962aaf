"""Whether the processes that run were started with the settings that are asked about.

Each says in its presence what it acts by (`indexrelay.schemas.declarations`). One of an earlier
version says nothing: of it nothing is concluded, neither that it has these settings nor that it has
others.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from indexrelay.health.dependencies import Definitions
from indexrelay.health.facts import Facts
from indexrelay.health.verdict import Actor, Code, Problem
from indexrelay.schemas.declarations import Declaration, declared_to_build, declared_to_serve
from indexrelay.schemas.results import ProcessState, ReaderState, RebuilderState
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.streams.presence import Role

_CODES: Final[Mapping[Role, Code]] = {
    "rebuilder": Code.REBUILDER_OTHER_SETTINGS,
    "reader": Code.READER_OTHER_SETTINGS,
}


def declaration_problems(facts: Facts) -> Iterator[Problem]:
    """The processes that run with other settings than these."""
    return differing_processes(
        facts.definitions,
        facts.collections,
        facts.known_rebuilders.values(),
        facts.known_readers.values(),
        host=facts.host,
    )


def differing_processes(
    definitions: Definitions,
    collections: Mapping[str, CollectionSettings] | None,
    rebuilders: Iterable[RebuilderState],
    readers: Iterable[ReaderState],
    *,
    host: str = "",
) -> Iterator[Problem]:
    """The same, for whoever has these facts alone.

    Args:
        collections: ``None``: they are not compared.
        host: the machine that these settings were read on.
    """
    building = declared_to_build(definitions, collections or {})
    serving = declared_to_serve(definitions)
    for rebuilder in rebuilders:
        theirs = rebuilder.declares
        if theirs is not None and collections is None:
            theirs = Declaration(components=theirs.components)
        yield from _otherwise("rebuilder", rebuilder, theirs, building, host)
    for reader in readers:
        yield from _otherwise("reader", reader, reader.declares, serving, host)


def _otherwise(
    role: Role, state: ProcessState, theirs: Declaration | None, ours: Declaration, host: str
) -> Iterator[Problem]:
    if theirs is None:
        return
    differences = theirs.differences(ours, same_host=state.host == host)
    if differences:
        yield Problem(
            code=_CODES[role],
            subject=state.label,
            what=f"{role} {state.process} runs with other settings than these: "
            f"{', '.join(differences)}",
            advice="start it again, with these settings",
            acts=Actor.PERSON,
        )


def builders_of(name: str, facts: Facts) -> dict[str, bool | None]:
    """Who runs, and whether it builds ``name`` as it is declared here; ``None``: it does not say.

    By presence. One that cannot be read here is among them.
    """
    found = {} if facts.redis is None else facts.redis.rebuilders
    ours = declared_to_build(facts.definitions, {}).components.get(name)
    return {
        member: None
        if state is None or state.declares is None
        else ours is not None and state.declares.components.get(name) == ours
        for member, state in found.items()
    }


def declaring(name: str, rebuilders: Mapping[str, RebuilderState | None]) -> list[str]:
    """The processes of the rebuilders that declare a component, for a sentence."""
    return [
        state.process
        for state in rebuilders.values()
        if state is not None and state.declares is not None and name in state.declares.components
    ]
