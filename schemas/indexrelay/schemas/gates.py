"""What a new version of a component has to show before it is released: ``[components.NAME.gates]``.

These limits stand beside those of the component's kind, and hold from the next build on: what is
released is not built again because one of them changed. Here, too, are the names of checks that a
person may let pass (``require_validation_pass``), and why a reader refuses what passed them all.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from indexrelay.schemas.tables import FunctionReference, Table

Share = Annotated[float, Field(ge=0, le=1)]

OVERLAP: Final = "overlap_at_10"
GROWTH: Final = "entries_grown"
NORM_SHIFT: Final = "norm_shift"
CENTROID_SHIFT: Final = "centroid_shift"
RECALL: Final = "recall_at_10"
RECALL_LOWER: Final = "recall_at_10_lower"
LATENCY: Final = "latency_ms"
LATENCY_P99: Final = "latency_p99_ms"
FUNCTION: Final = "function "
"""What the name of a check begins with that a function of a user's own made."""

_QUALITY: Final = frozenset(
    {
        OVERLAP,
        GROWTH,
        NORM_SHIFT,
        CENTROID_SHIFT,
        RECALL,
        RECALL_LOWER,
        LATENCY,
        LATENCY_P99,
        "golden_known",
        "golden_hit_rate",
        "golden_ndcg",
    }
)


def is_quality(check: str) -> bool:
    """Whether a check is about how good a version is; the others are about whether it is whole."""
    return check.startswith(FUNCTION) or check.rpartition(".")[2] in _QUALITY


class Refusal(StrEnum):
    """Why a reader does not take a version, for good; what it may load later is not refused."""

    DAMAGE = "damage"
    """Its files are not what was written."""
    MEMORY = "memory"
    """It would not fit into the reader's memory budget."""
    ANSWERS = "answers"
    """To recent queries it gives other answers than the version before."""
    LOAD = "load"
    """It cannot be opened for another reason."""


class Doubt(StrEnum):
    """Why another reader takes the place of a canary."""

    REFUSED = "refused"
    """It refused a version, for good."""
    DIED = "died"
    """A process of it died; one that was stopped is replaced without doubt."""
    LATE = "late"
    """It did not serve the release in time, and did not say why."""


class GateSettings(Table):
    """One table ``[components.NAME.gates]``: what a new version has to show before it is released,
    beside the limits of its kind (``min_recall``, ``max_latency_ms``, ``golden``). What is measured
    without a limit is recorded with the version. Versions are compared only with one of the same
    definition: another definition may mean other answers."""

    require_validation_pass: bool = True
    """``false``: a version that is whole and not as good as asked for is released all the same, and
    what it did not reach stands with it. One that is not whole never is."""

    recall_confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """How sure it has to be that recall reaches ``min_recall``: the lower end of an interval of
    this confidence (Wilson's) has to reach it. ``None``: what was measured has to, and the lower
    end at 0.95 is recorded."""

    max_latency_p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds within which 99 of 100 single queries have to be answered, on one thread of the
    building host; ``None``: recorded."""

    min_overlap: Share | None = None
    """Of the best ten of a query, the share that has to be among the best ten of the version that
    serves, as the mean over its query sample. ``None``: recorded by full builds."""

    max_growth: Annotated[float, Field(gt=0)] | None = None
    """The share of the entries that serve which may come in addition from one version to the next
    (``max_shrink`` limits how many may go). ``None``: any number."""

    max_norm_shift: Annotated[float, Field(gt=0)] | None = None
    """By which share the mean length of the vectors may differ from that of the version that
    serves. ``None``: recorded by full builds."""

    max_centroid_shift: Annotated[float, Field(gt=0)] | None = None
    """How far the mean of the vectors may lie from that of the version that serves, as a share of
    how far vectors lie from their mean. ``None``: recorded by full builds."""

    min_free_disk: Annotated[float, Field(ge=0)] = 3.0
    """Room that the artifacts' file system must have before a build from scratch begins, as a
    multiple of the version that serves, or of the vectors where there is none. 0: none."""

    min_free_memory: Annotated[float, Field(ge=0)] = 3.0
    """… and memory that the host, or its container, must have available. 0: none."""

    functions: tuple[FunctionReference, ...] = ()
    """Gates of your own, ``module:function`` each. One is called in the build's process with what
    a reader would serve and with the build's job, and gives a `Verdict`, or whether it passes. An
    error, and anything else that it gives, is a failed gate."""

    function_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long each of them may take; what takes longer has failed."""
