"""What can go wrong with serving, what to do about it, and what an HTTP client is answered."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.schemas.errors import EmbeddingError, IndexRelayError


class ReloaderStoppedError(IndexRelayError):
    """Raised when a snapshot is asked of a reloader that was stopped; start it again first."""

    def __init__(self) -> None:
        super().__init__("this reloader was stopped; start() it to serve again")


class SnapshotClosedError(IndexRelayError):
    """Raised when a snapshot is used after its ``with`` ended; acquire one for each query."""

    def __init__(self) -> None:
        super().__init__("this snapshot was given back; use it inside its with statement")


class ComponentNotServedError(IndexRelayError, KeyError):
    """Raised when a snapshot does not hold a component.

    It is misspelt, not released yet, its first load failed, or ``reader.components`` leaves it out:
    the reader's state says which.
    """

    def __init__(self, component: str, served: Iterable[str] | None) -> None:
        """``served``: what is; ``None``: whoever is answered is not to know."""
        super().__init__(component)
        self.component = component
        self.served = None if served is None else tuple(sorted(served))

    def __str__(self) -> str:
        if self.served is None:
            return f"no component {self.component!r} is served here"
        there = ", ".join(self.served) or "nothing yet"
        return f"no component {self.component!r} is served here; there is {there}"


class KindNotAllowedError(IndexRelayError):
    """Raised when a manifest names a class that this reader's settings do not.

    A manifest is data and must not decide what is imported. Install the kind as an entry point, or
    declare the component with this kind in the reader's own settings.
    """

    def __init__(self, component: str, kind: str) -> None:
        super().__init__(
            f"{component} was built as {kind!r}, which is no installed kind; "
            f"to serve it, declare kind = {kind!r} under [components.{component}] here, too"
        )
        self.component = component
        self.kind = kind


class MemoryBudgetError(IndexRelayError):
    """Raised when a version would not fit into the reader's memory budget; it was not loaded.

    Raise ``reader.memory_budget_bytes``, serve fewer components here (``reader.components``), or
    build a smaller index.
    """

    def __init__(self, component: str, *, needed: int, budget: int) -> None:
        super().__init__(
            f"{component} was not loaded: with it versions of {needed:,} bytes would be open, and "
            f"reader.memory_budget_bytes is {budget:,}"
        )
        self.component = component
        self.needed = needed
        self.budget = budget


class AnswersDifferError(IndexRelayError):
    """Raised when a canary's new version gives too many other answers to its last queries."""

    def __init__(self, component: str, *, overlap: float, least: float) -> None:
        super().__init__(
            f"{component} answers the last queries otherwise than the version before: of the best "
            f"ten {overlap:.2f} are the same, and releases.canary_min_overlap is {least:g}"
        )
        self.component = component
        self.overlap = overlap
        self.least = least


@dataclass(frozen=True, kw_only=True)
class CollectionBehind:
    """A collection of which a component does not contain what was asked for."""

    component: str
    collection: str
    generation: int
    """What the component contains."""
    wanted: int | None
    """What was asked for; ``None``: nobody could say."""
    reason: str

    def __str__(self) -> str:
        asked = "" if self.wanted is None else f", and {self.wanted} was asked for"
        return (
            f"{self.component} has {self.collection} up to generation {self.generation}{asked}: "
            f"{self.reason}"
        )


class NotFreshError(IndexRelayError):
    """Raised when a reader does not contain what a query asked for, and did not in time.

    Ask again, ask another reader, or ask for less: ``eventual`` is always answered.
    """

    def __init__(self, behind: Iterable[CollectionBehind]) -> None:
        self.behind = tuple(behind)
        super().__init__("; ".join(map(str, self.behind)) or "it was not fresh enough in time")


HTTP_ERRORS: Final[tuple[type[IndexRelayError], ...]] = (
    ComponentNotServedError,
    EmbeddingError,
    InvalidQueryError,
    NotFreshError,
    ReloaderStoppedError,
    UnknownEntryError,
)
"""Those that have an answer of their own; whatever else is raised is a fault of the server."""
RETRY_AFTER_SECONDS: Final = 1
"""A first load takes about as long; a proxy then asks another process or this one again."""


@dataclass(frozen=True, kw_only=True)
class HttpError:
    """A status, a sentence, and headers."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


def http_error(error: Exception, *, ready: bool) -> HttpError:
    """What to answer, in the service, FastAPI and Flask alike.

    404 for an unknown id or component, 422 for a query that cannot be answered, and 503 with
    ``Retry-After`` while the reader is not ready, was stopped, or is behind what was asked for, and
    where a text got no vector.

    Args:
        error: one of `HTTP_ERRORS`.
        ready: whether the reader is.
    """
    detail = str(error)
    match error:
        case UnknownEntryError():
            return HttpError(status=404, detail=detail)
        case InvalidQueryError():
            return HttpError(status=422, detail=detail)
        case ComponentNotServedError() if ready:
            return HttpError(status=404, detail=detail)
        case _:
            if isinstance(error, EmbeddingError):  # its sentence repeats what the embedder said
                detail = (
                    f"the embedder of {error.collection} gave no vector of this text; ask again in "
                    "a moment, or by vector"
                )
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return HttpError(status=503, detail=detail, headers=headers)
