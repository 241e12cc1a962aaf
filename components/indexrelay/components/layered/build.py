"""Reads what a component is made from, and decides between an incremental build and a full one.

A build that cannot continue the previous version, or for which a full one is cheaper, gives a
reason. It stands in the version's details, so that operators see why a small batch took long.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import (
    CorruptFileError,
    NotContinuedError,
    UnusableInputError,
)
from indexrelay.components.kind import Built, Goal, Job, PreviousVersion
from indexrelay.components.layered.layers import Layers
from indexrelay.components.layered.succession import ChangedIds
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries, SourceSnapshot, Vectors

_FIRST: Final = "there is no version to continue"
_FROM_SCRATCH: Final = "a full build was asked for"


@dataclass(frozen=True, slots=True)
class Full:
    """Why everything is built from scratch."""

    reason: str


@dataclass(frozen=True, slots=True)
class Increment:
    """What an incremental build continues."""

    previous: PreviousVersion
    changes: dict[str, Iterator[Changes]]
    """For each collection: what changed since the previous version."""


def _increment(job: Job) -> Increment | Full:
    """What changed in each of the job's collections since the previous version."""
    if job.previous is None:
        return Full(job.full_reason or _FIRST)
    if job.from_scratch:
        return Full(job.full_reason or _FROM_SCRATCH)
    changes = {}
    for name, source in job.collections.items():
        covered = job.previous.manifest.covers.get(name)
        found = None if covered is None else source.changes(covered)
        if found is None:
            return Full(f"what changed in {name} since generation {covered} is not known")
        changes[name] = found
    return Increment(job.previous, changes)


def incremental_or_full(
    job: Job,
    extend: Callable[[Increment], Built | Full],
    build_in_full: Callable[[Full], Built],
) -> Built:
    """Continue the previous version where that is possible, else build in full.

    A previous version whose files are corrupt is no reason to fail: the source is still there.

    Raises:
        NotContinuedError: the goal is `Goal.CATCH_UP`, and the previous version cannot be
            continued.
    """
    try:
        continued = _increment(job)
        made = continued if isinstance(continued, Full) else extend(continued)
    except CorruptFileError as error:
        made = Full(f"the previous version cannot be read: {error}")
    if not isinstance(made, Full):
        return made
    if job.goal is Goal.CATCH_UP:
        raise NotContinuedError(f"it cannot be continued: {made.reason}")
    return build_in_full(made)


def build_details(full: Full | None) -> dict[str, Any]:
    """For the version's details: how it was built and why; ``None``: incrementally."""
    if full is None:
        return {"mode": "incremental", "reason": "few entries changed since the last version"}
    return {"mode": "full", "reason": full.reason}


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
            "build": {"mode": "incremental", "reason": "nothing changed"},
        },
    )


@dataclass(frozen=True, kw_only=True)
class LayerLimits:
    """How much may lie beside a base before everything is written again, as shares of it."""

    delta: float
    tombstones: float
    delta_key: str = "max_delta"
    """The parameter that sets it, for the reason that is given."""
    tombstones_key: str = "max_tombstones"

    def most_changes(self, layers: Layers) -> int:
        """How many changes are worth reading: more cannot fit into delta and tombstones."""
        return int(self.delta * layers.base) + int(self.tombstones * layers.base)

    @property
    def too_many_changes(self) -> Full:
        """Why a batch of more than `most_changes` is not continued."""
        return Full("the batch changes more of the base than delta and tombstones may hold")

    def outgrown(self, layers: Layers) -> Full | None:
        """Why the next version's ``layers`` are too large; ``None``: they are not."""
        for what, rows, limit, key in (
            ("the delta", len(layers.places), self.delta, self.delta_key),
            ("tombstones", len(layers.tombstones), self.tombstones, self.tombstones_key),
        ):
            if rows > int(limit * layers.base):
                return Full(f"{what} would be {rows}, more than {limit:.0%} of the base ({key})")
        return None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What differs from the last version."""

    upserts: Entries
    """Entries that came or changed, no id twice; vectors as they are stored."""
    deletes: list[str]
    """Ids of the last version that are deleted."""

    @property
    def ids(self) -> ChangedIds:
        """The same without the values."""
        return ChangedIds(upserts=self.upserts.ids, deletes=self.deletes)

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not self.upserts.ids and not self.deletes


def read_batch(
    source: SourceSnapshot,
    changes: Iterable[Changes],
    *,
    known: Container[str],
    differing: Callable[[Entries], Iterable[int]],
    most: int,
    prepare: Callable[[Entries], Entries] | None = None,
) -> Batch | None:
    """Read ``changes``; ``None`` once they are more than ``most``.

    A job that hands over everything each time gives most entries again as they are. These are no
    changes: they neither grow the delta nor cost the next build anything.

    Args:
        source: what the changes are of.
        changes: what changed since the last version.
        known: the ids of the last version.
        differing: the rows of a chunk that the last version does not hold as they are given.
        most: upserts and deletes that are worth reading.
        prepare: makes of a chunk's entries what is compared and stored.

    Raises:
        UnusableInputError: a vector holds a NaN or an infinity.
    """
    ids: list[str] = []
    vectors: list[Vectors] = [np.empty((0, source.dimension), dtype=np.float32)]
    texts: list[str | None] = []
    payloads: list[str | None] = []
    deletes: list[str] = []
    for chunk in changes:
        refuse_infinite(chunk.upserts)
        given = chunk.upserts if prepare is None else prepare(chunk.upserts)
        rows = list(differing(given))
        ids += (given.ids[row] for row in rows)
        vectors.append(given.vectors[rows])
        texts += (given.texts[row] for row in rows)
        payloads += (given.payloads[row] for row in rows)
        deletes += (entry_id for entry_id in chunk.deletes if entry_id in known)
        if len(ids) + len(deletes) > most:
            return None
    upserts = Entries(ids=ids, vectors=np.concatenate(vectors), texts=texts, payloads=payloads)
    return Batch(upserts=upserts, deletes=deletes)


_CHUNK_BYTES = 8 * 1024 * 1024
"""Vectors read at a time: 10,000 rows up to a dimension of 209."""
_NAMED = 5
"""Entries that a message names."""


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
            f"what changed in {snapshot.collection} since generation {after} is not known"
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
