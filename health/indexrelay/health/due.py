"""Which components are due, and why; and which of them wait for another of their group.

Pure functions of facts, level-triggered: they compare what is with what should be, and no event,
retry or timer changes the answer. Asking twice gives the same answer; a lost event costs only time.

A group is released whole (`indexrelay.schemas.versions`). A build whose version could not be
released beside a member that stays where it is would be in vain, so it is not due: it waits for
that member, and both are built when that one moves. A member that was never released holds back
nobody who is served. Only while nothing of a group was ever released, each member waits for all.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from indexrelay.health.facts import Facts, RetryPolicy
from indexrelay.health.persistence import Deferral, deferral, deferral_of
from indexrelay.schemas import commands
from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import (
    Definitions,
    VersionManifest,
    disagreements,
    groups_of,
    in_order,
    mates_of,
    parents_of,
    root_collections,
    with_descendants,
)

if TYPE_CHECKING:
    from indexrelay.storage.catalog import Attempt


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
class Due:
    """What to build, with the reason for each, parents first."""

    reasons: Mapping[str, str]
    retry_at: datetime | None = None
    """When the next failed component may be tried again."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """What would be due, but for another member of its group that stays where it is."""
    deferred: Mapping[str, Deferral] = field(default_factory=dict)
    """What would be due, but for the policy of a collection (`indexrelay.health.persistence`)."""

    @property
    def look_at(self) -> datetime | None:
        """When something may become due that nothing else announces."""
        deferred = (each.until for each in self.deferred.values())
        return min(
            (moment for moment in (self.retry_at, *deferred) if moment is not None), default=None
        )


_BETTER: Final = "a better version of it is built"


def find_due(facts: Facts, retry_policy: RetryPolicy) -> Due:
    """Compare what is covered with what should be.

    A component that failed is left alone until its cool-down is over, unless its input or its
    definition changed since, or someone asks for it by name. A member of a group is not due while
    another one keeps what would be built from being released.
    """
    waiting: dict[str, GroupWait] = {}
    facts = replace(facts, requested=facts.requested - left_alone(facts, retry_policy).keys())
    while True:
        # What waits takes others along: children that were due for it alone, and more of the group.
        due = _due_besides(waiting, facts, retry_policy)
        found = find_waiting(facts, due.reasons, waiting)
        along = {
            other
            for wait in found.values()
            for other in wait.held_back_by
            if deferral_of(other, facts) is not None
        }
        if along:  # nothing keeps them but the policy of their collection
            facts = replace(facts, not_deferred=facts.not_deferred | along)
            continue
        if not found:
            deferring = any(_defers(each, facts) for each in facts.collections)
            return replace(due, deferred=_deferred(facts, due)) if deferring else due
        waiting |= found


def _deferred(facts: Facts, due: Due) -> dict[str, Deferral]:
    return {
        name: found
        for name in facts.definitions
        if name not in due.reasons
        and name not in due.waiting
        and (found := deferral_of(name, facts)) is not None
    }


def _defers(collection: str, facts: Facts) -> bool:
    """Whether the changes of a collection may wait; most are built at once."""
    settings = facts.collections.get(collection)
    return settings is not None and settings.persistence != "immediate"


def _due_besides(waiting: Mapping[str, GroupWait], facts: Facts, retry_policy: RetryPolicy) -> Due:
    """What is due when these have to wait."""
    reasons: dict[str, str] = {}
    retries: list[datetime] = []
    for name in in_order(facts.definitions):
        if name in waiting or (name in facts.paused and name not in facts.requested):
            continue
        reason = _reason(name, facts, reasons)
        if reason is None:
            continue
        attempt = facts.attempts.get(name)
        if (
            attempt is not None
            and name not in facts.requested
            and _is_same_attempt(name, attempt, facts, reasons)
        ):
            retry_at = retry_policy.retry_at(attempt)
            if retry_at is None:
                continue
            if retry_at > facts.now:
                retries.append(retry_at)
                continue
        reasons[name] = reason
    return Due(reasons=reasons, retry_at=min(retries, default=None), waiting=dict(waiting))


def left_alone(facts: Facts, retry_policy: RetryPolicy) -> dict[str, str]:
    """What schedules ask for and is not built for their sake, and why and until when.

    It is built all the same where it is due by itself, or a person asks.
    """
    found = {}
    for name, cooldown_seconds in facts.scheduled.items():
        attempt = facts.attempts.get(name)
        until = None if attempt is None else retry_policy.rests_until(attempt, cooldown_seconds)
        if name in facts.paused:
            found[name] = (
                f"it is paused ({facts.paused[name].reason}); when it may move on: "
                f"{commands.resume(name)}"
            )
        elif attempt is not None and until is not None and until > facts.now:
            found[name] = (
                f"it failed {attempt.failures} time(s) in a row, and schedules leave it alone "
                f"until {until:%Y-%m-%d %H:%M} UTC; at once: {commands.rebuild(name)}"
            )
    return found


def why_not(name: str, facts: Facts) -> str:
    """Why a component that someone asked for cannot be built now."""
    if name not in facts.definitions:
        return "there is no such component"
    if name in (alone := left_alone(facts, facts.retry_policy)):
        return alone[name]
    if _is_newer_elsewhere(name, facts):
        return "another rebuilder has newer settings for it; restart this one with them"
    if facts.release is not None and name in facts.release.holds:
        return f"it is held ({facts.release.holds[name].reason}); lift it first"
    obstacles = (_obstacle(source, facts) for source in facts.definitions[name].inputs)
    return next(filter(None, obstacles), "it is not due")


def _obstacle(source: str, facts: Facts) -> str | None:
    """Why nothing can be made from a collection or a component now."""
    if source in facts.unreadable:
        return f"{source} cannot be read: {facts.unreadable[source]}"
    if facts.covering_lost(source):
        return _restore_first(source)
    if source in facts.definitions:
        if source in facts.corrupt or source not in facts.versions:
            return f"{source}, which it is made from, has no version that is whole"
    elif source not in facts.sources or facts.sources[source].generation == 0:
        return facts.unread_source(source) or f"nothing was committed to {source} yet"
    return None


def withheld(facts: Facts) -> dict[str, str]:
    """The components that are not built since a catalog went back in time, and what to do."""
    outrun = {name for name in facts.sources if facts.covering_lost(name)}
    return {
        name: _restore_first(min(lost))
        for name in facts.definitions
        if (lost := outrun & root_collections(name, facts.definitions))
    }


def targets_of(name: str, facts: Facts) -> dict[str, int]:
    """The generations that a build of ``name`` would cover now."""
    roots = root_collections(name, facts.definitions)
    return {root: facts.sources[root].generation for root in sorted(roots & set(facts.sources))}


def _reason(name: str, facts: Facts, due: Mapping[str, str]) -> str | None:
    """Why ``name`` is due, or ``None``."""
    if not _buildable(name, facts, due):
        return None
    version = facts.versions.get(name)
    changed = version is not None and version.definition != facts.definitions[name].digest
    if changed and _is_newer_elsewhere(name, facts):
        return None
    hold = facts.holds.get(name)
    if hold is not None and (not changed or hold.refused == facts.definitions[name].digest):
        return None
    if name in facts.requested:
        return "someone asked for it"
    if name in facts.corrupt:
        return f"its files are corrupt: {facts.corrupt[name]}"
    if version is None:
        return "it was never built"
    if changed:
        return "its definition changed"
    if name in facts.outdated:
        return facts.outdated[name]
    return (
        _behind(version, facts)
        or _other_parent(version, facts, due)
        or (_BETTER if name in facts.improved else None)
    )


def _is_newer_elsewhere(name: str, facts: Facts) -> bool:
    """Whether a rebuilder that took up other definitions after us has built it.

    While settings are rolled out, two rebuilders would otherwise replace each other's versions
    for ever; so the one that started last decides.
    """
    version = facts.versions.get(name)
    other = version is not None and version.definition != facts.definitions[name].digest
    return version is not None and other and version.created_at > facts.since


def _behind(version: VersionManifest, facts: Facts) -> str | None:
    """Which of its collections has something that it does not contain, and a build would."""
    definition = facts.definitions[version.component]
    parents = parents_of(definition, facts.definitions)
    for source in definition.inputs:
        fact = facts.sources.get(source)
        if source in facts.definitions or fact is None:
            continue
        if version.epochs.get(source) != fact.epoch:
            return f"{source} was created again"
        covered = version.covers.get(source, 0)
        # A version covers what all of its inputs contain. While a parent stays where it is (held,
        # paused, failed), a build would cover no more than the parent does, time and again.
        reach = min(
            [fact.generation]
            + [
                facts.versions[parent].covers.get(source, fact.generation)
                for parent in parents
                if parent in facts.versions
            ]
        )
        if covered < reach and not (
            _defers(source, facts) and deferral(version.component, source, facts)
        ):
            return f"{source} is at generation {reach}, it covers {covered}"
    return None


def _other_parent(version: VersionManifest, facts: Facts, due: Mapping[str, str]) -> str | None:
    """Which component that it is made from is no longer the one that it was made from."""
    released = facts.release.components if facts.release is not None else {}
    for parent in parents_of(facts.definitions[version.component], facts.definitions):
        if parent in due:
            return f"{parent} is built again"
        if version.parents.get(parent) != released.get(parent):
            return f"{parent} has a new version"
    return None


def _buildable(name: str, facts: Facts, due: Mapping[str, str]) -> bool:
    """Whether all that it is made from is there, or will be in this pass."""
    released = facts.release.components if facts.release is not None else {}
    for source in facts.definitions[name].inputs:
        if source in facts.definitions:
            if source not in due and (source not in released or source in facts.corrupt):
                return False
        elif source not in facts.sources or facts.sources[source].generation == 0:
            return False  # unreadable just now, or nothing was ever committed to it
        elif facts.covering_lost(source):
            return False  # whether what it lost may go from what serves, a person says
    return True


def _restore_first(collection: str) -> str:
    return (
        f"the catalog of {collection} went back in time; first let it go on from what it holds: "
        f"{commands.restore_collection(collection)}"
    )


def inputs_digest(definition: ComponentDefinition, parents: Mapping[str, str]) -> str:
    """What a build was tried with, besides the generations: definition and parents' versions."""
    return sha256_hex(canonical_json([definition.digest, sorted(parents.items())]))


def parent_inputs(
    name: str, definitions: Definitions, versions: Mapping[str, str]
) -> dict[str, str]:
    """What represents each parent of ``name`` in `inputs_digest`: its version, as a rule.

    A parent that is not released before ``name`` is (they are of one group, or something of it is
    between them) has no released version to compare while ``name`` fails: there it is what the
    parent is declared as, and its own inputs.
    """
    bound = _bound_to(name, definitions)
    return {
        parent: _declared(parent, bound, definitions, versions)
        if parent in bound
        else versions.get(parent, "")
        for parent in parents_of(definitions[name], definitions)
    }


def _bound_to(name: str, definitions: Definitions) -> set[str]:
    """The components that are released together with ``name`` or after others of its group."""
    return with_descendants(mates_of(name, definitions), definitions) - {name}


def _declared(
    name: str, bound: AbstractSet[str], definitions: Definitions, versions: Mapping[str, str]
) -> str:
    parents = {
        parent: _declared(parent, bound, definitions, versions)
        if parent in bound
        else versions.get(parent, "")
        for parent in parents_of(definitions[name], definitions)
    }
    return inputs_digest(definitions[name], parents)


def _free_parents(name: str, bound: AbstractSet[str], definitions: Definitions) -> set[str]:
    """The nearest components that ``name`` is made from and that are released without it."""
    found: set[str] = set()
    for parent in parents_of(definitions[name], definitions):
        found |= _free_parents(parent, bound, definitions) if parent in bound else {parent}
    return found


def _is_same_attempt(name: str, attempt: "Attempt", facts: Facts, due: Mapping[str, str]) -> bool:
    """Whether trying again would try the very same thing."""
    definitions = facts.definitions
    released = facts.release.components if facts.release is not None else {}
    free = _free_parents(name, _bound_to(name, definitions), definitions)
    if any(parent in due or parent not in released for parent in free):
        return False
    inputs = inputs_digest(definitions[name], parent_inputs(name, definitions, released))
    return attempt.inputs == inputs and attempt.targets == targets_of(name, facts)


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Whether one declared group of two members or more is whole, and who waits in it."""

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
        """Who is waited for, and why; empty where no member waits."""
        if not self.waiting:
            return ""
        return GroupWait(group=self.group, held_back_by=self.held_back_by).sentence


def judge_groups(facts: Facts, due: Due) -> dict[str, GroupState]:
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
                    group=group, held_back_by=_holding_back(kept_by, facts, reasons, waiting)
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
    return _would_split(name, other, facts, reasons)


def why_not_built(name: str, facts: Facts, reasons: Mapping[str, str]) -> str:
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
            return f"is made from {parent}, which {why_not_built(parent, facts, reasons)}"
    if name in facts.corrupt:
        return f"is corrupt: {facts.corrupt[name]}"
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
        if facts.covering_lost(source):
            return f"{source}, whose catalog went back in time"
        if source not in facts.sources or facts.sources[source].generation == 0:
            unread = facts.unread_source(source)
            if unread is not None:
                return f"{source} ({unread})"
            return f"{source}, to which nothing was committed yet"
    return None


def _holding_back(
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
            found[name] = why_not_built(name, facts, reasons)
    return found


def _would_split(name: str, other: str, facts: Facts, reasons: Mapping[str, str]) -> bool:
    """Whether a build of ``name`` would leave the state at which the released ``other`` stays."""
    stays = facts.versions.get(other)
    if stays is None:
        return True  # corrupt: it cannot be released beside anything
    if stays.definition != facts.definitions[other].digest:
        return True  # declared differently: the next state of the group has it as declared
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
