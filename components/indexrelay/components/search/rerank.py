"""A function of the user's that judges the best hits again, with a time limit.

It is given the query and hits of its own, and runs on a thread of ours (`functions`). Where it
takes too long, the hits stay as they are and the answer says so; a function that raises something,
or gives neither scores nor ids, is named in an error. So an answer is never quietly without it. A
search for groups may ask it several times, of more hits each time, and all of them share its time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from time import perf_counter
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import RerankFunctionError
from indexrelay.components.functions import OverdueError, TimedCalls
from indexrelay.components.search.hits import HybridHit, HybridQuery
from indexrelay.schemas.diagnostics import describe_error

Rerank = Callable[[HybridQuery, list[HybridHit]], Sequence[float] | Sequence[str]]
"""Gives a number for each hit, in their order, higher for better; or the ids in a new order, the
best first, of which those that it leaves out are dropped. Each hit has its ``text``, its
``payload``, its ``fused`` score, and the rank and score of each half in ``arms``."""
_MOST_RERANKS: Final = 16
"""That run at a time, overdue ones included: twice as many as searches of a service do."""


class Reranker:
    """Calls such functions, of one version; safe to use from many threads."""

    def __init__(self, seconds: float | None) -> None:
        """Each search may take so long; ``None``: as long as it does, on the caller's thread."""
        self._seconds = seconds
        self._calls = TimedCalls("indexrelay-rerank", most=_MOST_RERANKS)

    def of_search(self, function: Rerank, query: HybridQuery) -> "Reranking":
        """The calls of one search."""
        return Reranking(self._calls, self._seconds, function, query)

    def close(self) -> None:
        """End its threads."""
        self._calls.close()


class Reranking:
    """What one search has a function judge, in one round or several that share its time."""

    def __init__(
        self, calls: TimedCalls, seconds: float | None, function: Rerank, query: HybridQuery
    ) -> None:
        """All rounds together may take ``seconds``; ``None``: as long as they do."""
        self._calls = calls
        self._seconds = self._left = seconds
        self._function = function
        self._query = query
        self.degraded: str | None = None
        """That it was late, and so not to be asked again; ``None``: it was not."""

    def judged(self, hits: list[HybridHit]) -> list[HybridHit]:
        """The hits as the function orders or scores them, or as they are where it was late.

        Raises:
            RerankFunctionError: it raised something, or gave neither ids of these hits nor a finite
                number for each.
        """
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        # It may change the list, and go on with the hits while the answer is read.
        own = [hit.twin() for hit in hits]
        try:
            given = self._given(list(own))
        except OverdueError:
            self.degraded = (
                f"{name} took longer than {self._seconds:g} s (rerank_seconds): the order is the "
                "one without it"
            )
            return hits
        except RerankFunctionError:
            raise
        except (Exception, SystemExit) as error:
            raise RerankFunctionError(name, f"it raised {describe_error(error)}") from error
        return _ordered(name, own, given)

    def _given(self, hits: list[HybridHit]) -> Any:
        if self._left is None:
            return self._function(self._query, hits)
        began = perf_counter()
        given = self._calls.call(self._function, self._query, hits, seconds=self._left)
        self._left = max(0.0, self._left - (perf_counter() - began))
        return given


def _ordered(name: str, found: Sequence[HybridHit], given: Any) -> list[HybridHit]:
    """The hits in the order that a function gave for them.

    Raises:
        RerankFunctionError: these are neither ids of the hits nor a finite number for each.
    """
    each_of = _listed(given)
    if each_of is None:
        what = "nothing" if given is None else f"a {type(given).__name__}"
        if isinstance(given, np.ndarray):
            what = f"an array of the shape {given.shape}"
        raise RerankFunctionError(
            name, f"it gave {what}: return a list, with a number for each hit or with their ids"
        )
    if each_of and all(isinstance(each, str) for each in each_of):
        return _in_order(name, [str(each) for each in each_of], found)
    if len(each_of) != len(found):
        raise RerankFunctionError(name, f"it gave {len(each_of)} scores for {len(found)} hits")
    scores = np.empty(len(found))
    for place, each in enumerate(each_of):
        try:
            scores[place] = math.nan if isinstance(each, str) else float(each)
        except (TypeError, ValueError, OverflowError):
            scores[place] = math.nan
        if not math.isfinite(scores[place]):
            reason = f"it gave {each!r:.100} as the score of hit {place}, which is no finite number"
            raise RerankFunctionError(name, reason)
    for hit, score in zip(found, scores.tolist(), strict=True):
        hit.score = score
    return [found[place] for place in np.argsort(-scores, kind="stable").tolist()]


def _listed(given: Any) -> list[Any] | None:
    """What may be scores or ids, in their order; ``None``: this has none, or is not made yet."""
    if isinstance(given, str | bytes | Mapping | AbstractSet | Iterator):
        return None
    if isinstance(given, np.ndarray) and given.ndim != 1:
        return None
    try:
        return list(given)
    except TypeError:
        return None


def _in_order(name: str, ids: Sequence[str], found: Sequence[HybridHit]) -> list[HybridHit]:
    """The hits with these ids; their scores fall from 1 as their places do."""
    hits = {hit.id: hit for hit in found}
    if len(set(ids)) < len(ids):
        raise RerankFunctionError(name, "it gave an id twice")
    unknown = [each for each in ids if each not in hits]
    if unknown:
        raise RerankFunctionError(name, f"it gave {unknown[0]!r:.100}, which is none of the hits")
    for place, each in enumerate(ids):
        hits[each].score = 1 - place / len(ids)
    return [hits[each] for each in ids]
