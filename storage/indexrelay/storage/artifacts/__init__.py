"""The artifacts: blobs, versions and releases, as immutable files, there whole or not at all.

Nothing in here knows what a file means, or who builds and who reads.
"""

from indexrelay.storage.artifacts.blobs import StagedBlob
from indexrelay.storage.artifacts.errors import (
    ArtifactError,
    BlobCorruptError,
    BlobMissingError,
    ComponentNotReleasedError,
    GroupTornError,
    NotAFileError,
    NothingReleasedError,
    ReleaseExistsError,
    ReleaseNotWholeError,
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    SigningRefusedError,
    StoreAccessError,
    StoreBusyError,
    UnsafeNameError,
    VersionUnreadableError,
)
from indexrelay.storage.artifacts.signing import SigningKey, SigningKeyError, Trust
from indexrelay.storage.artifacts.store import ArtifactStore
from indexrelay.storage.artifacts.sweeping import Swept
from indexrelay.storage.artifacts.versions import OpenedVersion

__all__ = [
    "ArtifactError",
    "ArtifactStore",
    "BlobCorruptError",
    "BlobMissingError",
    "ComponentNotReleasedError",
    "GroupTornError",
    "NotAFileError",
    "NothingReleasedError",
    "OpenedVersion",
    "ReleaseExistsError",
    "ReleaseNotWholeError",
    "ReleaseUnreadableError",
    "ReleaseUntrustedError",
    "SigningKey",
    "SigningKeyError",
    "SigningRefusedError",
    "StagedBlob",
    "StoreAccessError",
    "StoreBusyError",
    "Swept",
    "Trust",
    "UnsafeNameError",
    "VersionUnreadableError",
]
