"""How a gate becomes a `Check`: run, timed, and failed where the file that it reads is damaged."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.kind import Built
from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.entries import SourceSnapshot

OpenedT = TypeVar("OpenedT")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate found."""

    passed: bool
    detail: str = ""
    """What is wrong and what can be done; empty where nothing is."""
    measured: float | None = None
    limit: float | None = None


def judge(name: str, gate: Callable[[], Verdict]) -> Check:
    """Run one gate. A damaged file is a failed check; anything else that it raises goes through."""
    started = perf_counter()
    try:
        verdict = gate()
    except DamagedFileError as error:
        verdict = Verdict(passed=False, detail=str(error))
    return Check(
        name=name,
        passed=verdict.passed,
        detail=verdict.detail,
        measured=verdict.measured,
        limit=verdict.limit,
        seconds=perf_counter() - started,
    )


def concerning(check: Check, built: Built, file: str) -> Check:
    """The check as one of ``file`` alone: versions that name the same blob may take it over."""
    blob = built.files[file]
    digest = blob.digest if isinstance(blob, BlobRef) else None
    return check.model_copy(update={"blob": digest})


def equal(measured: float, expected: float, otherwise: str) -> Verdict:
    """A gate on two counts that must agree; ``otherwise``: what it means if they do not."""
    same = measured == expected
    return Verdict(same, "" if same else otherwise, measured=measured, limit=expected)


def reads_back(open_: Callable[[], OpenedT]) -> tuple[Check, OpenedT | None]:
    """Open what was built; ``None`` where a file is damaged, and there is nothing else to judge."""
    started = perf_counter()
    try:
        opened = open_()
    except DamagedFileError as error:
        return Check(name="reads_back", passed=False, detail=str(error)), None
    return Check(name="reads_back", passed=True, seconds=perf_counter() - started), opened


def count_gate(held: int, source: SourceSnapshot, built: Built) -> Verdict:
    """The build and the files (``held``) have as many entries as the collection."""
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(held, source.count, "the files hold another number of entries")
