"""Which versions of one component the kept releases named, the newest first.

The releases are the history: a version that was built and refused by its gates never got into one,
and what a rollback went back to stands there twice. A release that cannot be read is passed over.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, ReleaseUnreadableError

MOST_VERSIONS = 10
"""What fits on a screen beside the rest; releases are kept for longer."""


class HistoricalVersion(BaseModel):
    """One version, and the releases in a row that named it."""

    model_config = ConfigDict(frozen=True)

    version: str
    first_release: int
    last_release: int
    reason: str
    """Why the first of them was made."""
    manifest: VersionManifest | None
    """``None``: it is damaged, or swept."""

    def as_json(self) -> dict[str, Any]:
        """The facts that a person compares; `manifest` has all of them."""
        facts = {
            "version": self.version,
            "first_release": self.first_release,
            "last_release": self.last_release,
            "reason": self.reason,
        }
        if self.manifest is None:
            return facts
        return (
            facts
            | self.manifest.model_dump(
                mode="json",
                include={"created_at", "covers", "entries", "build_seconds", "verify_seconds"},
            )
            | {"bytes": self.manifest.size, "index": self.manifest.details.get("index")}
        )


def history(store: ArtifactStore, component: str) -> list[HistoricalVersion]:
    """At most `MOST_VERSIONS`, from the newest release backwards.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    runs: list[list[tuple[Release, str]]] = []
    for release in _releases(store):
        version = release.components.get(component)
        if version is None:
            continue
        if runs and runs[-1][0][1] == version:
            runs[-1].append((release, version))
        elif len(runs) == MOST_VERSIONS:
            break
        else:
            runs.append([(release, version)])
    return [_version(store, component, run) for run in runs]


def _version(
    store: ArtifactStore, component: str, run: list[tuple[Release, str]]
) -> HistoricalVersion:
    (last, version), (first, _) = run[0], run[-1]
    try:
        manifest = store.version(component, version)
    except ArtifactError:
        manifest = None
    return HistoricalVersion(
        version=version,
        first_release=first.number,
        last_release=last.number,
        reason=first.reason,
        manifest=manifest,
    )


def _releases(store: ArtifactStore) -> Iterator[Release]:
    """Those that are kept, read as they are asked for."""
    for number in store.release_numbers():
        with contextlib.suppress(ReleaseUnreadableError):
            yield store.release(number)
