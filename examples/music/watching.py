"""What an operator sees: what each reader says of itself."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from indexrelay.schemas import ComponentState, LoadOutcome, ReaderState, Settings
from indexrelay.streams import Connection, Keys, members_of

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PLACE: Final = re.compile(r" \(/[^)]*\)")
_MARKS: Final = {
    LoadOutcome.APPLIED: "✓",
    LoadOutcome.UNCHANGED: "✓",
    LoadOutcome.FAILED: "✗",
    LoadOutcome.SUPERSEDED: "⚠",
}


class Watcher:
    """Reads Redis, and changes nothing."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._keys = Keys(settings.namespace)
        self._connection = connection

    def states_at(self, release: int, readers: Collection[str]) -> dict[str, ReaderState]:
        """The readers' states once each has worked through ``release``; waits for that."""

        def look() -> dict[str, ReaderState] | None:
            states = members_of(self._connection, self._keys, ReaderState).known.values()
            arrived = {state.reader: state for state in states if state.release >= release}
            return arrived if arrived.keys() >= set(readers) else None

        return _awaited(look, what=f"release {release} in {', '.join(readers)}")


def print_states(states: Mapping[str, ReaderState]) -> list[str]:
    """Print each reader's components and a summary; returns what failed, as ``reader/component``.

    Everything comes from what the readers reported of their own loads.
    """
    failed = []
    for reader, state in states.items():
        print(f"  {reader}: release {state.release}, {'ready' if state.ready else 'not ready'}")
        for name, component in state.components.items():
            print(f"    {_line(name, component)}")
            if component.outcome is LoadOutcome.FAILED:
                failed.append(f"{reader}/{name}")
    loads = sum(len(state.components) for state in states.values())
    print(f"  {loads - len(failed)} of {loads} succeeded; failed: {', '.join(failed) or 'none'}")
    return failed


def _line(name: str, state: ComponentState) -> str:
    mark = _MARKS[state.outcome]
    if state.outcome is LoadOutcome.FAILED:
        return f"{mark} {name:<18}{_stable(state.error)}; still serves {_covers(state)}"
    return f"{mark} {name:<18}{state.entries} entries, {_covers(state)}"


def _covers(state: ComponentState) -> str:
    return ", ".join(f"{name} at generation {number}" for name, number in state.covers.items())


def _stable(error: str | None) -> str:
    """The error as it stands, but for what differs from run to run."""
    return _DIGEST.sub("…", _PLACE.sub("", error or "unknown"))


def _awaited(look: Callable[[], T | None], *, what: str) -> T:
    """What ``look`` gives, as soon as it gives something."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {_PATIENCE_SECONDS:.0f} s")
        time.sleep(_LOOK_SECONDS)
    return found
