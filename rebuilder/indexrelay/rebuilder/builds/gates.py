"""The gates that every component passes: what its version must show before it is released.

First those of its bytes and its counts, then the kind's own, and last the functions that the
component's table names (``[components.NAME.gates]``). They look at the files on disk, in handles of
their own. A gate that raises has failed, and so has a `verify` that yields no check, and a function
that gives nothing or takes too long: a version that was not checked is never released.

Before a build from scratch begins there has to be room for it (`check_room`): one that fills a disk
after an hour has disturbed everybody on it for nothing. A build that continues the last version
writes what changed, and is not asked.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from indexrelay.components.errors import GateFunctionError
from indexrelay.components.functions import OverdueError, TimedCalls, function_of
from indexrelay.components.kind import Built, Job, Kind, Verdict
from indexrelay.components.registry import checks_of, loads, served
from indexrelay.components.served import Served
from indexrelay.rebuilder.builds import NoRoomError
from indexrelay.schemas import commands
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.gates import FUNCTION, GROWTH, is_quality
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore

_FLOAT_BYTES: Final = 4
_CGROUP: Final = Path("/sys/fs/cgroup")


def check_room(job: Job, store: ArtifactStore, *, serving: VersionManifest | None) -> None:
    """See that disk and memory have room for a build from scratch.

    Args:
        serving: the version that serves, by which the next one's size is judged; ``None``: by the
            vectors of its collections.

    Raises:
        NoRoomError: one of them has less than the component's ``gates`` ask for.
    """
    vectors = sum(each.count * each.dimension for each in job.collections.values())
    size = vectors * _FLOAT_BYTES if serving is None else serving.size
    for what, setting, factor, free in (
        ("disk", "min_free_disk", job.gates.min_free_disk, _free_disk),
        ("memory", "min_free_memory", job.gates.min_free_memory, _free_memory),
    ):
        wanted = int(factor * size)
        left = free(store.root) if wanted else None
        if left is not None and left < wanted:
            raise NoRoomError(what, free=left, wanted=wanted, setting=setting)


def _free_disk(root: Path) -> int | None:
    return shutil.disk_usage(root).free


def _free_memory(_root: Path) -> int | None:
    """What this process and its children may take; ``None``: the kernel does not say."""
    return min(filter(None, (_available_on_host(), left_in_container(_CGROUP))), default=None)


def _available_on_host() -> int | None:
    """``MemAvailable`` of proc(5)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(
        (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None
    )


def left_in_container(group: Path) -> int | None:
    """What the limit of a control group (v2) leaves; ``None``: there is none."""
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return max(int(most) - used, 1) if most.isdigit() else None


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
    """Every check of one new version: of its bytes, its counts, those of its kind and of its table.

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
        if job.gates.max_growth is not None:
            counts.append(_check_growth(built.entries, previous.entries, job.gates.max_growth))
    of_kind = [*checks_of(kind, job, built, files)]
    checks = [*bytes_checks, *counts, *of_kind]
    if not any(_refuses(check, job) for check in checks):
        loaded = loads(kind, files)
        checks += [loaded] if loaded is not None else []
        if job.gates.functions and (loaded is None or loaded.passed):
            checks += _function_checks(kind, job, files)
    if not job.gates.require_validation_pass:
        checks = [
            check.model_copy(update={"required": False}) if is_quality(check.name) else check
            for check in checks
        ]
    return tuple(checks)


def _refuses(check: Check, job: Job) -> bool:
    return not check.passed and (job.gates.require_validation_pass or not is_quality(check.name))


def _function_checks(
    kind: Kind[Any, Served], job: Job, files: Mapping[str, Path]
) -> Iterator[Check]:
    """One check for each function of a user's own, of what a reader would serve."""
    # One thread for each: a function that hangs does not keep the next one from its turn.
    calls = TimedCalls("indexrelay-gate", most=len(job.gates.functions))
    value = served(kind, kind.load(files))
    overdue = False
    try:
        for name in job.gates.functions:
            started = time.perf_counter()
            try:
                verdict = _asked(name, calls, value, job)
            except OverdueError:
                overdue = True
                limit = f"{job.gates.function_seconds:g} s (gates.function_seconds)"
                verdict = Verdict(passed=False, detail=f"it took longer than {limit}")
            yield Check(
                name=f"{FUNCTION}{name}",
                passed=verdict.passed,
                detail=verdict.detail,
                measured=verdict.measured,
                limit=verdict.limit,
                seconds=time.perf_counter() - started,
            )
    finally:
        calls.close()
        if not overdue:  # else it is in use, and ends with the process of the build
            value.close()


def _asked(name: str, calls: TimedCalls, value: Served, job: Job) -> Verdict:
    """What one function says; whatever else it does, it has failed.

    Raises:
        OverdueError: it took too long, and goes on.
    """
    try:
        gate = function_of(name, GateFunctionError)
        found = calls.call(gate, value, job, seconds=job.gates.function_seconds)
    except OverdueError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a gate raises, it has failed
        return Verdict(passed=False, detail=describe_error(error))
    if isinstance(found, Verdict) and isinstance(found.passed, bool):
        return found
    if isinstance(found, bool):
        return Verdict(found, "" if found else "it says no, and gives no reason: give a Verdict")
    given = "nothing" if found is None else f"a {type(found).__name__}"
    return Verdict(passed=False, detail=f"it gave {given}, not a Verdict or whether it passes")


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


def _check_growth(count: int, before: int, most: float) -> Check:
    """A job that ran twice, or a source that gives everything under two ids, doubles an index."""
    grown = max(count - before, 0) / before if before else 0.0
    passed = grown <= most
    return Check(
        name=GROWTH,
        passed=passed,
        detail=""
        if passed
        else f"{count:,} entries where the last version has {before:,}; if that is right, raise "
        "gates.max_growth",
        measured=grown,
        limit=most,
    )
