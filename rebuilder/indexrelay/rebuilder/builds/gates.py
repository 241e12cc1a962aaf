"""The gates that every kind shares, and how a kind's own are run.

Gates look at what lies on disk, in handles of their own. A gate that raises has failed: passing on
an exception is how bad indexes get released.
"""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from indexrelay.components.conformance import checks_of, loads
from indexrelay.components.kind import Built, Job, Kind, Served
from indexrelay.schemas import commands
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest


def run_gates(
    kind: Kind[Any, Served],
    job: Job,
    built: Built,
    *,
    blobs: Mapping[str, BlobRef],
    files: Mapping[str, Path],
    previous: VersionManifest | None,
    inherits: bool = True,
    min_kept: float,
    pool: Executor,
) -> tuple[Check, ...]:
    """Every check of one new version, in the order in which they ran.

    Args:
        blobs: the version's files, by content.
        files: the same, as they lie on disk.
        previous: the version that this one follows; ``None``: any number of entries will do, and
            nothing was checked before.
        inherits: whether checks of blobs that the previous version names hold for this one too;
            who asks for a build from scratch wants everything checked again.
        min_kept: the share of the previous version's entries that must still be there; 0: any
            number will do.
        pool: reads files back, several at once.
    """
    known = _inherited(previous) if inherits else {}

    def read_back(name: str) -> Check:
        blob = blobs[name]
        return known.get(("bytes", blob.digest)) or _check_bytes(name, blob, files[name])

    checks = list(pool.map(read_back, sorted(blobs)))
    if previous is not None:
        checks.append(
            _check_count(job.component, "entries", built.entries, previous.entries, min_kept)
        )
        checks.extend(
            _check_count(job.component, what, built.counts[what], before, min_kept)
            for what, before in previous.counts.items()
            if what in built.counts  # a kind may come to count other things
        )
    checks.extend(checks_of(kind, job, built, files))
    if all(check.passed for check in checks):
        loaded = loads(kind, files)
        checks += [loaded] if loaded is not None else []
    return tuple(checks)


def _inherited(previous: VersionManifest | None) -> dict[tuple[str, str], Check]:
    """Checks that concern only a blob hold for every version that names it."""
    if previous is None:
        return {}
    return {
        (check.name, check.blob): check
        for check in previous.checks
        if check.blob is not None and check.passed
    }


def _check_bytes(name: str, blob: BlobRef, file: Path) -> Check:
    """Read a file back: what is on disk must be what was hashed when it was written."""
    started = time.perf_counter()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    passed = digest == blob.digest
    return Check(
        name="bytes",
        passed=passed,
        detail="" if passed else f"{name} reads back as {digest}, not as {blob.digest}",
        measured=file.stat().st_size,
        seconds=time.perf_counter() - started,
        blob=blob.digest,
    )


def _check_count(component: str, what: str, count: int, before: int, min_kept: float) -> Check:
    """A collection that lost most of its entries, texts or payloads is mostly a broken source."""
    kept = count / before if before else 1.0
    passed = kept >= min_kept
    return Check(
        name="count_kept" if what == "entries" else f"{what}_kept",
        passed=passed,
        detail=""
        if passed
        else f"{count:,} {what} where the last version has {before:,}; "
        f"if that is right: {commands.rebuild(component, force=True)}",
        measured=kept,
        limit=min_kept,
    )
