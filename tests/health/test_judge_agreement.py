"""No two commands disagree on whether all is well, whatever the facts are."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.health.due import find_due
from indexrelay.health.facts import Area, Facts, SourceFact, Unknown, Untaken
from indexrelay.health.judge import judge
from indexrelay.health.status import BUILDS, PLACES, Code, Condition
from indexrelay.schemas.messages import LoadOutcome
from indexrelay.streams.repair import WrongKey
from tests.health.healthy_facts import (
    NAMES,
    NOW,
    OLD,
    VERSIONS,
    attempt,
    declaring,
    healthy,
    hold,
    manifest,
    pause,
    reader,
    rebuilder,
    redis,
    release,
    served,
    stored,
)

SAME = (None, declaring())
"""What rebuilders say that are not known to have other settings."""
names = st.sampled_from(NAMES)
some = st.sets(names, max_size=2)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """An installation in which any of it may be wrong, much at a time."""
    generation = draw(st.integers(0, 5))
    epoch = draw(st.sampled_from(["e1", "e1", "e2"]))
    versions = {
        name: manifest(name, covers={"tracks": draw(st.integers(1, 5))}, entries=10)
        if draw(st.booleans())
        else VERSIONS[name]
        for name in NAMES
        if draw(st.integers(0, 4))
    }
    corrupt = dict.fromkeys(draw(some) & versions.keys(), "rotten")
    released = release(
        components={name: each.id for name, each in versions.items()},
        holds={name: hold() for name in draw(some) & versions.keys()},
    )
    states = {
        f"reader-{number}": reader(
            reader=f"reader-{number}",
            ready=draw(st.booleans()),
            release=draw(st.integers(5, 8)),
            components={
                name: served(name, outcome=draw(st.sampled_from(LoadOutcome)), error="why")
                for name in versions
            },
        )
        for number in range(draw(st.integers(0, 2)))
    }
    builders = {
        f"r{number}": rebuilder(
            rebuilder=f"r{number}",
            building=tuple(sorted(draw(some))),
            declares=draw(st.sampled_from((*SAME, declaring(map=OLD), declaring(old=OLD)))),
        )
        for number in range(draw(st.integers(0, 2)))
    }
    seen = redis(
        announced=draw(st.integers(5, 8)),
        readers={**states, **({"odd": None} if draw(st.booleans()) else {})},
        rebuilders=builders,
        seconds_left={"rebuilder:r0": draw(st.floats(0, 15))},
        untaken=(Untaken(count=1, seconds=draw(st.floats(0, 60))),) if draw(st.booleans()) else (),
        wrong_keys=draw(
            st.sampled_from([(), (WrongKey(key="k", found="a list", wanted="a string"),)])
        ),
        eviction=draw(st.sampled_from([None, "noeviction", "allkeys-lru"])),
    )
    fact = SourceFact(epoch=epoch, generation=generation, entries=draw(st.sampled_from([0, 10])))
    facts = healthy(
        generation=generation,
        stored={"tracks": stored(epoch=epoch, generation=generation)},
        sources={"tracks": fact},
        versions={name: each for name, each in versions.items() if name not in corrupt},
        corrupt=corrupt,
        release=released if versions else None,
        attempts={name: attempt(name, failures=draw(st.integers(1, 4))) for name in draw(some)},
        paused={name: pause(name) for name in draw(some)},
        dead_letters=draw(st.integers(0, 1)),
        broken_releases=draw(st.sampled_from([{}, {8: "torn"}])),
        highest_release=8,
        redis=seen,
        now=NOW + timedelta(seconds=draw(st.integers(0, 100))),
    )
    if draw(st.booleans()):
        facts = replace(facts, sources={}, unreadable={"tracks": "no such folder"})
    for area in draw(st.sets(st.sampled_from(Area))):
        gone: dict[Area, dict[str, Any]] = {
            Area.CATALOG: {"sources": {}, "stored": {}, "attempts": {}, "paused": {}},
            Area.ARTIFACTS: {"release": None, "versions": {}, "corrupt": {}},
            Area.REDIS: {"redis": None},
        }
        unknown = {**facts.unknown, area: Unknown(reason="away", advice="start it")}
        facts = replace(facts, unknown=unknown, **gone[area])
    return facts


@settings(max_examples=150, deadline=None)
@given(any_facts())
def test_no_two_commands_disagree_and_each_problem_names_what_to_do(facts: Facts) -> None:
    verdict = judge(facts)
    everything = verdict.within(set(Code))
    assert everything == verdict
    assert verdict.well == (not verdict.problems)
    for codes in (PLACES, BUILDS):
        part = verdict.within(codes)
        assert set(part.problems) <= set(verdict.problems)
        assert part.well == (not part.problems)
        if not part.well:
            assert not verdict.well
    assert {each for each in verdict.problems if each.code in PLACES} <= set(
        verdict.within(BUILDS).problems
    )
    for problem in verdict.problems:
        assert problem.what
        assert problem.advice
    # Whoever runs with other settings is named, and nothing is promised of it alone.
    other = {name for name, each in facts.known_rebuilders.items() if each.declares not in SAME}
    assert other == {
        each.subject for each in verdict.problems if each.code is Code.REBUILDER_OTHER_SETTINGS
    }
    # What could not be looked at is never well, and what a rebuilder would do is not, either.
    assert not (facts.unknown and verdict.well)
    assert not (find_due(facts, facts.retry_policy).reasons and verdict.well)
    told = " ".join(each.what for each in verdict.problems)
    for name, health in verdict.components.items():
        empty = health.condition is Condition.MISSING and "tracks yet" in " ".join(verdict.notes)
        if (
            health.condition is not Condition.CURRENT or health.held or health.paused
        ) and not empty:
            unseen = facts.unknown or "tracks" in facts.unreadable
            assert name in told or "collection tracks" in told or unseen, (name, health, told)
            assert not verdict.well
