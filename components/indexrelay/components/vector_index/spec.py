"""What is asked of an index, how hard it is searched, and the facts in its version.

`VectorIndexParameters` are the keys of a ``kind = "vector_index"`` table. An `IndexSpec` is all
that is given before a build chooses an index, a `Factory` the FAISS factory string that names one.
An `Effort` is how hard the chosen one is searched. `IndexFacts` are the small JSON file of a
version: a reader has only the files, so the metric and the tuned effort are in one of them. So is
the length of each FAISS file, because FAISS maps a file that lacks its last bytes without an error.

The grammar of factory strings is a regular expression, so settings can be checked where FAISS is
not installed. It accepts indexes that can be mapped or at least read back, searched with parameters
for each query, and built from rows that are numbered 0, 1, 2, …:

    [transform ,]* [IVFn[_HNSWm] ,] encoding [, refinement]

Not accepted: ``IDMap`` (ids are row numbers here, the entries' ids lie beside the index),
``L2norm`` (the metric is the collection's), ``LSH``, lattices and ``IMI`` (they have no inner
product, or cannot be read back).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from indexrelay.components.formats.mapped_array import SmallDocument
from indexrelay.components.golden import GoldenParameters
from indexrelay.components.kind import UNLIMITED, BuildMemory
from indexrelay.schemas.filters import FilterableFields
from indexrelay.schemas.settings import Metric

AUTO: Final = "auto"


class Prefer(StrEnum):
    """What an ``auto`` index is chosen by, among those that reach recall and latency."""

    LATENCY = "latency"
    MEMORY = "memory"
    BUILD = "build"


class VectorIndexParameters(GoldenParameters):
    """How an index is made, and what it must reach before it is released."""

    index: str = AUTO
    """``auto``, or a FAISS factory string: ``Flat``, ``IVF1024,Flat``, ``HNSW32``, ``IVF1024,SQ8``,
    ``OPQ16,IVF1024,PQ16``, ``IVF1024,PQ16x4fs,RFlat``, …; ``indexrelay check`` says whether
    FAISS can build it."""

    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Recall@10 that the index must reach; search is tuned to the least effort that does."""

    max_latency_ms: Annotated[float, Field(gt=0)] = 100.0
    """Milliseconds that one query may take at the median, on one thread of the building host."""

    prefer: Prefer = Prefer.LATENCY
    """What ``auto`` takes of all that reach ``min_recall`` and ``max_latency_ms``: the one that
    answers soonest (``latency``, the default), that takes the least memory (``memory``), or that
    is built soonest (``build``)."""

    max_build_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that ``auto`` may spend on trying and building an index, as they would pass on an
    idle host. What would take longer, by what a small part of the entries took, is left out. 600:
    a graph over about a million vectors of 256 dimensions, on two cores."""

    quick_first: bool = True
    """Whether a rebuilder releases the index first that is ready soonest, where the best one that
    ``auto`` finds takes longer, and the best one behind it, as the next version of the same
    entries. false: the first release waits for the best one, and so does a compaction."""

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

    filterable: FilterableFields = Field(default_factory=dict)
    """Taken from the collection, where it is declared: do not give it here."""

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
        for key in sorted(_GUIDES_OF_AUTO & self.model_fields_set):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} does nothing for {self.index}; it guides auto")
        return self


_GUIDES_OF_AUTO: Final = frozenset({"max_bytes", "max_build_seconds", "prefer"})


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """What an index is built for."""

    parameters: VectorIndexParameters
    metric: Metric
    dimension: int
    count: int
    """Vectors that it will hold."""
    memory: BuildMemory = UNLIMITED
    """Bounds the rows that an index is trained on; its limit is raised before one is filled."""


_MAX_NPROBE: Final = 1 << 24
_MAX_EF_SEARCH: Final = 1 << 20
_MAX_K_FACTOR: Final = 1 << 12


class Effort(BaseModel):
    """How hard to search; ``None``: the index has no such number."""

    model_config = ConfigDict(frozen=True)

    nprobe: Annotated[PositiveInt, Field(le=_MAX_NPROBE)] | None = None
    """Inverted lists that a query searches."""
    ef_search: Annotated[PositiveInt, Field(le=_MAX_EF_SEARCH)] | None = None
    """Candidates that a graph search keeps."""
    k_factor: Annotated[PositiveInt, Field(le=_MAX_K_FACTOR)] | None = None
    """Candidates for each hit whose full vectors a refinement compares."""


class DeltaFacts(BaseModel):
    """What lies beside the base."""

    model_config = ConfigDict(frozen=True)

    count: NonNegativeInt
    """Entries that came or changed since the base was built."""
    dead: NonNegativeInt
    """Rows of the base that have a tombstone."""
    index_bytes: PositiveInt | None = None
    """Length of its FAISS file; ``None``: it has none and is scanned."""


class IndexFacts(SmallDocument):
    """The content of ``index.json``."""

    factory: str
    """The FAISS factory string that was built."""
    metric: Metric
    dimension: PositiveInt
    count: NonNegativeInt
    """Rows of the base."""
    base_bytes: PositiveInt
    """Length of the base's FAISS file."""
    effort: Effort
    refusal: str = ""
    """Why this index cannot be searched around tombstones; empty: it can, and may be extended."""
    sketched: PositiveInt | None = None
    """How many rows of the nearest sketches are compared for ten hits; ``None``: no sketches."""
    delta: DeltaFacts | None = None
    """``None``: there is only the base."""

    @field_validator("factory")
    @classmethod
    def _is_one_of_ours(cls, factory: str) -> str:
        parse_factory(factory)  # what it says decides how it is searched
        return factory

    @property
    def rows(self) -> int:
        """Rows of base and delta, those with a tombstone included."""
        return self.count + (self.delta.count if self.delta else 0)

    @property
    def entries(self) -> int:
        """How many entries the version holds."""
        return self.rows - (self.delta.dead if self.delta else 0)


_TRANSFORM: Final = r"(?:OPQ\d+(?:_\d+)?|PCA[RW]?\d+|RR\d+|Pad\d+),"
_COARSE: Final = r"IVF(?P<lists>\d+)(?:_HNSW\d+)?,"
_SCALAR: Final = r"SQ(?:4|6|8|fp16|bf16)"
_PRODUCT: Final = r"PQ\d+(?:x(?P<bits>\d+)(?:fsr?)?)?"
_GRAPH: Final = rf"(?:HNSW\d+(?:,(?:Flat|{_SCALAR}|PQ\d+))?|NSG\d+(?:,Flat)?)"
_PATTERN: Final = re.compile(
    rf"(?P<transforms>(?:{_TRANSFORM})*)"
    rf"(?:(?:{_COARSE})?(?:Flat|{_SCALAR}|{_PRODUCT}|RQ\d+x(?P<rq_bits>\d+)|RaBitQ)"
    rf"|(?P<graph>{_GRAPH}))"
    rf"(?P<refinement>,RFlat|,Refine\({_SCALAR}\))?"
)

_MAX_CODE_BITS: Final = 16
"""A codebook of more needs more rows than training may use, and gigabytes of memory."""
_POINTS_PER_CENTROID: Final = 39
"""FAISS warns where k-means has fewer points for each centroid."""
_TRAINED_PER_LIST: Final = 40
"""Rows for each list in training. Six times as many take six times as long and save no comparison
(decision 011)."""
_TRAINED_AT_LEAST: Final = 16_384
"""Rows in training where there are few lists; enough for the ranges of a scalar code."""
_TRAINED_CODES: Final = 65_536
"""… and where codebooks or a transform are fitted: enough for 256 centroids."""
_FITTED_ROWS: Final = 1_000
"""Fewer rows are too few to fit a transform, and for NSG's neighbour graph."""


@dataclass(frozen=True, slots=True)
class Factory:
    """One factory string, parsed."""

    text: str
    lists: int
    """Inverted lists; 0: it has none."""
    code_bits: int
    """Bits of one code of a trained codebook; 0: it trains none."""
    transformed: bool
    graph: str
    """``"HNSW"``, ``"NSG"`` or nothing."""
    refined: bool

    @property
    def needed_rows(self) -> int:
        """The fewest rows that it can be trained on."""
        needed = _POINTS_PER_CENTROID * max(self.lists, 2**self.code_bits if self.code_bits else 0)
        return max(needed, _FITTED_ROWS) if self.transformed or self.graph == "NSG" else needed

    @property
    def trained_rows(self) -> int:
        """The most rows that it is trained on; a larger collection is sampled."""
        fitted = self.code_bits or self.transformed
        return max(_TRAINED_PER_LIST * self.lists, _TRAINED_CODES if fitted else _TRAINED_AT_LEAST)


def parse_factory(text: str) -> Factory:
    """Parse a factory string.

    Raises:
        ValueError: it is not accepted; the message shows some that are.
    """
    match = _PATTERN.fullmatch(text)
    bits = 0 if match is None else int(match["bits"] or match["rq_bits"] or 8)
    if match is None or match["lists"] == "0" or not 0 < bits <= _MAX_CODE_BITS:
        raise ValueError(
            "not a FAISS factory string that can be served; write 'auto', or for example 'Flat', "
            "'IVF1024,Flat', 'IVF1024,SQ8', 'HNSW32', 'OPQ16,IVF1024,PQ16' or "
            "'IVF1024,PQ16x4fs,RFlat'"
        )
    graph = match["graph"] or ""
    code_bits = match["bits"] or match["rq_bits"]
    if code_bits is None and "PQ" in text:  # OPQ trains a codebook too, to rotate for it
        code_bits = "8"
    return Factory(
        text=text,
        lists=int(match["lists"] or 0),
        code_bits=int(code_bits or 0),
        transformed=bool(match["transforms"]),
        graph=graph[:4].rstrip("0123456789"),
        refined=match["refinement"] is not None,
    )
