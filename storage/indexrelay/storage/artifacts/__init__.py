"""The artifacts: blobs, versions and releases, as immutable files, there whole or not at all.

Nothing in here knows what a file means, or who builds and who reads.
"""

from indexrelay.storage.artifacts.blobs import StagedBlob
from indexrelay.storage.artifacts.gc import Collected
from indexrelay.storage.artifacts.releases import OpenedVersion
from indexrelay.storage.artifacts.signing import SigningKey, SigningKeyError, Trust
from indexrelay.storage.artifacts.store import ArtifactStore
from indexrelay.storage.errors import (
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

__all__ = [
    "ArtifactError",
    "ArtifactStore",
    "BlobCorruptError",
    "BlobMissingError",
    "Collected",
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
    "Trust",
    "UnsafeNameError",
    "VersionUnreadableError",
]
