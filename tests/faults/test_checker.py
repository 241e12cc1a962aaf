"""The checker is checked: a good history passes, and each invariant broken once is found."""

import re
from dataclasses import replace
from typing import Any

import pytest

from faults.checker import check
from faults.history import (
    Announced,
    Answered,
    AskedFor,
    Batch,
    History,
    Left,
    Part,
    QueryFailed,
    Released,
    Reported,
    SaidWell,
    Sample,
    Told,
    Version,
    content_digest,
)

NAMES = ("left", "right")
FIRST, SECOND = content_digest(["a"]), content_digest(["a", "b"])


def version(component: str, covers: int, **other: Any) -> Version:
    name = f"{component}-{covers}"
    content = {1: FIRST, 2: SECOND}[covers]
    fields = {"component": component, "id": name, "covers": covers, "content": content}
    return Version(**{**fields, "blob": f"blob of {name}", **other})


def released(number: int, left: int, right: int, **other: Any) -> Released:
    return Released(
        number=number,
        components={"left": f"left-{left}", "right": f"right-{right}"},
        **{
            "groups": dict.fromkeys(NAMES, "pair"),
            "digest": f"digest {number}",
            "seen": frozenset({"once"}),
            **other,
        },
    )


def part(component: str, covers: int) -> Part:
    known = version(component, covers)
    return Part(version=known.id, covers=covers, content=known.content, blob=known.blob)


def sample(release: int, left: int, right: int, **other: Any) -> Sample:
    fields: dict[str, Any] = {"reader": "a", "process": 7, "thread": "t", "release": release}
    fields |= {"release_after": release, "parts": {"left": part("left", left)}}
    fields["parts"]["right"] = part("right", right)
    return Sample(**{**fields, **other})


def well(release: int = 2, served: dict[str, str | None] | None = None) -> SaidWell:
    """All was said to be well at release 2, and a reader was there."""
    components = {"left": "left-2", "right": "right-2"}
    return SaidWell(
        newest=2,
        components=components,
        readers={"a": (release, components if served is None else served)},
    )


def told(generation: int, client: str = "one") -> Told:
    return Told(client=client, generation=generation)


def answered(level: str, generation: int, *, committed: int = 2, content: str = "") -> Answered:
    return Answered(
        client="one",
        reader=f"of {generation}",
        level=level,
        generation=generation,
        content=content or {1: FIRST, 2: SECOND}[generation],
        committed=committed,
    )


GOOD = History(
    components=NAMES,
    batches=(
        Batch(batch_id="one", generation=1, upserts=("a",)),
        Batch(batch_id="two", generation=2, upserts=("b",)),
    ),
    versions=tuple(version(name, covers) for name in NAMES for covers in (1, 2)),
    releases=(released(1, 1, 1), released(2, 2, 2)),
    announced=(Announced(number=1, digest="digest 1"), Announced(number=2, digest="digest 2")),
    samples=(sample(1, 1, 1), sample(2, 2, 2)),
    reports=(Reported(reader="a", release=1), Reported(reader="a", release=2)),
    said_well=(well(),),
)
ASKED = replace(
    GOOD,
    clients=(
        answered("strong", 1, committed=1),
        told(2, "other"),
        answered("session", 1),
        answered("strong", 2),
        answered("eventual", 1),
        told(2),
        answered("session", 2),
    ),
)
HELD = frozenset(NAMES)


def test_a_good_history_passes() -> None:
    assert check(GOOD) == []
    assert check(ASKED) == []


@pytest.mark.parametrize(
    "history",
    [
        replace(GOOD, releases=(*GOOD.releases, released(3, 1, 1, holds=HELD))),
        replace(
            GOOD,
            releases=(*GOOD.releases, released(3, 1, 1, holds=HELD)),
            samples=(*GOOD.samples, sample(3, 1, 1)),
        ),
        replace(
            GOOD,
            releases=GOOD.releases[:1],
            announced=(),
            samples=(),
            reports=(),
            failures=dict.fromkeys(NAMES, 2),
        ),
        replace(
            GOOD,
            releases=GOOD.releases[:1],
            announced=(),
            samples=(),
            reports=(),
            dead=frozenset({2}),
        ),
        # A process that starts again serves nothing at first.
        replace(GOOD, samples=(*GOOD.samples, sample(0, 1, 1, process=8, parts={}))),
        # A group whose load failed stays where it was, whole.
        replace(GOOD, samples=(sample(1, 1, 1), sample(2, 1, 1))),
        # Who joins a group was apart from it before, and cannot be loaded.
        replace(
            GOOD,
            releases=(GOOD.releases[0], released(2, 2, 1, groups={}), released(3, 2, 2)),
            samples=(sample(3, 2, 1),),
        ),
        # What a reader serves was corrupt, and what came before was not.
        replace(
            GOOD,
            samples=(sample(2, 2, 2), sample(2, 1, 1)),
            corrupt=frozenset({"left-2", "right-2"}),
        ),
    ],
    ids=[
        "rollback",
        "rollback served",
        "failure",
        "dead letter",
        "start",
        "kept",
        "joins",
        "corrupt",
    ],
)
def test_what_may_happen_passes(history: History) -> None:
    assert check(history) == []


def rebuilt(**other: Any) -> History:
    """A third release, with another version of the same as in the second."""
    again = version("left", 2, id="left-again", blob="blob again", entries=20, **other)
    versions = tuple(replace(each, entries=20) for each in GOOD.versions)
    third = released(3, 2, 2)
    components = {**third.components, "left": again.id}
    return replace(
        GOOD,
        versions=(*versions, again),
        releases=(*GOOD.releases, replace(third, components=components)),
        requests=(AskedFor(components=("right",), force=True),),
    )


def shrunk(**other: Any) -> History:
    """The second version of one of two has lost most of its entries."""
    sizes = {"left-1": 20, "left-2": 9}
    versions = tuple(replace(each, entries=sizes.get(each.id, 20)) for each in GOOD.versions)
    return replace(GOOD, versions=versions, max_shrink={"left": 0.5}, **other)


ACCOUNTED = {
    "asked": replace(rebuilt(), requests=(AskedFor(components=("left",), force=False),)),
    "corrupt": replace(rebuilt(), corrupt=frozenset({"left-2"})),
    "redefined": rebuilt(definition="another"),
    "forced": shrunk(requests=(AskedFor(components=("left",), force=True),)),
    "forced all": shrunk(requests=(AskedFor(components=(), force=True),)),
    "held": shrunk(
        releases=(GOOD.releases[0], replace(GOOD.releases[1], holds=frozenset({"left"})))
    ),
}


@pytest.mark.parametrize("name", ACCOUNTED)
def test_what_follows_from_what_is_trusted_is_accounted_for(name: str) -> None:
    assert check(ACCOUNTED[name]) == []


WRONG = {
    "I11 nobody asked": rebuilt(),
    "I11 asked by nobody who may": replace(rebuilt(), requests=()),
    "I11 shrunk": shrunk(),
    "I11 shrunk and asked for": shrunk(requests=(AskedFor(components=("left",), force=False),)),
    "I11 another forced": shrunk(requests=(AskedFor(components=("right",), force=True),)),
    "I1 lost": replace(GOOD, releases=GOOD.releases[:1], announced=(), samples=(), reports=()),
    "I1 other entries": replace(
        GOOD, versions=(*GOOD.versions[:3], version("right", 2, content=FIRST)), samples=()
    ),
    "I1 gap": replace(GOOD, batches=(GOOD.batches[0], replace(GOOD.batches[1], generation=3))),
    "I1 twice": replace(
        GOOD, batches=tuple(replace(each, batch_id="one") for each in GOOD.batches)
    ),
    "I2 changed": replace(
        GOOD, releases=(GOOD.releases[0], replace(GOOD.releases[1], seen=frozenset({"x", "y"})))
    ),
    "I2 gap": replace(
        GOOD, releases=(GOOD.releases[0], released(3, 2, 2)), announced=(), samples=(), reports=()
    ),
    "I2 digest": replace(GOOD, announced=(Announced(number=2, digest="digest 1"),)),
    "I2 report": replace(GOOD, reports=(Reported(reader="a", release=3),)),
    "I3 release": replace(GOOD, releases=(released(1, 2, 2), released(2, 1, 1)), samples=()),
    "I3 reader": replace(GOOD, samples=(sample(2, 2, 2), sample(1, 1, 1))),
    "I3 generation": replace(GOOD, samples=(sample(2, 2, 2), sample(2, 1, 1))),
    "I3 whole": replace(
        GOOD, samples=(sample(2, 2, 2), sample(2, 1, 1)), corrupt=frozenset({"left-2"})
    ),
    "I3 restart": replace(GOOD, samples=(sample(2, 2, 2), sample(1, 1, 1, process=8))),
    "I4 bytes": replace(
        GOOD,
        samples=(sample(2, 2, 2, parts={"left": replace(part("left", 2), blob="others")}),),
    ),
    "I4 I6 version": replace(
        GOOD,
        versions=(*GOOD.versions, version("left", 2, id="secret")),
        samples=(sample(2, 2, 2, parts={"left": replace(part("left", 2), version="secret")}),),
    ),
    "I5 unread": replace(GOOD, left=Left(unread=1)),
    "I5 pending": replace(GOOD, left=Left(pending=1)),
    "I5 inbox": replace(GOOD, left=Left(inbox=1)),
    "I5 retries": replace(GOOD, left=Left(retries=1)),
    "I5 leases": replace(GOOD, left=Left(leases=1)),
    "I6 failed": replace(GOOD, query_failures=(QueryFailed(reader="a", error="gone"),)),
    "I6 I7 torn": replace(GOOD, samples=(sample(2, 1, 2),)),
    "I6 two releases": replace(GOOD, samples=(sample(1, 1, 1, release_after=2),)),
    "I6 answers": replace(
        GOOD, samples=(sample(2, 2, 2, parts={"left": replace(part("left", 2), content=FIRST)}),)
    ),
    "I8 behind": replace(GOOD, said_well=(well(release=1),)),
    "I8 version": replace(GOOD, said_well=(well(served={"left": "left-2", "right": "right-1"}),)),
    "I8 nothing": replace(GOOD, said_well=(well(served={}),)),
    "I8 nobody": replace(GOOD, said_well=(replace(well(), readers={}),)),
    "I8 lacking": replace(GOOD, said_well=(replace(well(), components={"left": "left-2"}),)),
    "I6 no release": replace(GOOD, samples=(sample(3, 2, 2),)),
    "I9 own write": replace(GOOD, clients=(told(2), answered("session", 1))),
    "I9 strong": replace(GOOD, clients=(told(2, "other"), answered("strong", 1))),
    "I9 content": replace(GOOD, clients=(answered("session", 2, content=FIRST),)),
    "I10": replace(GOOD, clients=(answered("session", 2), answered("session", 1))),
    "I10 after eventual": replace(
        GOOD, clients=(answered("eventual", 2), answered("session", 1, committed=0))
    ),
    "I7 release": replace(
        GOOD, releases=(*GOOD.releases, released(3, 2, 1, holds=HELD)), samples=GOOD.samples[:1]
    ),
    "I7 reader": replace(
        GOOD,
        releases=(*GOOD.releases, released(3, 2, 1, holds=HELD)),
        samples=(sample(3, 2, 1),),
    ),
    "I7 parent": replace(
        GOOD,
        versions=(*GOOD.versions[:-1], version("right", 2, parents={"left": "left-1"})),
    ),
    "I7 siblings": replace(
        GOOD,
        versions=tuple(
            replace(each, parents={"seed": f"{each.component} {each.covers}"})
            for each in GOOD.versions
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_violation_is_found_and_nothing_else(name: str) -> None:
    assert {violation.invariant for violation in check(WRONG[name])} == set(
        re.findall(r"I\d+", name)
    )
