"""One query from several examples: what entries should be like, and unlike.

The query is the mean of the wanted vectors, minus a share of the mean of the unwanted ones (Rocchio
1971, without a query of its own to start from). Half is the share that a vector database gives the
unwanted mean, too (Qdrant's ``average_vector``); a larger one leads away from everything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from indexrelay.components.errors import InvalidQueryError
from indexrelay.storage.entries import Vectors

Example = str | ArrayLike
"""An id of an entry, or a vector."""
ExampleList = Sequence[Example] | Vectors
"""Some of either; a matrix is a vector for each row."""
UNLIKE_WEIGHT: Final = 0.5
MOST_EXAMPLES: Final = 1_000
"""Of either sort; the mean of more says little of any of them."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What is searched for."""

    query: Vectors
    """Shape ``(dimension,)``; not prepared as a query yet."""
    ids: tuple[str, ...]
    """The entries among the examples, which are not to be found."""


def examples_of(
    like: ExampleList,
    unlike: ExampleList,
    *,
    entry: Callable[[str], Vectors],
    vector: Callable[[ArrayLike], Vectors],
) -> Examples:
    """The query that examples make.

    Args:
        like: at least one.
        unlike: as many as one likes.
        entry: the vector of an entry; raises `UnknownEntryError`.
        vector: checks a vector, and brings it to the length of those that are indexed.

    Raises:
        UnknownEntryError: an id is not in here.
        InvalidQueryError: there is no ``like``, too many are given, or one is no vector.
    """
    wanted, unwanted = _listed("like", like), _listed("unlike", unlike)
    if not len(wanted):
        raise InvalidQueryError("give at least one id or vector in like")

    def mean(examples: ExampleList) -> Vectors:
        each = [entry(one) if isinstance(one, str) else vector(one) for one in examples]
        found: Vectors = np.array(each, dtype=np.float64).mean(axis=0).astype(np.float32)
        return found

    query = mean(wanted)
    if len(unwanted):
        query = query - UNLIKE_WEIGHT * mean(unwanted)
    ids = tuple(dict.fromkeys(one for one in (*wanted, *unwanted) if isinstance(one, str)))
    return Examples(query=query, ids=ids)


def _listed(what: str, examples: Any) -> ExampleList:
    # A text would be taken letter by letter, and a set has no order.
    matrix = isinstance(examples, np.ndarray) and examples.ndim == 2
    if not matrix and not isinstance(examples, list | tuple):
        raise InvalidQueryError(f"{what} is a list of ids and vectors, not {examples!r:.100}")
    if len(examples) > MOST_EXAMPLES:
        raise InvalidQueryError(f"{what} has at most {MOST_EXAMPLES:,} examples")
    listed: ExampleList = examples
    return listed
