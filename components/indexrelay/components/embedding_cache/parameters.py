"""What an embedding cache may be told."""

from typing import Annotated

from pydantic import Field

from indexrelay.components.kind import KindParameters


class EmbeddingCacheParameters(KindParameters):
    """The keys of a ``kind = "embedding_cache"`` table."""

    max_delta: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows beside the base, as a share of it, above which everything is written anew. 0.10: every
    build writes the delta, so this bounds what a batch costs. 0: always anew, one mapped array."""

    max_tombstones: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows of the base that no longer count, as a share of it, above which everything is written
    anew. 0.10: they take disk and nothing else."""
