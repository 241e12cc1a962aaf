"""How the hits of any search are arranged: so many of each group, and hits that differ.

A search that is asked for groups or for diversity finds more candidates than hits are wanted.
`Arrangement` drops what its groups have no place for, and then chooses by marginal relevance
(`ranking`). Relevance is the score, scaled so that the best candidate has 1 and the last one 0;
similarity is the cosine of two candidates' vectors. So ``diversity`` means the same whatever the
metric is and whatever the scores are of.
"""

import math
import numbers
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import numpy as np

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.ranking import gather, marginal_relevance, scaled, within_groups
from indexrelay.components.served import Hit, checked_k
from indexrelay.storage.entries import Vectors

_POOL: Final = 5
"""Candidates for each hit that is wanted, to choose different ones from."""
_SMALLEST_POOL: Final = 50
_GROUPED: Final = 2
"""Candidates for each hit at first, where groups may drop some."""

HitT = TypeVar("HitT", bound=Hit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What was asked for besides the best hits; `of` checks it."""

    group_by: str | None = None
    per_group: int = 1
    diversity: float = 0.0

    @classmethod
    def of(cls, *, group_by: Any = None, per_group: Any = 1, diversity: Any = None) -> Self | None:
        """From the arguments of a search; ``None``: nothing is to be arranged.

        Raises:
            InvalidQueryError: one of them is not what it has to be.
        """
        if group_by is None and diversity is None:
            if per_group != 1:
                raise InvalidQueryError("per_group goes with group_by")
            return None
        if group_by is not None and not isinstance(group_by, str):
            raise InvalidQueryError(f"group_by is a field's name, not {group_by!r:.100}")
        try:
            per_group = checked_k(per_group)
        except InvalidQueryError:
            reason = f"per_group is a whole number and at least 1, not {per_group!r:.100}"
            raise InvalidQueryError(reason) from None
        return cls(group_by=group_by, per_group=per_group, diversity=_checked_share(diversity))

    def search(
        self,
        find: Callable[[int], Sequence[HitT]],
        *,
        k: int,
        entries: int,
        groups: Callable[[Sequence[HitT], str], Sequence[Hashable | None]],
        vectors: Callable[[Sequence[HitT]], Vectors],
        first: int = 0,
    ) -> list[HitT]:
        """The ``k`` hits, or as many as there are.

        Args:
            find: the best so many, the best first; fewer only where there are no more.
            k: at least 1.
            entries: how many entries there are.
            groups: the group of each hit by a field; ``None``: it has none.
            vectors: of the hits, shape ``(n, dimension)``.
            first: so many candidates at least.
        """

        def arrange(found: Sequence[HitT]) -> list[HitT]:
            hits = list(found)
            if self.group_by is not None:
                places = within_groups(groups(hits, self.group_by), self.per_group)
                hits = [hits[place] for place in places]
            if not self.diversity:
                return hits[:k]
            unit = _unit(vectors(hits))
            order = marginal_relevance(
                scaled([hit.score for hit in hits]),
                lambda place: unit @ unit[place],
                diversity=self.diversity,
                k=k,
            )
            return [hits[place] for place in order.tolist()]

        if self.group_by is not None:
            first = max(first, _GROUPED * k)
        if self.diversity:
            first = max(first, _POOL * k, _SMALLEST_POOL)
        return gather(find, arrange, k=k, first=first, most=entries)


def payload_groups(hits: Sequence[Hit], field: str) -> list[Hashable | None]:
    """The value that each hit's payload has under ``field``; ``None``: it has none.

    Raises:
        InvalidQueryError: a value is neither a text nor a number nor a boolean.
    """
    groups: list[Hashable | None] = []
    for hit in hits:
        payload = hit.payload
        value = payload.get(field) if isinstance(payload, dict) else None
        if isinstance(value, list | dict):
            raise InvalidQueryError(
                f"{field} of {hit.id!r:.100} is a {type(value).__name__}: hits are grouped by a "
                "text, a number, or true and false"
            )
        groups.append(value)
    return groups


def _checked_share(diversity: Any) -> float:
    if diversity is None:
        return 0.0
    if isinstance(diversity, numbers.Real) and not isinstance(diversity, bool):
        share = float(diversity)
        if math.isfinite(share) and 0 <= share <= 1:
            return share
    raise InvalidQueryError(f"diversity is a number from 0 to 1, not {diversity!r:.100}")


def _unit(vectors: Vectors) -> Vectors:
    """At unit length; what has none stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
