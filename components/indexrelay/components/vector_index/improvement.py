"""A quick version first, and the best one behind it: what is released soon, and what improves it.

`auto` takes minutes to find and build the best index over a large collection. So the first release
has the index that is ready soonest (`selection.soonest`). It reaches the recall asked for, and is
marked as provisional. The rebuilder builds the best index behind it, whenever it has nothing else
to do, and releases it as the next version of the same entries.

A compaction would be as slow, and a quick one would replace a graph by lists for that time. So
where the delta or the tombstones outgrow their limits, the base is extended a while longer, up to
twice the limits, and the version is marked as outgrown. The new base is built behind it in the same
way. Only what changes more than that, at once or while the new base is built, gets a quick version.

Both marks are details of a version, and so is the generation at which its base was built. From that
follows whether a version that was built behind another one is still better than what serves.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.kind import Goal, Improvable, Job, PreviousVersion, Verdict
from indexrelay.components.layered import LayerLimits
from indexrelay.components.vector_index.candidates import Candidate
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.selection import soonest
from indexrelay.components.vector_index.spec import IndexSpec
from indexrelay.components.vector_index.version import BASE
from indexrelay.schemas.versions import VersionManifest

PROVISIONAL: Final = "provisional"
"""Detail of a version whose base was ready soonest: why a better one is worth its time."""
OUTGROWN: Final = "outgrown"
"""Detail of a version whose delta or tombstones are larger than their limits: which, and by how
much."""
BASE_GENERATION: Final = "base_generation"
"""Detail: the generation of the collection at which the base was built."""
_PATIENCE: Final = 2
"""A base is extended up to so many times the limits of delta and tombstones while the next one is
built. Each query pays for what lies beside the base, and a new base takes minutes."""


def quick_candidate(job: Job, spec: IndexSpec) -> Candidate | None:
    """What to build first, since the best index follows; ``None``: the best index at once."""
    return _soonest(spec) if job.goal is Goal.QUICK else None


def provisional(candidate: Candidate) -> str:
    """The mark of a version that was made of it."""
    return f"the first index is the one that is ready soonest: {candidate.reason}"


def patient(limits: LayerLimits, job: Job, spec: IndexSpec) -> LayerLimits:
    """Up to where the base is extended: beyond ``limits`` where a new one is built behind it."""
    if job.goal not in {Goal.QUICK, Goal.CATCH_UP} or _soonest(spec) is None:
        return limits
    return LayerLimits(
        delta=min(_PATIENCE * limits.delta, 1.0),
        tombstones=min(_PATIENCE * limits.tombstones, 1.0),
    )


def _soonest(spec: IndexSpec) -> Candidate | None:
    if not spec.parameters.quick_first:
        return None
    try:
        return soonest(spec)
    except MemoryLimitError:  # the full build says so
        return None


def improvable(manifest: VersionManifest) -> Improvable | None:
    """What a better version would have; see `Kind.improvable`."""
    details = manifest.details
    reason = details.get(PROVISIONAL) or details.get(OUTGROWN)
    if not reason:
        return None
    return Improvable(
        reason=str(reason), since=dict.fromkeys(manifest.covers, _base_generation(details))
    )


def improves(built: VersionManifest, served: VersionManifest) -> bool:
    """Whether ``built`` has a better base than ``served``; see `Kind.improves`.

    The best index may turn out to be the one that was ready soonest, byte for byte: then it makes
    a provisional version a final one. What was built on an improvement has its base, and is final.
    """
    another = PROVISIONAL in served.details or built.files.get(BASE) != served.files.get(BASE)
    return (
        another
        and PROVISIONAL not in built.details
        and _base_generation(built.details) >= _base_generation(served.details)
    )


def _base_generation(details: Mapping[str, Any]) -> int:
    """0 where an earlier release built the base."""
    found = details.get(BASE_GENERATION, 0)
    return found if isinstance(found, int) else 0


_TIMED_QUERIES: Final = 100
_MAY_BE_SLOWER: Final = 1.2
"""Two measurements of the same index differ by that much on a busy host."""


def no_slower(files: Mapping[str, Path], previous: PreviousVersion) -> Verdict:
    """Single queries, as in a reader, take no longer than with the version that serves.

    Both answer the same queries in turn, so that what else the host does slows both.
    """
    with closing(VectorSearch(files)) as new, closing(VectorSearch(previous.files)) as served:
        sample = QuerySample.load(files[SAMPLE], rows=new.facts.rows, dimension=new.dimension)
        ours: list[float] = []
        theirs: list[float] = []
        for vector in sample.vectors[:_TIMED_QUERIES]:
            for index, seconds in ((new, ours), (served, theirs)):
                started = perf_counter()
                index.search(vector)
                seconds.append(perf_counter() - started)
    if not ours:
        return Verdict(True, "there is nothing to ask for")
    measured, limit = 1000 * median(ours), 1000 * _MAY_BE_SLOWER * median(theirs)
    fast = measured <= limit
    otherwise = "what serves answers sooner, and stays"
    return Verdict(fast, "" if fast else otherwise, measured=measured, limit=limit)
