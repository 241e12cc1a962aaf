"""The hits of a search of both halves, where each half found them, and what was asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from indexrelay.components.query import Hits
from indexrelay.components.served import Hit
from indexrelay.storage.entries import Vectors


@dataclass(frozen=True, slots=True)
class ArmHit:
    """Where one half found an entry."""

    rank: int | None
    """Among the half's own hits, from 1; of groups of one half alone: among the answer's. ``None``:
    beyond the depth that was searched, where only its score was asked for."""
    score: float
    """As the half has it: see `VectorSearch` and `TextSearch`."""


class HybridHit(Hit):
    """An entry that was found, and by which half.

    ``score`` is what ``rerank`` gave it, where there is such a function; else the fused score,
    where both halves were asked; else that of the one half.
    """

    __slots__ = ("_found", "arms", "fused", "text")

    def __init__(
        self, found: Hit, score: float, arms: Mapping[str, ArmHit], fused: float | None = None
    ) -> None:
        """``found`` is the hit of a half: its payload stays unparsed until it is read."""
        self.id = found.id
        self.score = score
        self._found = found
        self.arms = arms
        """``vector`` and ``text``, as far as they found it, or were asked for its score."""
        self.fused = fused
        """What the fusion gave it; ``None``: only one half was asked."""
        self.text: str | None = None
        """The entry's text, where ``rerank`` was given the hit; else ``None``."""

    @property
    def payload(self) -> Any:
        """The entry's JSON payload, parsed; ``None`` where it has none.

        Raises:
            CorruptFileError: what is stored is not JSON.
        """
        return self._found.payload

    @payload.setter
    def payload(self, payload: Any) -> None:
        self._found.payload = payload

    @property
    def payload_json(self) -> bytes | None:
        """The payload as JSON in UTF-8, unparsed where it was not read; ``None``: none."""
        return self._found.payload_json

    def twin(self) -> "HybridHit":
        """The same hit once more, of the same payload: a score that one gets the other has not."""
        twin = HybridHit(self._found, self.score, dict(self.arms), self.fused)
        twin.text = self.text
        return twin

    def __repr__(self) -> str:
        said = f"id={self.id!r}, score={self.score!r}, payload={self.payload!r}"
        return f"HybridHit({said}, arms={dict(self.arms)!r}, fused={self.fused!r})"

    def __reduce__(self) -> tuple[type[Hit], tuple[object, ...]]:
        plain = Hit(self.id, self.score, self.payload)
        return HybridHit, (plain, self.score, self.arms, self.fused)


class HybridHits(Hits):
    """The hits of one query, the best first: every one is a `HybridHit`."""

    if TYPE_CHECKING:  # a list of hits cannot be said to be one of hybrid hits

        def __iter__(self) -> Iterator[HybridHit]: ...
        @overload  # type: ignore[override]
        def __getitem__(self, place: SupportsIndex, /) -> HybridHit: ...
        @overload
        def __getitem__(self, place: slice, /) -> list[HybridHit]: ...
        def __getitem__(self, place: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridQuery:
    """What was asked for, as ``rerank`` is given it."""

    vector: Vectors | None
    """Shape ``(dimension,)``; ``None``: only a text was given."""
    text: str | None
    """``None``: only a vector was given."""
