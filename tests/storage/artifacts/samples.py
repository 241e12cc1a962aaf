"""Small artifacts for tests: a clock that is moved by hand, versions and releases in one line."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class MovedClock:
    """The machine's wall clock, moved ahead by hand: file times are the kernel's own."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds


def make_file(folder: Path, content: bytes) -> Path:
    file = folder / secrets.token_hex(8)
    file.write_bytes(content)
    return file


def make_version(
    store: ArtifactStore,
    component: str,
    *contents: bytes,
    generation: int = 1,
    kind: str = "bytes",
) -> str:
    """Put a version of ``component`` whose files hold ``contents``; returns its id."""
    blobs = [store.put_blob(make_file(store.staging, content)) for content in contents]
    return store.put_version(
        VersionManifest(
            component=component,
            kind=kind,
            definition="d" * 64,
            covers={"tracks": generation},
            epochs={"tracks": "e"},
            files={f"part{i}": blob for i, blob in enumerate(blobs)},
            entries=len(contents),
            created_at=MOMENT,
        )
    )


def make_release(store: ArtifactStore, number: int = 0, /, **components: str) -> Release:
    """Commit a release that names these versions; 0 stands for the next free number."""
    number = number or store.next_number()
    newest = store.newest_release()
    return store.commit_release(
        Release(
            number=number,
            components=components,
            created_at=MOMENT,
            reason="a test",
            previous=newest.number if newest else 0,
        )
    )
