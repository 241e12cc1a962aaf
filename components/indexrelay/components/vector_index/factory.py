"""FAISS factory strings: which ones are accepted, and what an index of each needs.

The grammar is a regular expression, so settings can be checked where FAISS is not installed. It
accepts indexes that can be mapped or at least read back, searched with parameters for each query,
and built from rows that are numbered 0, 1, 2, …:

    [transform ,]* [IVFn[_HNSWm] ,] encoding [, refinement]

Not accepted: ``IDMap`` (ids are row numbers here, the entries' ids lie beside the index),
``L2norm`` (the metric is the collection's), ``LSH``, lattices and ``IMI`` (they have no inner
product, or cannot be read back).
"""

import re
from dataclasses import dataclass
from typing import Final

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
