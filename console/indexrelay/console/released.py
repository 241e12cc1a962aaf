"""What the newest release serves of one component."""

from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.schemas.mistakes import suggestion
from indexrelay.schemas.versions import VersionManifest


def released_manifest(installation: Installation, component: str) -> VersionManifest:
    """The manifest of the version that is released now.

    Raises:
        CommandError: nothing was released yet, or not of this component.
        ArtifactError: it cannot be read.
    """
    release = installation.store.newest_release()
    if release is None:
        raise CommandError(
            "nothing was released yet: commit a batch while a rebuilder runs, "
            "or build what is due now with indexrelay rebuild --here"
        )
    if component not in release.components:
        near = suggestion(component, release.components)
        raise CommandError(f"release {release.number} has no component {component!r}{near}")
    return installation.store.version(component, release.components[component])
