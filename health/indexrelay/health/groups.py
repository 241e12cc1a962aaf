"""Whether groups are whole, and who holds them back: pure functions of facts.

What one state is says `indexrelay.schemas.groups`. Here is what follows for the next builds. A
build whose version could not be released beside a member that stays where it is would be in vain,
so it is not due: it waits for that member, and both are built when that one moves.

A member that was never released holds back nobody who is served. Only while nothing of a group was
ever released, everybody waits for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexrelay.health.dependencies import parents_of
from indexrelay.health.facts import Facts
from indexrelay.schemas.groups import disagreements, groups_of
from indexrelay.schemas.versions import VersionManifest

if TYPE_CHECKING:
    from indexrelay.health.due import Due


@dataclass(frozen=True, kw_only=True)
class GroupWait:
    """Why a component that has something new to contain is not built."""

    group: str
    held_back_by: Mapping[str, str]
    """The members that do not move, each with what follows its name in a sentence: ``is held
    (bad maps)``, ``failed 2 time(s) in a row: …``."""

    @property
    def sentence(self) -> str:
        """Who is waited for, and why."""
        return f"group {self.group} waits for " + ", and for ".join(
            f"{name}, which {why}" for name, why in sorted(self.held_back_by.items())
        )


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """How one declared group of two members or more stands."""

    group: str
    members: tuple[str, ...]
    """The declared ones, in the order of their names."""
    disagreements: tuple[str, ...] = ()
    """Why what is released of it is not at one state, a sentence each."""
    held_back_by: Mapping[str, str] = field(default_factory=dict)
    """The members for which others wait, and why they do not move; see `GroupWait`."""
    waiting: tuple[str, ...] = ()
    """The members that would be built if those moved."""

    @property
    def whole(self) -> bool:
        """Whether what is released of it is at one state."""
        return not self.disagreements

    @property
    def sentence(self) -> str:
        """Who is waited for, and why; empty where nobody waits."""
        if not self.waiting:
            return ""
        return GroupWait(group=self.group, held_back_by=self.held_back_by).sentence


def judge_groups(facts: Facts, due: "Due") -> dict[str, GroupState]:
    """Each declared group of two members or more: is it whole, who waits, and for whom and why.

    Args:
        due: what `indexrelay.health.due.find_due` says of the same facts.
    """
    released = {} if facts.release is None else facts.release.components
    states = {}
    for group, members in groups_of(facts.definitions).items():
        waiting = [name for name in members if name in due.waiting]
        states[group] = GroupState(
            group=group,
            members=members,
            disagreements=disagreements(
                {name: facts.versions[name] for name in members if name in facts.versions},
                released,
            ),
            held_back_by={
                name: why
                for each in waiting
                for name, why in due.waiting[each].held_back_by.items()
            },
            waiting=tuple(waiting),
        )
    return states


def find_waiting(
    facts: Facts, reasons: Mapping[str, str], waiting: Mapping[str, GroupWait]
) -> dict[str, GroupWait]:
    """Which of the components that have a reason to be built wait for another of their group.

    Args:
        reasons: what would be built, all at the state of the sources as they are now.
        waiting: those that were found to wait before, and are not in ``reasons`` for it.
    """
    found: dict[str, GroupWait] = {}
    for group, members in groups_of(facts.definitions).items():
        for name in (each for each in members if each in reasons):
            kept_by = [
                other
                for other in members
                if other not in reasons and keeps_back(other, name, facts, reasons)
            ]
            if kept_by:
                found[name] = GroupWait(
                    group=group, held_back_by=_culprits(kept_by, facts, reasons, waiting)
                )
    return found


def keeps_back(other: str, name: str, facts: Facts, reasons: Mapping[str, str]) -> bool:
    """Whether a build of ``name`` could not be released, because ``other`` of its group stays.

    Args:
        reasons: what is built, all at the state of the sources as they are now.
    """
    released = {} if facts.release is None else facts.release.components
    if other not in released:
        members = groups_of(facts.definitions).get(facts.definitions[name].group or "", ())
        return released.keys().isdisjoint(members)
    return _parts(name, other, facts, reasons)


def why_it_stays(name: str, facts: Facts, reasons: Mapping[str, str]) -> str:
    """Why a component is not built now, as what follows its name in a sentence."""
    holds = {} if facts.release is None else facts.release.holds
    if name in holds:
        return f"is held ({holds[name].reason})"
    if name in facts.paused:
        return "is paused"
    if name in facts.attempts:
        attempt = facts.attempts[name]
        return f"failed {attempt.failures} time(s) in a row: {attempt.error}"
    lacking = _lacking(name, facts)
    if lacking is not None:
        return f"is made from {lacking}"
    for parent in parents_of(facts.definitions[name], facts.definitions):
        if parent not in reasons:
            return f"is made from {parent}, which {why_it_stays(parent, facts, reasons)}"
    if name in facts.damaged:
        return f"is damaged: {facts.damaged[name]}"
    version = facts.versions.get(name)
    if version is not None and version.definition != facts.definitions[name].digest:
        return "was built by a rebuilder with newer settings"
    return "has nothing new to contain"


def _lacking(name: str, facts: Facts) -> str | None:
    """Which of its collections gives it nothing to be made from, and why."""
    for source in facts.definitions[name].inputs:
        if source in facts.definitions:
            continue
        if source in facts.unreadable:
            return f"{source}, which cannot be read: {facts.unreadable[source]}"
        if facts.outrunning(source):
            return f"{source}, whose catalog went back in time"
        if source not in facts.sources or facts.sources[source].generation == 0:
            return f"{source}, to which nothing was committed yet"
    return None


def _culprits(
    kept_by: list[str],
    facts: Facts,
    reasons: Mapping[str, str],
    waiting: Mapping[str, GroupWait],
) -> dict[str, str]:
    """Those who stay of their own accord; of one that waits itself, whom it waits for."""
    found: dict[str, str] = {}
    for name in kept_by:
        if name in waiting:
            found |= waiting[name].held_back_by
        else:
            found[name] = why_it_stays(name, facts, reasons)
    return found


def _parts(name: str, other: str, facts: Facts, reasons: Mapping[str, str]) -> bool:
    """Whether a build of ``name`` would leave the state at which the released ``other`` stays."""
    stays = facts.versions.get(other)
    if stays is None:
        return True  # damaged: it cannot be released beside anything
    if stays.definition != facts.definitions[other].digest:
        return True  # declared anew: the next state of the group has it as declared
    if name in stays.parents:
        return True
    released = {} if facts.release is None else facts.release.components
    for parent in parents_of(facts.definitions[name], facts.definitions):
        named = stays.parents.get(parent)
        if named is not None and (parent in reasons or released.get(parent) != named):
            return True
    return any(
        collection in stays.covers
        and (stays.epochs.get(collection), stays.covers[collection]) != state
        for collection, state in _reached(name, facts, reasons).items()
    )


def _reached(
    name: str, facts: Facts, reasons: Mapping[str, str]
) -> dict[str, tuple[str | None, int]]:
    """For each collection: the epoch and the generation that a build would cover now."""
    found: dict[str, tuple[str | None, int]] = {}
    for source in facts.definitions[name].inputs:
        if source not in facts.definitions:
            fact = facts.sources.get(source)
            reached: dict[str, tuple[str | None, int]] = {}
            if fact is not None:
                reached[source] = (fact.epoch, fact.generation)
        elif source in reasons:
            reached = _reached(source, facts, reasons)
        else:
            reached = _covered(facts.versions.get(source))
        for collection, (epoch, generation) in reached.items():
            before = found.get(collection, (epoch, generation))
            found[collection] = (before[0], min(before[1], generation))
    return found


def _covered(version: VersionManifest | None) -> dict[str, tuple[str | None, int]]:
    if version is None:
        return {}
    return {name: (version.epochs.get(name), upto) for name, upto in version.covers.items()}
