"""What is wrong, in plain sentences, from facts alone.

A component that someone holds or paused, and that is not behind for it, is no problem: a person
decided so. Everything else that keeps a reader from serving the newest data is, and each problem
comes with the command or the setting that ends it.
"""

from collections.abc import Iterator, Mapping

from indexrelay.console.overview import CollectionFacts, ComponentFacts, Condition, Problem
from indexrelay.schemas.results import LoadOutcome, ReaderState, RebuilderState


def judge(
    *,
    release: int,
    announced: int | None,
    redis_error: str | None,
    collections: Mapping[str, CollectionFacts],
    components: Mapping[str, ComponentFacts],
    readers: Mapping[str, ReaderState],
    rebuilders: Mapping[str, RebuilderState],
    dead_letters: int = 0,
) -> tuple[Problem, ...]:
    """Every problem, the ones that explain others first."""
    return (
        *(
            problem
            for name, facts in collections.items()
            for problem in _of_collection(name, facts, components)
        ),
        *_of_redis(redis_error),
        *(_of_roles(readers, rebuilders) if redis_error is None else ()),
        *_of_announcement(release, announced),
        *(problem for name, facts in components.items() for problem in _of_component(name, facts)),
        *(problem for state in readers.values() for problem in _of_reader(state, release)),
        *_of_dead_letters(dead_letters),
    )


def _of_collection(
    name: str, facts: CollectionFacts, components: Mapping[str, ComponentFacts]
) -> Iterator[Problem]:
    served = sorted(component for component, of in components.items() if of.covers.get(name))
    if not facts.generation and served:
        yield Problem(
            what=f"collection {name} is gone, and what was made of it still serves: "
            f"{', '.join(served)}",
            advice="fill it again, or take it and them out of the settings; jobs and rebuilders "
            "that were started before have to be started again",
        )
    if facts.conflict is not None:
        yield Problem(
            what=f"collection {name} cannot be used: {facts.conflict}",
            advice="change the settings back, declare a collection of another name, "
            f"or drop it and fill it again: indexrelay collections drop {name}",
        )


def _of_redis(error: str | None) -> Iterator[Problem]:
    if error is not None:
        yield Problem(
            what=f"Redis does not answer: {error}",
            advice="commits stand meanwhile, and readers keep serving what they have",
        )


def _of_roles(
    readers: Mapping[str, ReaderState], rebuilders: Mapping[str, RebuilderState]
) -> Iterator[Problem]:
    if not rebuilders:
        yield Problem(
            what="no rebuilder is running, so nothing new is built",
            advice="start one with: indexrelay rebuilder",
        )
    if not readers:
        yield Problem(
            what="no reader is running, so nothing is served",
            advice="start one with: indexrelay reader --id NAME",
        )


def _of_announcement(release: int, announced: int | None) -> Iterator[Problem]:
    if announced is not None and announced < release:
        yield Problem(
            what=f"release {release} is committed, but Redis was only told of {announced}",
            advice="nothing to do: readers look at the artifacts by themselves, "
            "and a rebuilder announces it at its next reconcile",
        )
    elif announced is not None and announced > release:
        yield Problem(
            what=f"release {announced} was announced, but the newest in the artifacts is {release}",
            advice="see that artifacts.dir is the right one, and mounted; if it has lost releases, "
            "a running rebuilder goes on above their numbers within minutes",
        )


def _of_component(name: str, facts: ComponentFacts) -> Iterator[Problem]:
    behind = ", ".join(f"{count} generation(s) of {of}" for of, count in facts.behind.items())
    match facts.condition:
        case Condition.FAILED:
            serving = "the last good version still serves" if facts.version else "nothing serves it"
            yield Problem(
                what=f"{name} failed {facts.failures} time(s) in a row, {serving}: {facts.error}",
                advice=f"mend the cause, then: indexrelay rebuild {name}",
            )
        case Condition.HELD if behind:
            yield Problem(
                what=f"{name} is held ({facts.error}) and {behind} behind",
                advice=f"when it may move on: indexrelay lift {name}",
            )
        case Condition.PAUSED if behind or facts.version is None:
            yield Problem(
                what=f"{name} is paused ({facts.error})" + (f" and {behind} behind" * bool(behind)),
                advice=f"when it may move on: indexrelay resume {name}",
            )
        case Condition.MISSING if behind:
            yield Problem(
                what=f"{name} was never built",
                advice="a running rebuilder builds it; its log says why it has not",
            )
        case Condition.BEHIND:
            yield Problem(
                what=f"{name} is {behind} behind",
                advice="a running rebuilder catches up by itself; at once: indexrelay rebuild",
            )
        case Condition.CHANGED:
            yield Problem(
                what=f"{name} is declared differently than it was built",
                advice="a running rebuilder that was started with these settings builds it anew",
            )
        case Condition.UNDECLARED:
            yield Problem(
                what=f"{name} is served, but the settings do not declare it",
                advice="declare it again; it leaves the next release otherwise",
            )
        case _:
            return


def _of_reader(state: ReaderState, release: int) -> Iterator[Problem]:
    failed = {
        name: component
        for name, component in state.components.items()
        if component.outcome is LoadOutcome.FAILED
    }
    for name, component in failed.items():
        serves = "it serves the last good one" if component.version else "it serves none"
        yield Problem(
            what=f"reader {state.reader} could not load {name}, {serves}: {component.error}",
            advice="passing errors are tried again by themselves; "
            f"a damaged file needs a new version: indexrelay rebuild {name}",
        )
    if state.release < release:
        yield Problem(
            what=f"reader {state.reader} is at release {state.release}, {release} is the newest",
            advice="it follows within its poll_seconds; if not, look into its log",
        )
    elif not state.ready and not failed:
        yield Problem(
            what=f"reader {state.reader} is not ready: a required component is not served yet",
            advice="it is ready when each required component has a released version",
        )


def _of_dead_letters(count: int) -> Iterator[Problem]:
    if count:
        yield Problem(
            what=f"{count} event(s) could not be read and are dead letters",
            advice="see indexrelay dead list; then indexrelay dead retry, or drop",
        )
