"""Section B: data at the doors, through `check_entries`, a table or a folder of files."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from typing import Any

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries
from indexrelay.storage.validation import check_entries
from scripts.reports.report import Report


def check(
    ids: Any, vectors: Any, texts: Any = None, payloads: Any = None, metric: Metric = Metric.L2
) -> Entries:
    """What a batch does with its arguments, for a collection of two dimensions."""
    return check_entries(ids, vectors, texts, payloads, dimension=2, metric=metric)


REPORTS = (
    Report(
        item="B7",
        tried="ids in another order than they were written in: a list is taken as it is",
        wanted=r"\['b', 'a'\]$",
        attempt=lambda _: check(["b", "a"], [[1, 0], [0, 1]]).ids,
    ),
)
