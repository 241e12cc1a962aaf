"""Whether everything that the newest release needs is whole: read and hashed without the store."""

import hashlib
import json
from pathlib import Path

from indexrelay.storage.artifacts import ArtifactStore


def release_files(store: ArtifactStore, number: int) -> tuple[Path, Path]:
    """The two files of a release."""
    name = f"{number:08d}.json"
    return store.root / "releases" / name, store.root / "copies" / name


def manifest_file(store: ArtifactStore, component: str, version: str) -> Path:
    return store.root / "versions" / component / f"{version}.json"


def blob_files(store: ArtifactStore, component: str, version: str) -> dict[str, Path]:
    """The blobs of a version by their labels; its manifest must be there."""
    manifest = json.loads(manifest_file(store, component, version).read_bytes())
    return {
        label: store.root / "blobs" / "sha256" / ref["digest"][:2] / ref["digest"]
        for label, ref in sorted(manifest["files"].items())
    }


def is_whole(store: ArtifactStore) -> bool:
    """Whether each file of the newest release is what it should be."""
    newest = store.newest_release()
    if newest is None or store.next_number() != newest.number + 1:
        return False
    first, second = release_files(store, newest.number)
    try:
        return first.read_bytes() == second.read_bytes() and all(
            _is_version_whole(store, component, version)
            for component, version in newest.components.items()
        )
    except OSError:
        return False


def _is_version_whole(store: ArtifactStore, component: str, version: str) -> bool:
    return _digest(manifest_file(store, component, version)) == version and all(
        _digest(path) == path.name for path in blob_files(store, component, version).values()
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
