"""The disk of another host: a copy of the artifacts, which can go bad.

Everything in the store is immutable and named by its content, so copying what is missing is enough.
Releases come last, as they name the rest.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from indexrelay.storage import ArtifactStore


def copy_artifacts(store: ArtifactStore, to: Path, *, corrupting: Iterable[str] = ()) -> None:
    """Copy what ``to`` does not have yet.

    Args:
        store: where to copy from.
        to: the root of the copy.
        corrupting: components of the newest release whose largest file arrives with a changed byte.
    """
    for folder in ("blobs", "versions"):
        _copy_missing(store.root / folder, to / folder)
    for component in corrupting:
        release = store.release(store.next_number() - 1)
        version = store.version(component, release.components[component])
        # The largest file is the index; a table of ids is often shared with other components.
        digest = max(version.files.values(), key=lambda blob: blob.size).digest
        _corrupt(to / "blobs" / "sha256" / digest[:2] / digest)
    _copy_missing(store.root / "releases", to / "releases")


def repair(store: ArtifactStore, copy: Path) -> int:
    """Copy again what differs from the original; returns how many files that were."""
    repaired = 0
    for original in _files(store.root / "blobs"):
        here = copy / original.relative_to(store.root)
        if here.exists() and here.read_bytes() != original.read_bytes():
            here.unlink()
            shutil.copy2(original, here)
            repaired += 1
    return repaired


def _copy_missing(source: Path, target: Path) -> None:
    for file in _files(source):
        here = target / file.relative_to(source)
        if not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            # A reader may look at any time: it sees a whole file or none.
            half = here.with_name(here.name + ".half")
            shutil.copy2(file, half)
            half.rename(here)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _corrupt(blob: Path) -> None:
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.unlink()
    blob.write_bytes(content)
