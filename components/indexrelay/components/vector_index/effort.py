"""How hard to search, said to FAISS in the one way that each type of index understands.

FAISS has a class of search parameters for each class of index, nested like the indexes themselves,
and refuses or ignores the wrong one. They are handed over with each search; the index itself, which
many threads share and which lies in mapped pages, is never changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.facts import Effort

_FEWEST_CANDIDATES: Final = 8
"""FAISS keeps at least as many candidates as hits are wanted, however few it is told to."""


def search_parameters(index: Any, effort: Effort, selector: Any = None) -> Any:
    """FAISS's parameters for this index; ``None`` where it takes none.

    They may be used by many threads at a time, and keep alive what they refer to. ``selector``, a
    ``faiss.IDSelector``, says which rows may be found; ``None``: all.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    chosen = {} if selector is None else {"sel": selector}
    match index:
        case faiss.IndexPreTransform():
            inner = search_parameters(index.index, effort, selector)
            return inner and faiss.SearchParametersPreTransform(index_params=inner)
        case faiss.IndexRefine():
            inner = search_parameters(index.base_index, effort, selector)
            within = {} if inner is None else {"base_index_params": inner}
            return faiss.IndexRefineSearchParameters(k_factor=float(effort.k_factor or 1), **within)
        case faiss.IndexIVF():
            coarse = coarse_parameters(index, effort)
            within = {} if coarse is None else {"quantizer_params": coarse}
            return _lists_class(faiss, index)(nprobe=effort.nprobe or 1, **within, **chosen)
        case faiss.IndexHNSW():
            return faiss.SearchParametersHNSW(efSearch=effort.ef_search or 1, **chosen)
        case _:
            return faiss.SearchParameters(**chosen) if chosen else None


def coarse_parameters(index: Any, effort: Effort) -> Any:
    """What an index of inverted lists finds its lists with; ``None``: nothing special."""
    # A coarse graph that keeps fewer candidates than lists are wanted would return fewer.
    return search_parameters(index.quantizer, Effort(ef_search=_coarse_ef(effort)))


@dataclass(frozen=True, slots=True)
class Knob:
    """The one number of an `Effort` that trades time for recall."""

    name: str
    """``nprobe`` or ``ef_search``."""
    fewest: int
    """Below this it changes nothing."""
    most: int
    """Beyond this there is nothing to gain."""


def knob_of(index: Any) -> Knob | None:
    """What can be turned on this index; ``None``: nothing, it answers as it was built."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return knob_of(index.index)
        case faiss.IndexRefine():
            return knob_of(index.base_index)
        case faiss.IndexIVF():
            return Knob("nprobe", 1, index.nlist)
        case faiss.IndexHNSW():
            return Knob("ef_search", _FEWEST_CANDIDATES, max(index.ntotal, _FEWEST_CANDIDATES))
        case _:
            return None


def efforts_beyond(index: Any, effort: Effort) -> Iterator[Effort]:
    """Twice the effort, and twice again, up to all that the index has to give."""
    knob = knob_of(index)
    value = getattr(effort, knob.name) or 1 if knob else 1
    while knob is not None and value < knob.most:
        value = min(2 * value, knob.most)
        yield effort.model_copy(update={knob.name: value})


def _lists_class(faiss: Any, index: Any) -> Any:
    match index:
        case faiss.IndexIVFPQ():
            return faiss.IVFPQSearchParameters
        case faiss.IndexIVFRaBitQ():
            return faiss.IVFRaBitQSearchParameters
        case _:
            return faiss.SearchParametersIVF


def _coarse_ef(effort: Effort) -> int:
    return max(2 * (effort.nprobe or 1), 16)
