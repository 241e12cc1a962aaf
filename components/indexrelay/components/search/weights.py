"""How much each half of a search counts, chosen by golden queries that ask both.

A fusion of scores adds what each half gives an entry, by one number: the share of the vectors.
Every share from 0 to 1 is tried on queries whose answers people have judged, and the one of the
best nDCG is taken. Few queries are enough for one number (Bruch, Gai and Ingber, "An Analysis of
Fusion Functions for Hybrid Retrieval", TOIS 2023), and 0 and 1 are among the shares: on these
queries both halves never find less than the better one alone.

What is chosen on queries looks better on them than on others. So each half of the queries also
chooses a share for the other half, and that figure stands beside the first.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.formats.mapped_array import SmallDocument
from indexrelay.components.golden import GoldenQuery, ndcg

FEWEST: Final = 20
"""Queries from which a share is learned; from fewer it would be chance."""
MOST: Final = 500
"""Queries that are asked; more hardly move one number, and each takes two searches."""
SHARES: Final = np.linspace(0, 1, 41)
"""Of the vectors."""
Shares = Mapping[str, Mapping[str, float]]
"""What ``vector`` and ``text`` give each id."""


class LearnedWeights(SmallDocument):
    """What was chosen, and what it is worth; the content of a version's ``weights.json``."""

    vector: float = Field(ge=0, le=1)
    text: float = Field(ge=0, le=1)
    golden: str
    """The digest of the file of queries."""
    k: int
    queries: NonNegativeInt
    """That were asked."""
    ndcg: float
    """nDCG@k of both halves with these weights, on the queries that chose them."""
    ndcg_held_out: float
    """The same with the weights that the other half of the queries would choose."""
    ndcg_vector: float
    ndcg_text: float
    """nDCG@k of one half alone."""

    @property
    def weights(self) -> dict[str, float]:
        """As a search takes them."""
        return {"vector": self.vector, "text": self.text}


@dataclass(frozen=True)
class Learning:
    """The nDCG of every share; the rows are queries."""

    gains: NDArray[np.float64]
    """Shape ``(queries, len(SHARES))``."""

    @classmethod
    def of(
        cls,
        queries: Sequence[GoldenQuery],
        *,
        k: int,
        shares: Callable[[GoldenQuery], Shares],
        known: Callable[[str], bool],
    ) -> Self:
        """Ask the queries; those that expect nothing that is there, or cannot be asked, are left
        out.

        Args:
            queries: that ask by text and by vector.
            k: of nDCG@k.
            shares: what each half gives the candidates of one query.
            known: whether an entry is in the collection.
        """
        rows = []
        for query in queries:
            grades = {each: grade for each, grade in query.grades.items() if known(each)}
            if not any(grades.values()):
                continue
            with suppress(InvalidQueryError):  # the gate of the golden queries names it
                rows.append(_gains(shares(query), grades, k))
        return cls(np.array(rows).reshape(-1, len(SHARES)))

    def best(self, rows: slice = slice(None)) -> int:
        """Which of `SHARES` these queries choose: the middle of those that are best."""
        means = self.gains[rows].mean(axis=0)
        best = np.flatnonzero(means >= means.max() - 1e-12)
        return int(best[len(best) // 2])

    def held_out(self) -> float:
        """nDCG where each half of the queries is asked with what the other half chose."""
        even, odd = slice(0, None, 2), slice(1, None, 2)
        found = [self.gains[odd, self.best(even)], self.gains[even, self.best(odd)]]
        return float(np.concatenate(found).mean())


def learned(
    queries: Sequence[GoldenQuery],
    *,
    k: int,
    golden: str,
    shares: Callable[[GoldenQuery], Shares],
    known: Callable[[str], bool],
) -> LearnedWeights | None:
    """The weights that golden queries choose; ``None``: too few ask by text and by vector.

    Args:
        queries: all of them; of more than `MOST` evenly spread ones are asked.
        k: of nDCG@k.
        golden: the digest of the file of queries.
        shares: see `Learning.of`.
        known: see `Learning.of`.
    """
    both = [query for query in queries if query.text is not None and query.vector is not None]
    asked = both[:: -(-len(both) // MOST)] if both else []
    learning = Learning.of(asked, k=k, shares=shares, known=known)
    if len(learning.gains) < FEWEST:
        return None
    best = learning.best()
    means = learning.gains.mean(axis=0)
    return LearnedWeights(
        vector=round(float(SHARES[best]), 4),
        text=round(1 - float(SHARES[best]), 4),
        golden=golden,
        k=k,
        queries=len(learning.gains),
        ndcg=float(means[best]),
        ndcg_held_out=learning.held_out(),
        ndcg_vector=float(means[-1]),
        ndcg_text=float(means[0]),
    )


def _gains(shares: Shares, grades: Mapping[str, float], k: int) -> list[float]:
    """nDCG@k of one query for each of `SHARES`."""
    ids = sorted(shares["vector"].keys() | shares["text"].keys())
    vector = np.array([shares["vector"].get(each, 0.0) for each in ids])
    text = np.array([shares["text"].get(each, 0.0) for each in ids])
    found = []
    for share in SHARES.tolist():
        order = np.argsort(-(share * vector + (1 - share) * text), kind="stable")[:k]
        found.append(ndcg([ids[place] for place in order.tolist()], grades, k=k))
    return found
