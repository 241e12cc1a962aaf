"""Whether a reader may be sent queries: it serves every component that it is required to serve.

What is required comes from the settings where the component is declared; a component that only the
release knows is required, too. A reader stays ready while it serves an older version because a load
failed: an answer from the last good version is an answer.
"""

import threading
from collections.abc import Collection, Mapping

from indexrelay.schemas.definitions import ComponentDefinition


def required_names(
    released: Collection[str],
    *,
    chosen: Collection[str] | None,
    definitions: Mapping[str, ComponentDefinition],
) -> set[str]:
    """The components without which a reader is not ready.

    Args:
        released: what the release names.
        chosen: what this reader serves; ``None``: everything.
        definitions: what the reader's settings declare.
    """
    names = set(definitions) | set(released)
    if chosen is not None:
        names &= set(chosen)
    return {name for name in names if name not in definitions or definitions[name].required}


class Readiness:
    """Whether the reader is ready, for those who ask and for those who wait."""

    def __init__(self) -> None:
        self._ready = threading.Event()

    def __bool__(self) -> bool:
        return self._ready.is_set()

    def put(self, *, ready: bool) -> None:
        """Say how it is."""
        if ready:
            self._ready.set()
        else:
            self._ready.clear()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until it is ready; whether it is."""
        return self._ready.wait(timeout_seconds)

    def copied(self) -> "Readiness":
        """The same in a forked child, whose locks must be its own."""
        copy = Readiness()
        copy.put(ready=bool(self))
        return copy
