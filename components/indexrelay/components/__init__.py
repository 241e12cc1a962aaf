"""What is built: the contract of a kind, and the kinds that come along.

A kind meets the rest only in files; nothing in here builds, releases or reloads by itself. Each is
a package of its own, imported when a definition names it.
"""

from indexrelay.components.kind import Built, Job, Kind, KindParameters, Served
from indexrelay.components.registry import check_kind, kind_class, kind_of
from indexrelay.components.served import Hit

__all__ = [
    "Built",
    "Hit",
    "Job",
    "Kind",
    "KindParameters",
    "Served",
    "check_kind",
    "kind_class",
    "kind_of",
]
