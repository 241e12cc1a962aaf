"""The gates that every kind shares, and how a kind's own are run.

Gates look at the files on disk, in handles of their own. A gate that raises has failed, and so has
a `verify` that yields no check: a version that was not checked is never released.
"""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.registry import checks_of, loads
from indexrelay.components.served import Served
from indexrelay.schemas import commands
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest


def run_gates(
    kind: Kind[Any, Served],
    job: Job,
    built: Built,
    *,
    files: Mapping[str, Path],
    full: bool,
    min_kept: float,
    pool: Executor,
) -> tuple[Check, ...]:
    """Every check of one new version: of its bytes, its counts, and those of its kind.

    Args:
        built: with its files by content (`BlobRef`).
        files: the same files on disk.
        full: somebody asked for a build from scratch, and wants every check again. Otherwise checks
            of blobs that the previous version names hold for this one as well.
        min_kept: the share of the previous version's entries that must still be there; 0: any
            number will do.
        pool: reads files back, several at once.
    """
    previous = job.previous.manifest if job.previous else None
    known = {} if full or previous is None else _checks_of_blobs(previous)
    blobs = {name: file for name, file in built.files.items() if isinstance(file, BlobRef)}

    def read_back(name: str) -> Check:
        blob = blobs[name]
        return known.get(("bytes", blob.digest)) or _check_bytes(name, blob, files[name])

    bytes_checks = pool.map(read_back, sorted(blobs))  # beside the gates of the kind
    counts: list[Check] = []
    if previous is not None:
        counts.append(
            _check_count(job.component, "entries", built.entries, previous.entries, min_kept)
        )
        counts.extend(
            _check_count(job.component, what, built.counts[what], before, min_kept)
            for what, before in previous.counts.items()
            if what in built.counts  # a kind may come to count other things
        )
    of_kind = [*checks_of(kind, job, built, files)]
    checks = [*bytes_checks, *counts, *of_kind]
    if all(check.passed for check in checks):
        loaded = loads(kind, files)
        checks += [loaded] if loaded is not None else []
    return tuple(checks)


def _checks_of_blobs(previous: VersionManifest) -> dict[tuple[str, str], Check]:
    """Checks that concern only a blob hold for every version that names it."""
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
    """A collection that lost most of its entries, texts or payloads mostly has a broken source."""
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
