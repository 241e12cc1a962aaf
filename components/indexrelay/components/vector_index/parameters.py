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
    ``OPQ16,IVF1024,PQ16``, ``IVF1024,PQ16x4fs,RFlat``, …; ``indexrelay check`` says whether
    FAISS can build it."""

    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Recall@10 that the index must reach; search is tuned to the least effort that does."""

    max_latency_ms: Annotated[float, Field(gt=0)] = 100.0
    """Milliseconds that one query may take at the median, on one thread of the building host.

    Where an ``auto`` index takes longer, faster ones are built and measured, up to a graph.
    """

    nprobe: Annotated[int, Field(ge=1)] | None = None
    """Inverted lists that a query searches; ``None``: tuned."""

    ef_search: Annotated[int, Field(ge=1)] | None = None
    """Candidates that a graph search keeps; ``None``: tuned."""

    max_bytes: Annotated[int, Field(gt=0)] | None = None
    """Memory that the searched part of an ``auto`` index may take; ``None``: what it needs.

    Files of which a query reads only a few rows are mapped and do not count: ids, payloads, and
    the full vectors that a compressed index compares again.
    """

    max_delta: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Entries beside the base, as a share of it, above which a build is a full one. 0.10: each
    query searches both, and each build writes the delta. 0: every build is a full one."""

    max_tombstones: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows of the base whose entries changed or are deleted, as a share of it, above which a build
    is a full one. 0.10: a query skips them, but still reads them."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Selects the rows for training and for the query sample, and where k-means starts."""

    @field_validator("index")
    @classmethod
    def _index_is_known(cls, index: str) -> str:
        if index != AUTO:
            parse_factory(index)
        return index

    @model_validator(mode="after")
    def _keys_fit_the_index(self) -> Self:
        """Refuse a key that would do nothing: it is a mistake."""
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
