"""Whether a build may continue the version before it, and with which changes.

A build that cannot, or for which a full one is the better bargain, says why; the reason stands in
the version's details, so that nobody has to guess why a small batch took long.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.storage.entries import Changes

FIRST: Final = "there is no version that it may continue"
ANEW: Final = "it was asked for, or what continued the last version failed its gates"


@dataclass(frozen=True, slots=True)
class InFull:
    """Why everything is built anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class Continued:
    """What a build continues."""

    previous: PreviousVersion
    changes: dict[str, Iterator[Changes]]
    """For each collection: what changed since the previous version."""


def changes_since(job: Job) -> Continued | InFull:
    """What changed in each of the job's collections since the previous version."""
    if job.previous is None:
        return InFull(FIRST)
    if job.anew:
        return InFull(ANEW)
    changes = {}
    for name, source in job.collections.items():
        covered = job.previous.manifest.covers.get(name)
        found = None if covered is None else source.changes(covered)
        if found is None:
            return InFull(f"{name} cannot tell what changed since generation {covered}")
        changes[name] = found
    return Continued(job.previous, changes)


def build_either_way(
    job: Job,
    extend: Callable[[Continued], Built | InFull],
    build_in_full: Callable[[InFull], Built],
) -> Built:
    """Continue the previous version where that can be done, else build in full.

    A previous version whose files are damaged is no reason to fail: the source is still there.
    """
    try:
        continued = changes_since(job)
        made = continued if isinstance(continued, InFull) else extend(continued)
    except DamagedFileError as error:
        made = InFull(f"of the previous version, {error}")
    return build_in_full(made) if isinstance(made, InFull) else made


def told(mode: InFull | None) -> dict[str, Any]:
    """For the version's details: how it was built and why; ``None``: it continues the last one."""
    if mode is None:
        return {"mode": "incremental", "reason": "few entries changed since the last version"}
    return {"mode": "full", "reason": mode.reason}


def inherit_all(previous: PreviousVersion) -> Built:
    """The previous version once more: nothing that concerns the kind changed."""
    manifest = previous.manifest
    return Built(
        files=dict(manifest.files),
        entries=manifest.entries,
        counts=manifest.counts,
        extends=True,
        details={
            **manifest.details,
            "build": {"mode": "incremental", "reason": "nothing changed that it holds"},
        },
    )
