"""Time by hand, and readers and rebuilders that say what a test wants them to."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from indexrelay.schemas.messages import (
    ComponentFailure,
    ComponentState,
    LoadOutcome,
    ReaderState,
    RebuilderState,
)
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys, Presence

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        """Stands for sleeping; never stands still, so that no loop can spin."""
        self.seconds += max(seconds, 0.001)


class Readers:
    """Publishes what readers and rebuilders would say of themselves."""

    def __init__(self, connection: Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._keys = Keys("indexrelay")

    def say(self, state: ReaderState, *, stamped: bool = True) -> None:
        """As a reader of versions that were built from the catalog says it."""
        if stamped:
            state = with_stamps(state, self._catalog)
        Presence(self._connection, self._keys, "reader").publish(
            state.member, state.model_dump_json().encode(), ttl_seconds=60
        )

    def say_rebuilder(self, state: RebuilderState) -> None:
        Presence(self._connection, self._keys, "rebuilder").publish(
            state.member, state.model_dump_json().encode(), ttl_seconds=60
        )


def with_stamps(state: ReaderState, catalog: Catalog) -> ReaderState:
    """The same, each component with the stamps of the commits that it covers."""
    components = {}
    for name, component in state.components.items():
        stamps: dict[str, str] = {}
        for collection, generation in component.covers.items():
            known = catalog.collections.log(collection, [generation]).stamps
            stamps |= {collection: known[generation]} if generation in known else {}
        components[name] = component.model_copy(update={"stamps": stamps})
    return state.model_copy(update={"components": components})


def reader(
    name: str,
    generations: Mapping[str, int | None],
    *,
    epoch: str,
    release: int = 1,
    instance: str = "",
) -> ReaderState:
    """A reader that serves these components at these generations; ``None``: its load failed."""
    components = {
        component: ComponentState(
            outcome=LoadOutcome.FAILED if generation is None else LoadOutcome.APPLIED,
            covers={} if generation is None else {"tracks": generation},
            epochs={} if generation is None else {"tracks": epoch},
            error="no memory" if generation is None else None,
        )
        for component, generation in generations.items()
    }
    return ReaderState(
        reader=name,
        host="here",
        pid=1,
        instance=instance,
        started_at=NOW,
        updated_at=NOW,
        ready=True,
        release=release,
        components=components,
    )


def rebuilder(**targets: int) -> RebuilderState:
    failures = {
        name: ComponentFailure(
            error="the gate recall failed", failures=1, targets={"tracks": target}, failed_at=NOW
        )
        for name, target in targets.items()
    }
    return RebuilderState(
        rebuilder="r", host="here", pid=2, started_at=NOW, updated_at=NOW, release=1,
        failures=failures,
    )  # fmt: skip
