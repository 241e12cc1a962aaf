"""The keys of a ``kind = "vector_index"`` table."""

from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from indexrelay.components.kind import KindParameters
from indexrelay.components.vector_index.factory import parse_factory

AUTO: Final = "auto"


class VectorIndexParameters(KindParameters):
    """How an index is made, and what it must reach before it is released."""

    index: str = AUTO
    """``auto``, or a FAISS factory string: ``Flat``, ``IVF1024,Flat``, ``HNSW32``, ``IVF1024,SQ8``,
    ``OPQ16,IVF1024,PQ16``, ``IVF1024,PQ16x4fs,RFlat``, …; ``indexrelay check`` says which it
    takes."""

    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Recall@10 that the index must reach; search is tuned to the least effort that does."""

    max_latency_ms: Annotated[float, Field(gt=0)] = 100.0
    """Milliseconds that one query may take at the median, on one thread of the building host.

    Where an ``auto`` index takes longer, faster ones are built and measured, up to a graph.
    """

    nprobe: Annotated[int, Field(ge=1)] | None = None
    """Inverted lists to look into; ``None``: tuned."""

    ef_search: Annotated[int, Field(ge=1)] | None = None
    """Candidates that a graph search keeps; ``None``: tuned."""

    max_bytes: Annotated[int, Field(gt=0)] | None = None
    """Memory that the searched part of an ``auto`` index may take; ``None``: what it needs.

    What a query reads a few rows of is mapped beside it and not counted: look-up by id, payloads,
    and the full vectors that a compressed index looks at again.
    """

    max_delta: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Entries beside the base, as a share of it, above which everything is built anew. 0.10: each
    query looks through both, and each build writes the delta. 0: always anew."""

    max_tombstones: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows of the base that no longer count, as a share of it, above which everything is built
    anew. 0.10: a query steps over them."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides which rows are trained on and asked for in the gates, and where k-means starts."""

    @field_validator("index")
    @classmethod
    def _index_is_known(cls, index: str) -> str:
        if index != AUTO:
            parse_factory(index)
        return index

    @model_validator(mode="after")
    def _keys_fit_the_index(self) -> Self:
        """A key that would do nothing is a mistake of its writer."""
        if self.index == AUTO:
            if self.ef_search is not None:
                raise ValueError(
                    "ef_search does nothing for auto, which tunes a graph by itself; name the "
                    "graph, for example index = 'HNSW32'"
                )
            return self
        factory = parse_factory(self.index)
        if self.nprobe is not None and not factory.lists:
            raise ValueError(f"nprobe does nothing for {self.index}, which has no lists")
        if self.ef_search is not None and factory.graph != "HNSW":
            raise ValueError(f"ef_search does nothing for {self.index}, which is no HNSW")
        if self.max_bytes is not None:
            raise ValueError(f"max_bytes does nothing for {self.index}; it guides auto")
        return self
