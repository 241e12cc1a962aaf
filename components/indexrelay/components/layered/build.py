"""Reads what a component is made from, and decides between an incremental build and a full one.

A build that cannot continue the previous version, or for which a full one is cheaper, says why. The
reason stands in the version's details, so that nobody has to guess why a small batch took long.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import DamagedFileError, UnusableInputError
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries, SourceSnapshot

_CHUNK_BYTES = 8 * 1024 * 1024
"""Vectors read at a time: 10,000 rows up to a dimension of 209."""
_NAMED = 5
"""Entries that a message names; more would only bury what is wrong."""


def numbered_chunks(snapshot: SourceSnapshot) -> Iterator[tuple[int, Entries]]:
    """Every chunk, with the row number of its first entry.

    Raises:
        UnusableInputError: the source gave another number of entries than it says it has; raised
            before more than that many are handed out.
    """
    first = 0
    for chunk in snapshot.chunks(_rows_at_a_time(snapshot.dimension)):
        if first + len(chunk) > snapshot.count:
            raise UnusableInputError(
                f"{snapshot.collection} says it has {snapshot.count} entries, but gives more"
            )
        yield first, chunk
        first += len(chunk)
    if first < snapshot.count:
        raise UnusableInputError(
            f"{snapshot.collection} says it has {snapshot.count} entries, but gives only {first}"
        )


def _rows_at_a_time(dimension: int) -> int:
    """So that long vectors do not make chunks large: each is held about three times on its way."""
    return max(min(CHUNK_ROWS, _CHUNK_BYTES // (4 * dimension)), 1)


def changes_of(snapshot: SourceSnapshot, after: int) -> Iterator[Changes]:
    """What changed since ``after``, which a build has seen a moment ago in the same snapshot.

    Raises:
        UnusableInputError: it is unknown. A gate that would take that for "nothing" would pass.
    """
    changes = snapshot.changes(after)
    if changes is None:
        raise UnusableInputError(
            f"{snapshot.collection} cannot tell what changed since generation {after}"
        )
    return changes


def refuse_infinite(chunk: Entries) -> None:
    """Raise `UnusableInputError` where a vector holds a NaN or an infinity, naming the entries."""
    finite = np.isfinite(chunk.vectors).all(axis=1)
    refuse_entries(chunk, np.logical_not(finite), "holds a NaN or an infinity")


def refuse_entries(chunk: Entries, refused: NDArray[np.bool_], reason: str) -> None:
    """Raise `UnusableInputError` where ``refused`` (bool, one for each entry) is true anywhere."""
    rows = np.flatnonzero(refused).tolist()
    if rows:
        named = ", ".join(repr(chunk.ids[row]) for row in rows[:_NAMED])
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        raise UnusableInputError(f"the vector of {named}{more} {reason}")


_FIRST: Final = "there is no version that it may continue"
_FROM_SCRATCH: Final = "it was asked for, or what continued the last version failed its gates"


@dataclass(frozen=True, slots=True)
class Full:
    """Why everything is built anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class Increment:
    """What a build continues."""

    previous: PreviousVersion
    changes: dict[str, Iterator[Changes]]
    """For each collection: what changed since the previous version."""


def changes_since(job: Job) -> Increment | Full:
    """What changed in each of the job's collections since the previous version."""
    if job.previous is None:
        return Full(_FIRST)
    if job.from_scratch:
        return Full(_FROM_SCRATCH)
    changes = {}
    for name, source in job.collections.items():
        covered = job.previous.manifest.covers.get(name)
        found = None if covered is None else source.changes(covered)
        if found is None:
            return Full(f"{name} cannot tell what changed since generation {covered}")
        changes[name] = found
    return Increment(job.previous, changes)


def incremental_or_full(
    job: Job,
    extend: Callable[[Increment], Built | Full],
    build_in_full: Callable[[Full], Built],
) -> Built:
    """Continue the previous version where that can be done, else build in full.

    A previous version whose files are damaged is no reason to fail: the source is still there.
    """
    try:
        continued = changes_since(job)
        made = continued if isinstance(continued, Full) else extend(continued)
    except DamagedFileError as error:
        made = Full(f"of the previous version, {error}")
    return build_in_full(made) if isinstance(made, Full) else made


def build_details(mode: Full | None) -> dict[str, Any]:
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
