"""What the newest release serves of one component."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexrelay.console.build_failures import failing
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError
from indexrelay.schemas.mistakes import suggestion
from indexrelay.schemas.versions import Release, VersionManifest


@dataclass(frozen=True, kw_only=True)
class ReleasedVersion:
    """The version of one component that is released now."""

    id: str
    """As the release names it: a manifest of another minor version read here has fields more, or
    fewer, and these make no id."""
    manifest: VersionManifest


def released_version(installation: Installation, component: str) -> ReleasedVersion:
    """The version that is released now.

    Raises:
        UnknownNameError: there is no such component.
        CommandError: nothing was released yet, or not of this component; says why its build failed.
        ArtifactError: it cannot be read.
    """
    version_id = require_released(installation, [component])[component]
    manifest = installation.store.version(component, version_id)
    return ReleasedVersion(id=version_id, manifest=manifest)


def require_released(installation: Installation, components: Sequence[str]) -> dict[str, str]:
    """What is served of all components, by name; refuses one of which nothing is released.

    Raises:
        CommandError: nothing is released of one; the message says why, and what to do.
        UnknownNameError: there is no such component.
    """
    release = installation.store.newest_release()
    for component in components:
        if release is None or component not in release.components:
            raise _why_not(installation, component, release)
    return dict(release.components) if release is not None else {}


def _why_not(
    installation: Installation, component: str, release: Release | None
) -> IndexRelayError:
    """Why nothing is released of a component, as far as the catalog can tell."""
    if component not in installation.settings.components:
        released = () if release is None else release.components
        near = suggestion(component, {*released, *installation.settings.components})
        return UnknownNameError(f"there is no component {component!r}{near}")
    fails = failing(installation, component)
    if fails is not None:
        return CommandError(
            f"no version of {component!r} is released: {fails.sentence}; {fails.next}"
        )
    if release is None:
        return CommandError(
            "nothing was released yet: commit a batch while a rebuilder runs, "
            f"or build what is due now: {commands.rebuild(here=True)}"
        )
    return CommandError(
        f"release {release.number} has no {component!r} yet; build it: "
        f"{commands.rebuild(component, here=True)}"
    )
