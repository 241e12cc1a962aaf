"""What an HTTP client is told of an error: one table for the service, FastAPI and Flask."""

from dataclasses import dataclass, field
from typing import Final

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.reloaders.errors import ComponentNotServedError, ReloaderStoppedError
from indexrelay.reloaders.reloader import Reloader
from indexrelay.schemas.errors import IndexRelayError

RETRY_AFTER_SECONDS: Final = 1
"""A first load takes about as long; a proxy then asks another process or this one again."""

ERRORS: Final[tuple[type[IndexRelayError], ...]] = (
    ComponentNotServedError,
    InvalidQueryError,
    ReloaderStoppedError,
    UnknownEntryError,
)
"""Those that have an answer; whatever else is raised is a fault of the server."""


@dataclass(frozen=True, kw_only=True)
class HttpError:
    """A status, a sentence, and headers."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


def http_error(error: Exception, reloader: Reloader) -> HttpError:
    """What to answer: 404 for an unknown id or component, 422 for a query that cannot be asked, and
    503 with ``Retry-After`` while the reader is not ready, or was stopped."""
    detail = str(error)
    match error:
        case UnknownEntryError():
            return HttpError(status=404, detail=detail)
        case InvalidQueryError():
            return HttpError(status=422, detail=detail)
        case ComponentNotServedError() if reloader.ready:
            return HttpError(status=404, detail=detail)
        case _:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return HttpError(status=503, detail=detail, headers=headers)
