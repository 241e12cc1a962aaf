"""Proves the invariants from a history, offline: no clock, no server, no files.

Each check finds one kind of violation, and its place. That a run ended well proves nothing: the
checks read what happened on the way.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

from faults.history import Batch, History, Released, Sample, Told, Version, content_digest


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, and where."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(history: History) -> list[Violation]:
    """Everything that is wrong with it."""
    checks = {
        "I1": _lost(history),
        "I2": _rewritten(history),
        "I3": _backwards(history),
        "I4": _unreleased_bytes(history),
        "I5": _left_over(history),
        "I6": _torn_or_failed(history),
        "I7": _split(history),
        "I8": _wrongly_well(history),
        "I9": _missed_writes(history),
        "I10": _older_answers(history),
        "I11": _unaccounted(history),
    }
    return [Violation(name, what) for name, found in checks.items() for what in found]


def contents(batches: tuple[Batch, ...]) -> dict[int, str]:
    """For each generation, the digest of the entries that the batches up to it add up to."""
    ids: set[str] = set()
    found = {0: content_digest(ids)}
    for batch in sorted(batches, key=lambda each: each.generation):
        ids = (ids | set(batch.upserts)) - set(batch.deletes)
        found[batch.generation] = content_digest(ids)
    return found


def _lost(history: History) -> Iterator[str]:
    """I1: every change is in a release, or named in a failure or the dead letters; once."""
    numbers = sorted(batch.generation for batch in history.batches)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the generations are not 1, 2, 3…: {numbers}"
    names = [batch.batch_id for batch in history.batches]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"batch {name} was committed more than once"
    expected = contents(history.batches)
    released = _released_versions(history)
    newest = max(numbers, default=0)
    for component in history.components:
        versions = [each for each in released.values() if each.component == component]
        for version in versions:
            if version.content != expected.get(version.covers):
                yield (
                    f"{component} {version.id[:8]} claims to cover {version.covers}, "
                    "and holds other entries"
                )
        covered = max((version.covers for version in versions), default=0)
        excused = max(history.failures.get(component, 0), 0)
        for generation in range(covered + 1, newest + 1):
            if generation > excused and generation not in history.dead:
                yield f"generation {generation} is in no release of {component}"


def _rewritten(history: History) -> Iterator[str]:
    """I2: one file per number, never changed, and announced by its own digest only."""
    numbers = [release.number for release in history.releases]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the releases are not 1, 2, 3…: {numbers}"
    digests = {release.number: release.digest for release in history.releases}
    for release in history.releases:
        if len(release.seen) > 1:
            yield f"release {release.number} was changed after it was committed"
    for announced in history.announced:
        if digests.get(announced.number) != announced.digest:
            yield f"release {announced.number} was announced with the digest of another"
    for reported in history.reports:
        if reported.release not in digests:
            yield f"{reported.reader} reported release {reported.release}, which there is not"


def _backwards(history: History) -> Iterator[str]:
    """I3: no reader's release falls, no component's generation but by a rollback."""
    versions = {version.id: version for version in history.versions}
    for before, after in pairwise(history.releases):
        for name, version_id in after.components.items():
            old, new = versions.get(before.components.get(name, "")), versions.get(version_id)
            if old and new and new.covers < old.covers and name not in after.holds:
                yield f"release {after.number} takes {name} from {old.covers} to {new.covers}"
    for reader, processes in _by_process(history).items():
        reached = 0
        for threads in processes.values():
            serving = [each for each in threads if each.release]  # before the first load: nothing
            if serving and min(each.release for each in serving) < reached:
                yield f"{reader} started again at an older release than {reached}"
            reached = max([reached, *(each.release for each in serving)])
        for threads in processes.values():
            yield from _backwards_in_a_thread(
                reader, threads, _rolled_back(history.releases), history.corrupt
            )


def _backwards_in_a_thread(
    reader: str,
    samples: list[Sample],
    rolled_back: Mapping[str, set[int]],
    corrupt: frozenset[str],
) -> Iterator[str]:
    threads: dict[str, list[Sample]] = {}
    for sample in samples:
        threads.setdefault(sample.thread, []).append(sample)
    for before, after in (pair for each in threads.values() for pair in pairwise(each)):
        if after.release < before.release:
            yield f"{reader} went from release {before.release} to {after.release}"
        for name, part in after.parts.items():
            old = before.parts.get(name)
            between = range(before.release + 1, after.release + 1)
            if (
                old
                and part.covers < old.covers
                and old.version not in corrupt  # the newest whole version may be an older one
                and rolled_back.get(name, set()).isdisjoint(between)
            ):
                yield f"{reader} went from generation {old.covers} of {name} to {part.covers}"


def _unreleased_bytes(history: History) -> Iterator[str]:
    """I4: what a reader loaded is what a released manifest names."""
    released = _released_versions(history)
    for sample in history.samples:
        for name, part in sample.parts.items():
            version = released.get(part.version)
            if version is None or (version.component, version.blob) != (name, part.blob):
                yield f"{sample.reader} serves bytes of {name} that no release names: {part.blob}"


def _left_over(history: History) -> Iterator[str]:
    """I5: nothing is left to do."""
    for what, count in vars(history.left).items():
        if count:
            yield f"{count} left in {what}"


def _torn_or_failed(history: History) -> Iterator[str]:
    """I6: every query is answered, from one release, with what its version holds."""
    for failed in history.query_failures:
        yield f"a query failed in {failed.reader}: {failed.error}"
    releases = {release.number: release for release in history.releases}
    versions = {version.id: version for version in history.versions}
    for sample in history.samples:
        if sample.release != sample.release_after:
            yield f"{sample.reader} saw {sample.release} and {sample.release_after} in one snapshot"
        for name, part in sample.parts.items():
            version = versions.get(part.version)
            if version is not None and part.content != version.content:
                yield f"{sample.reader} answered from other entries than {name}'s version holds"
        newest = releases.get(sample.release)
        if sample.parts and newest is None:
            yield f"{sample.reader} serves release {sample.release}, which there is not"
        elif newest is not None and not _agree(sample, newest, releases):
            yield f"{sample.reader} serves release {sample.release} half of another"


def _wrongly_well(history: History) -> Iterator[str]:
    """I8: when the judge finds that all is well, every process serves the newest of everything."""
    for look in history.said_well:
        lacking = set(history.components) - look.components.keys()
        if lacking:
            yield f"well at release {look.newest}, which lacks {', '.join(sorted(lacking))}"
        if not look.readers:
            yield f"well at release {look.newest}, and no reader was there"
        for reader, (release, served) in look.readers.items():
            wrong = [
                name
                for name in history.components
                if name in served and served[name] != look.components.get(name)
            ]
            if release != look.newest or wrong or not served:
                yield (
                    f"well at release {look.newest}, and {reader} served {release}"
                    + (f", without the newest of {', '.join(wrong)}" if wrong else "")
                )


def _missed_writes(history: History) -> Iterator[str]:
    """I9: an answer has what its client knows of, a strong one all commits before it was asked for;
    and it holds what the batches up to its generation add up to."""
    expected = contents(history.batches)
    known: dict[str, int] = {}
    for event in history.clients:
        if isinstance(event, Told):
            known[event.client] = max(event.generation, known.get(event.client, 0))
            continue
        least = {"eventual": 0, "session": known.get(event.client, 0), "strong": event.committed}
        who = f"{event.client} asked {event.reader} ({event.level})"
        if event.generation < least[event.level]:
            yield f"{who} and got {event.generation}, before {least[event.level]}"
        if event.content != expected.get(event.generation):
            yield f"{who} and got other entries than those of {event.generation}"


def _older_answers(history: History) -> Iterator[str]:
    """I10: no answer that goes by a session is older than one before it, whoever gave that."""
    seen: dict[str, int] = {}
    for event in history.clients:
        if isinstance(event, Told):
            continue
        before = seen.get(event.client, 0)
        if event.generation < before and event.level != "eventual":
            yield f"{event.client} got {event.generation} of {event.reader} after {before}"
        seen[event.client] = max(before, event.generation)


def _unaccounted(history: History) -> Iterator[str]:
    """I11: what is released follows from what is trusted, whatever is added to the streams.

    A version takes the place of another one since it covers something else, was declared or made
    from something else, since the other one was corrupt, or since a person decided so or asked for
    it in the catalog; and it is smaller than it may be only where a person forced that.
    """
    versions = {version.id: version for version in history.versions}
    asked = {name for request in history.requests for name in request.components}
    forced = [request.components for request in history.requests if request.force]
    for before, after in pairwise(history.releases):
        for name, version_id in after.components.items():
            old, new = versions.get(before.components.get(name, "")), versions.get(version_id)
            decided = name in before.holds or name in after.holds
            if old is None or new is None or old == new or decided:
                continue
            same = (old.covers, old.definition, old.parents) == (
                new.covers,
                new.definition,
                new.parents,
            )
            if same and name not in asked and old.id not in history.corrupt:
                yield f"release {after.number} has another {name}, for which nobody asked"
            least = old.entries * (1 - history.max_shrink.get(name, 1.0))
            if new.entries < least and not any(not names or name in names for names in forced):
                yield (
                    f"release {after.number} takes {name} from {old.entries} entries to "
                    f"{new.entries}, and no person forced that"
                )


def _agree(sample: Sample, newest: Released, releases: Mapping[int, Released]) -> bool:
    """Whether the members of each group come from one release, this one or an earlier one."""
    groups: dict[str, dict[str, str]] = {}
    for name, part in sample.parts.items():
        group = newest.groups.get(name, f"{name} alone")
        groups.setdefault(group, {})[name] = part.version
    earlier = [releases[number] for number in range(1, sample.release + 1) if number in releases]
    return all(
        any(members.items() <= release.components.items() for release in reversed(earlier))
        for members in groups.values()
    )


def _split(history: History) -> Iterator[str]:
    """I7: no release has, and no reader serves, two members of a group at different states."""
    versions = {version.id: version for version in history.versions}
    releases = {release.number: release for release in history.releases}
    for release in history.releases:
        for one, other in _mates(release.components, release):
            if not _at_one_state(release.components, one, other, versions):
                yield f"release {release.number} has {one} and {other} at different states"
    for sample in history.samples:
        newest = releases.get(sample.release)
        if newest is None:
            continue
        served = {name: part.version for name, part in sample.parts.items()}
        for one, other in _mates(served, newest):
            if _at_one_state(served, one, other, versions):
                continue
            # Who joins a group stays beside it where the version that joins cannot be loaded.
            pair = {one: served[one], other: served[other]}
            if not any(
                release.number < newest.number
                and pair.items() <= release.components.items()
                and (one, other) not in _mates(pair, release)
                for release in history.releases
            ):
                yield f"{sample.reader} serves {one} and {other} of different states"


def _mates(components: Iterable[str], release: Released) -> Iterator[tuple[str, str]]:
    """The pairs of these components that a release has in one group."""
    for one, other in combinations(sorted(components), 2):
        group = release.groups.get(one)
        if group is not None and group == release.groups.get(other):
            yield one, other


def _at_one_state(
    ids: Mapping[str, str], one: str, other: str, versions: Mapping[str, Version]
) -> bool:
    """Whether two versions cover the same, and name each other where one is made from the other."""
    left, right = versions.get(ids[one]), versions.get(ids[other])
    if left is None or right is None:
        return True  # I4 reports a version that is unknown
    named = [left.parents.get(other, right.id), right.parents.get(one, left.id)]
    common = left.parents.keys() & right.parents.keys()
    return (
        left.covers == right.covers
        and named == [right.id, left.id]
        and all(left.parents[parent] == right.parents[parent] for parent in common)
    )


def _released_versions(history: History) -> dict[str, Version]:
    named = {id_ for release in history.releases for id_ in release.components.values()}
    return {version.id: version for version in history.versions if version.id in named}


def _rolled_back(releases: tuple[Released, ...]) -> dict[str, set[int]]:
    """By component: the releases that brought a hold with another version."""
    found: dict[str, set[int]] = {}
    for before, after in pairwise(releases):
        for name in after.holds:
            if after.components.get(name) != before.components.get(name):
                found.setdefault(name, set()).add(after.number)
    return found


def _by_process(history: History) -> dict[str, dict[int, list[Sample]]]:
    found: dict[str, dict[int, list[Sample]]] = {}
    for sample in history.samples:
        found.setdefault(sample.reader, {}).setdefault(sample.process, []).append(sample)
    return found
