"""A vector index and a text index over one collection, searched together.

`kind` is the class. It consists of two `parts`, each of which is what its own kind makes of the
collection: a version names the files of both, so they always hold the same entries. `hybrid` is
what a reader serves: it asks both halves and fuses their rankings.
"""

from indexrelay.components.search.hits import ArmHit, HybridHit, HybridHits, HybridQuery
from indexrelay.components.search.hybrid import Fusion, HybridKeywords, HybridSearch
from indexrelay.components.search.kind import HybridIndex, HybridIndexParameters
from indexrelay.components.search.rerank import Rerank

__all__ = [
    "ArmHit",
    "Fusion",
    "HybridHit",
    "HybridHits",
    "HybridIndex",
    "HybridIndexParameters",
    "HybridKeywords",
    "HybridQuery",
    "HybridSearch",
    "Rerank",
]
