"""The gates of a component's table: ``[components.NAME.gates]``.

Before a build from scratch begins there has to be room for it (`check_room`): one that fills a disk
after an hour has disturbed everybody on it for nothing. A build that continues the last version
writes what changed, and is not asked.

Beside the gates that every kind has stand how much a version grew, and last the functions of a
user's own, which are asked about what a reader would serve. One that raises, gives nothing, or
takes too long has failed.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from indexrelay.components.errors import GateFunctionError
from indexrelay.components.functions import OverdueError, TimedCalls, function_of
from indexrelay.components.kind import Job, Kind, Verdict
from indexrelay.components.registry import served
from indexrelay.components.served import Served
from indexrelay.rebuilder.builds import NoRoomError
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.gates import FUNCTION, GROWTH
from indexrelay.schemas.versions import Check, VersionManifest
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
    groups = (left_in_group(group) for group in own_groups(_CGROUP))
    return min(filter(None, (_available_on_host(), *groups)), default=None)


def _available_on_host() -> int | None:
    """``MemAvailable`` of proc(5)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(
        (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None
    )


def own_groups(root: Path, *, own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """The control group (v2) of this process and those above it: each may have a limit.

    Args:
        root: where they are mounted.
        own: says which is ours; see cgroups(7).
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return [root]
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = root / path
    return [group, *(each for each in group.parents if each.is_relative_to(root))]


def left_in_group(group: Path) -> int | None:
    """What the limit of a control group (v2) leaves; ``None``: there is none.

    Pages of files that nobody used lately count as used there, and go when memory is wanted.
    """
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        stat = dict(line.split() for line in lines)
        droppable = sum(int(stat.get(name, 0)) for name in ("inactive_file", "slab_reclaimable"))
    except (OSError, ValueError):
        return None
    return max(int(most) - used + droppable, 1) if most.isdigit() else None


def function_checks(
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


def growth_check(count: int, before: int, most: float) -> Check:
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
