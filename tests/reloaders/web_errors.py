"""What a web application answers for the errors of its reader, whichever framework it uses."""

from collections.abc import Callable
from typing import Any

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.reloaders import Reloader, Snapshot
from tests.reloaders.bench import Bench

_ERRORS: dict[str, Exception] = {
    "unknown": UnknownEntryError("no"),
    "invalid": InvalidQueryError("a vector of 2 numbers, and the index has 3"),
}
STATUSES = [503, 200, 404, 404, 422]
"""Before the first load; of what is there, misspelt, an unknown entry, and an invalid query."""


def answer(snapshot: Snapshot, what: str) -> str:
    """What the application does for ``GET /WHAT``."""
    if what in _ERRORS:
        raise _ERRORS[what]
    return str(snapshot[what].read())


def statuses(get: Callable[[str], Any], bench: Bench, reader: Reloader) -> list[int]:
    """The statuses of each ``GET``."""
    early = get("/voyager")
    assert early.headers["Retry-After"] == "1"
    bench.publish(voyager="v1")
    reader.step()
    asked = ("voyager", "misspelt", *_ERRORS)
    return [early.status_code, *(get(f"/{what}").status_code for what in asked)]
