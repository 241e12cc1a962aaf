"""What stands in for versions that cannot be served: those that were served before.

Earlier releases are gone through, newest first, and the first whole set of versions is taken, so
that a group stands in as a group: versions that an earlier release named together before they were
one, or that are of two states for another reason, stand in for nothing. For a reader that starts, a
group was whole without a member that joined it later: the others stand in, and nothing serves that
one. What a person rolled back from is left out: after a rollback only what is older than the
version that it went back to may stand in.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from indexrelay.reloaders.opener import Opener
from indexrelay.reloaders.plan import Part
from indexrelay.reloaders.retry import in_words
from indexrelay.reloaders.snapshot import ServedComponent
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release, disagreements
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

log = get_logger(__name__)

MOST_RELEASES = 50
"""How far back one goes at most: each release is a file to read."""


class StandIns:
    """Finds and loads them."""

    def __init__(self, opener: Opener, store: ArtifactStore) -> None:
        self._opener = opener
        self._store = store

    def find(
        self,
        part: Part,
        release: Release,
        served: Mapping[str, ServedComponent],
        *,
        is_wrong: Callable[[ServedComponent], bool],
    ) -> dict[str, ServedComponent] | None:
        """Something to serve for the wanted members of ``part``; ``None``: no version is whole.

        It is for all of them where some are served; otherwise for those that were there together.

        Args:
            release: the one that wants the part.
            served: what is served now, to be served on where it is what one comes to.
            is_wrong: what of it must not be.
        """
        wanted = {name for name, version in part.wanted.items() if version is not None}
        for versions in earlier_versions(part, self._releases_from(release)):
            if versions.keys() != wanted and not wanted.isdisjoint(served):
                continue
            if not self._agree(versions):
                continue
            found = self._all_of(
                versions,
                {
                    name: each
                    for name, each in served.items()
                    if each.version == versions.get(name) and not is_wrong(each)
                },
            )
            if found is not None:
                log.warning(
                    "components.fell_back",
                    versions=versions,
                    wanted=dict(part.wanted),
                    advice="they follow the release again once that can be served",
                )
                return found
        return None

    def _agree(self, versions: Mapping[str, str]) -> bool:
        """Whether these versions are at one state; those of one component always are."""
        if len(versions) == 1:
            return True
        try:
            manifests = {name: self._store.version(name, each) for name, each in versions.items()}
        except ArtifactError:
            return False  # nor can they be opened
        return not disagreements(manifests, versions)

    def _releases_from(self, release: Release) -> list[Release]:
        """The release and those before it, newest first, as far as they are intact."""
        found = [release]
        earlier: list[int] = []
        with contextlib.suppress(ArtifactError):
            earlier += (each for each in self._store.release_numbers() if each < release.number)
        for number in earlier[:MOST_RELEASES]:
            with contextlib.suppress(ArtifactError):
                found.append(self._store.release(number))
        return found

    def _all_of(
        self, versions: Mapping[str, str], served: Mapping[str, ServedComponent]
    ) -> dict[str, ServedComponent] | None:
        """These versions, loaded where they are not served; ``None`` when one cannot be."""
        found: dict[str, ServedComponent] = {}
        for name, version in versions.items():
            try:
                found[name] = served.get(name) or self._opener.open(name, version, serving=None)
            except Exception as error:  # noqa: BLE001 - there may be one that is older still
                log.info(
                    "component.no_stand_in", component=name, version=version, error=in_words(error)
                )
                return None
        return found


def earlier_versions(part: Part, releases: Sequence[Release]) -> Iterator[dict[str, str]]:
    """Versions of wanted members of a part that one release named together, each set once.

    Of each release first all that it names, and then those of them that were one group in it.

    Args:
        part: what cannot be served as it is wanted.
        releases: the one that wants it and those before it, newest first.
    """
    names = [name for name, version in part.wanted.items() if version is not None]
    sets = [{name: release.components.get(name) for name in names} for release in releases]
    seen: list[Mapping[str, str | None]] = [{name: part.wanted[name] for name in names}, {}]
    number = 0
    while number < len(releases):
        found = sets[number]
        for versions in _together(found, releases[number].groups):
            if versions not in seen:
                seen.append(versions)
                yield versions
        if not releases[number].holds.keys().isdisjoint(names):
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
