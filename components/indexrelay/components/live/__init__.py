"""What was committed since the version that is served, laid over it.

`LiveRows` holds the changes of one collection, and `LiveView` is what a query sees of them. A
`Released` is a version that takes changes: of a vector index (`vectors`), of a text index (`texts`)
or of both together. Who fills the rows is a reader (`indexrelay.reloaders.live`).
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from indexrelay.components.live.rows import LiveView

LIVE_KINDS: Final = frozenset({"search", "text_index", "vector_index"})
"""Kinds over whose versions changes can be laid."""


class Released(Protocol):
    """A version as changes are laid over it; safe to use from many threads."""

    def with_changes(self, view: "LiveView") -> Any:
        """What answers for the version and a view that goes on from it."""
        ...

    def prepare(self, view: "LiveView") -> None:
        """Do now what the first query of a view would have to, on the thread of the writer."""
        ...

    def index_rows(self, view: "LiveView") -> bool:
        """Index rows of a view that are not yet, if that pays; whether any were.

        May take seconds; called by one thread at a time, which is not that of the writer.
        """
        ...


class ReleasedSearch:
    """A version of a search component: its two halves, each with the same changes."""

    def __init__(self, index: Any, by_vector: Released, by_text: Released) -> None:
        self._index = index
        self._by_vector = by_vector
        self._by_text = by_text

    def with_changes(self, view: "LiveView") -> Any:
        """The same search over halves that have the changes."""
        laid = copy.copy(self._index)
        laid.by_vector = self._by_vector.with_changes(view)
        laid.by_text = self._by_text.with_changes(view)
        return laid

    def prepare(self, view: "LiveView") -> None:
        """Prepare both halves."""
        self._by_vector.prepare(view)
        self._by_text.prepare(view)

    def index_rows(self, view: "LiveView") -> bool:
        """Index the rows of both halves."""
        return self._by_vector.index_rows(view) | self._by_text.index_rows(view)


def released_of(
    kind: str, index: Any, covers: int, parameters: Mapping[str, Any] | None = None
) -> Released | None:
    """A version of one of the `LIVE_KINDS`; ``None``: it takes no changes.

    Args:
        kind: what it is.
        index: what its kind serves.
        covers: the generation that it contains of its collection.
        parameters: of the component, as far as they were given.
    """
    given = parameters or {}
    match kind:
        case "vector_index":
            from indexrelay.components.live.vectors import MIN_RECALL, ReleasedVectors

            min_recall = float(given.get("min_recall", MIN_RECALL))
            return ReleasedVectors(index, covers, min_recall=min_recall)
        case "text_index":
            from indexrelay.components.live.texts import ReleasedTexts

            analyser = index.analyser
            # A version from before there was an analyser cuts texts in a way of its own.
            return None if analyser is None else ReleasedTexts(index, covers, analyser)
        case "search":
            by_text = released_of("text_index", index.by_text, covers)
            by_vector = released_of("vector_index", index.by_vector, covers, given.get("vector"))
            if by_text is None or by_vector is None:
                return None
            return ReleasedSearch(index, by_vector, by_text)
    return None


__all__ = ["LIVE_KINDS", "Released", "released_of"]
