"""Whether a release ever named a version, as far as the releases that are kept can say.

One that was swept had named what was built before it, and it came before all that are kept. So a
version that is older than all of them may have been in one, and nobody knows any more; of one that
was built since, the kept releases tell everything.
"""

from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts.errors import ReleaseUnreadableError
from indexrelay.storage.artifacts.releases import Releases


def was_named(releases: Releases, version_id: str, manifest: VersionManifest) -> bool:
    """Whether a release named the version, or may have.

    Raises:
        StoreAccessError: the releases cannot be read.
    """
    numbers = releases.numbers()
    forgotten = bool(numbers) and numbers[-1] > 1
    for number in numbers:
        try:
            release = releases.read(number)
        except ReleaseUnreadableError as error:
            if error.missing:  # swept since it was listed
                continue
            return True
        if release.components.get(manifest.component) == version_id:
            return True
        forgotten = forgotten and manifest.created_at <= release.created_at
    return forgotten
