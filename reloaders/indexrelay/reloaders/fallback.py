"""Which earlier versions may be served instead of those that cannot be.

Earlier releases are gone through, newest first, down to the first set of versions that can be
opened. A group falls back as a group: versions of different states are never served together. When
a reader starts, a group was whole without a member that joined it later: the others fall back, and
that member is not served. What a person rolled back from is left out: after a rollback only
versions older than the one that it went back to are fallbacks.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from indexrelay.schemas.versions import Release, disagreements
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

MAX_RELEASES = 50
"""How many earlier releases are looked at: each is a file to read."""


def fallback_versions(
    store: ArtifactStore,
    wanted: Mapping[str, str],
    release: Release,
    *,
    served: Collection[str],
) -> Iterator[dict[str, str]]:
    """Sets of versions that may be served instead of ``wanted``, newest first.

    A set is for all components where some of them are served; otherwise it may be for those that
    an earlier release had in one group.

    Args:
        store: where earlier releases and manifests are read.
        wanted: by component, the version that cannot be served.
        release: the one that wants them.
        served: the components that are served now.
    """
    for versions in earlier_versions(wanted, _releases_from(store, release)):
        if versions.keys() != wanted.keys() and not wanted.keys().isdisjoint(served):
            continue
        if _agree(store, versions):
            yield versions


def earlier_versions(
    wanted: Mapping[str, str], releases: Sequence[Release]
) -> Iterator[dict[str, str]]:
    """Versions of wanted components that one release named together, each set once.

    Of each release first all that it names, and then those of them that were one group in it.

    Args:
        wanted: by component, the version that cannot be served.
        releases: the one that wants it and those before it, newest first.
    """
    sets = [{name: release.components.get(name) for name in wanted} for release in releases]
    seen: list[Mapping[str, str | None]] = [wanted, {}]
    number = 0
    while number < len(releases):
        found = sets[number]
        for versions in _together(found, releases[number].groups):
            if versions not in seen:
                seen.append(versions)
                yield versions
        if not releases[number].holds.keys().isdisjoint(wanted):
            number = max(index for index, each in enumerate(sets) if each == found)
        number += 1


def _together(
    found: Mapping[str, str | None], groups: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """What a release names of some components, and what of that was one group in it."""
    named = {name: version for name, version in found.items() if version is not None}
    yield named
    for group in sorted({groups[name] for name in named if name in groups}):
        yield {name: each for name, each in named.items() if groups.get(name) == group}


def _releases_from(store: ArtifactStore, release: Release) -> list[Release]:
    """The release and those before it, newest first, as far as they are intact."""
    found = [release]
    earlier: list[int] = []
    with contextlib.suppress(ArtifactError):
        earlier += (each for each in store.release_numbers() if each < release.number)
    for number in earlier[:MAX_RELEASES]:
        with contextlib.suppress(ArtifactError):
            # As they were for everyone: what only canaries served may have been taken back since.
            found.append(store.release(number).for_reader(""))
    return found


def _agree(store: ArtifactStore, versions: Mapping[str, str]) -> bool:
    """Whether these versions are of one state; a single version always is."""
    if len(versions) == 1:
        return True
    try:
        manifests = {name: store.version(name, each) for name, each in versions.items()}
    except ArtifactError:
        return False  # nor can they be opened
    return not disagreements(manifests, versions)
