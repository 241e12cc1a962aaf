"""Which of the versions that were built may be released beside the others of their groups.

A release moves a group whole or leaves it whole (`indexrelay.schemas.versions` says what that is).
For each group the newest set of versions is looked for that is at one state and as declared: of
each member the version that was built now, one that was built earlier and had to wait, the released
one, or, where the member was never released, none yet. Where there is no such set the group stays
as it is, and what was built for it waits in the store.

Where the released versions of a group do not agree already (an earlier version of this program made
such releases), the first set that does replaces them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from indexrelay.health.due import GroupWait
from indexrelay.schemas.versions import Definitions, VersionManifest, agree, in_order

_MOST_LOOKS: Final = 20_000
"""Comparisons that the search for one group may take. Members that share a collection leave each
other little choice, so that a few hundred are usual; a group that needs more stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One version that may be in the next release."""

    component: str
    id: str
    manifest: VersionManifest


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What may be released of what was built."""

    chosen: Mapping[str, Candidate] = field(default_factory=dict)
    """By component: the new versions."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """By component: what was built and has to wait, and for whom."""


class Chooser:
    """Chooses for one release, against one that is released now."""

    def __init__(
        self,
        *,
        definitions: Definitions,
        groups: Mapping[str, Sequence[str]],
        released: Mapping[str, Candidate | None],
        holds: Mapping[str, str],
        kept: Callable[[str], Sequence[Candidate]],
    ) -> None:
        """Take the facts; for one call of `choose`.

        Args:
            groups: the members of each group that has to stay whole, parents first.
            released: what is released now; ``None``: its manifest cannot be read.
            holds: why components are held.
            kept: the versions of a component that were built earlier and had to wait, newest first,
                as far as they may replace what is released.
        """
        self._definitions = definitions
        self._groups = groups
        self._released = released
        self._holds = holds
        self._kept = kept

    def choose(self, built: Mapping[str, Candidate]) -> Choice:
        """What of ``built`` leaves every group whole.

        Args:
            built: by component, what is newer than what is released.
        """
        self._chosen = dict(built)
        self._waiting: dict[str, GroupWait] = {}
        while left := self._left_of_groups() or self._left_of_parents(built):
            self._waiting |= left
            for name in left:
                del self._chosen[name]
        return Choice(chosen=self._chosen, waiting=self._waiting)

    def _left_of_groups(self) -> dict[str, GroupWait]:
        """What cannot be released of the first group that cannot move whole.

        Other groups are completed on the way, by versions that were built earlier.
        """
        for group, members in self._groups.items():
            mine = [name for name in members if name in self._chosen]
            if not mine:
                continue
            moved = self._moved(members, with_kept=False)
            if any(name not in moved for name in mine):
                moved = self._moved(members, with_kept=True)
            late = [name for name in mine if moved.get(name) is not self._chosen[name]]
            if late:
                wait = GroupWait(group=group, held_back_by=self._culprits(members, late))
                left = {name: wait for name in late if name not in moved}
                if left:
                    return left
                # An earlier version of each is released instead.
                self._waiting |= dict.fromkeys(late, wait)
            self._chosen |= moved
        return {}

    def _left_of_parents(self, built: Mapping[str, Candidate]) -> dict[str, GroupWait]:
        """Children of versions that are not released: they wait with them."""
        return {
            name: self._waiting[parent]
            for name, candidate in self._chosen.items()
            for parent, version in candidate.manifest.parents.items()
            if parent in self._waiting and parent in built and version == built[parent].id
        }

    def _moved(self, members: Sequence[str], *, with_kept: bool) -> dict[str, Candidate]:
        """Of the newest whole set of versions of a group: what is not released yet."""
        is_new = self._released.keys().isdisjoint(members)
        options = [
            list(self._options(name, is_new=is_new, with_kept=with_kept)) for name in members
        ]
        looks = 0

        def search(found: list[Candidate | None]) -> list[Candidate | None] | None:
            nonlocal looks
            if len(found) == len(members):
                return found
            for option in options[len(found)]:
                looks += 1
                if looks > _MOST_LOOKS:
                    return None
                if all(_at_one_state(option, other) for other in found):
                    whole = search([*found, option])
                    if whole is not None:
                        return whole
            return None

        return {
            candidate.component: candidate
            for candidate in search([]) or ()
            if candidate is not None and candidate is not self._released.get(candidate.component)
        }

    def _options(self, name: str, *, is_new: bool, with_kept: bool) -> Iterator[Candidate | None]:
        """What may be in the next release of one member, the newest first."""
        if name in self._chosen:
            yield self._chosen[name]
        for candidate in self._kept(name) if with_kept else ():
            if self._has_its_parents(candidate):
                yield candidate
        if name in self._released:
            released = self._released[name]
            if released is not None and self._is_declared(released):
                yield released
        elif not is_new:
            yield None

    def _is_declared(self, candidate: Candidate) -> bool:
        """Whether it is what the settings declare now: a group moves to that as a whole."""
        definition = self._definitions.get(candidate.component)
        return definition is None or definition.digest == candidate.manifest.definition

    def _has_its_parents(self, candidate: Candidate) -> bool:
        """Whether what it was made from outside of its own group is, or will be, released."""
        mine = self._definitions.get(candidate.component)
        for parent, version in candidate.manifest.parents.items():
            theirs = self._definitions.get(parent)
            if mine is not None and theirs is not None and mine.group == theirs.group:
                continue
            beside = self._chosen.get(parent) or self._released.get(parent)
            if beside is None or beside.id != version:
                return False
        return True

    def _culprits(self, members: Sequence[str], late: Sequence[str]) -> dict[str, str]:
        """The members for which those that are ``late`` wait, and why each of them stays."""
        is_new = self._released.keys().isdisjoint(members)
        found: dict[str, str] = {}
        for name in members:
            if name in self._chosen:
                continue
            released = self._released.get(name)
            if name in self._holds:
                why = f"is held ({self._holds[name]})"
            elif name not in self._released:
                why = "was never built"
            elif released is None:
                why = "is corrupt"
            elif not self._is_declared(released):
                why = "is declared differently than it was built"
            else:
                why = f"covers {_covered(released)}"
            disagrees = (
                is_new
                if name not in self._released
                else released is None
                or not self._is_declared(released)
                or any(not _at_one_state(self._chosen[each], released) for each in late)
            )
            if disagrees:
                found[name] = why
        # Without one they were built at different moments, and the next pass builds them together.
        return found or {name: f"covers {_covered(self._chosen[name])}" for name in late}


def groups_in_order(
    groups: Mapping[str, Sequence[str]], definitions: Definitions
) -> dict[str, tuple[str, ...]]:
    """The same groups, each with its members parents first."""
    order = {name: number for number, name in enumerate(in_order(definitions))}
    return {
        group: tuple(sorted(members, key=lambda name: (order.get(name, -1), name)))
        for group, members in groups.items()
    }


def _at_one_state(one: Candidate | None, other: Candidate | None) -> bool:
    if one is None or other is None:
        return True
    return agree((one.component, one.id, one.manifest), (other.component, other.id, other.manifest))


def _covered(candidate: Candidate) -> str:
    return ", ".join(
        f"{collection} up to {generation}"
        for collection, generation in sorted(candidate.manifest.covers.items())
    )
