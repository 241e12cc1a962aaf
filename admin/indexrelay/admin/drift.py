"""How far collections have moved since what is released of them: a figure for people, at leisure.

It is counted and measured on a thread of its own, with the least claim on the processor and never
with a look that somebody waits for: how many entries changed (up to a count), and how far the mean
of a sample of them lies from that of a sample of the released ones, in a vector index that has the
collection. Nothing is computed again before a collection, or what is released of it, has changed.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.admin.document import DriftState
from indexrelay.admin.version_cache import Named, VersionCache
from indexrelay.health.facts import Facts
from indexrelay.operations.observer import Observation
from indexrelay.schemas.clock import Background
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.settings import CatalogSource, Metric, Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Vectors

_log = get_logger(__name__)

MOST_COUNTED: Final = 200_000
"""Changed entries; where there are more, this many are said."""
SAMPLE_ROWS: Final = 1000
"""Changed entries whose vectors are looked at."""
PERIOD_SECONDS: Final = 10.0
"""How soon after a change it is computed, and how often at most."""
_NICENESS: Final = 19
"""As in nice(2): the least claim."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the figure of a collection follows from."""

    epoch: str
    generation: int
    covered: int
    """The least generation that a released version covers."""
    index: tuple[str, str] | None
    """A released vector index of it, with its version."""


class DriftWatch:
    """Keeps the figures; `turn` belongs to one thread, `of` to another."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        versions: VersionCache,
        watched: Callable[[], bool] = lambda: True,
    ) -> None:
        """What is handed in stays the caller's to close.

        Args:
            watched: whether somebody looks; nothing is computed, or opened, for nobody.
        """
        self._watched = watched
        self._settings = settings
        self._catalog = catalog
        self._versions = versions
        self._seen: Observation | None = None
        self._asked: dict[str, _Asked] = {}
        self._known: Mapping[str, DriftState] = {}
        self._released: dict[tuple[str, str], Vectors | None] = {}
        self._failed = LogOnce()
        self._stands_back = False
        self._thread = Background(self.turn, name="admin-drift")

    def start(self) -> None:
        """Start the thread; safe twice."""
        self._thread.start()

    def stop(self) -> None:
        """Return when it has ended; safe twice and before `start`."""
        self._thread.stop()

    def of(self, seen: Observation) -> Mapping[str, DriftState]:
        """By collection: what is known now; this look is what is computed from next."""
        self._seen = seen
        return self._known

    def turn(self) -> float:
        """Compute what has changed; the seconds until the next time."""
        self._stand_back()
        seen = self._seen
        if seen is None or not self._watched():
            return 1.0
        asked = _asked_of(self._settings, seen.facts)
        found = {name: each for name, each in self._known.items() if name in asked}
        failed: dict[str, str] = {}
        for name, each in asked.items():
            if name in found and self._asked.get(name) == each:
                continue
            try:
                found[name] = self._computed(name, each, seen)
            except (SQLAlchemyError, IndexRelayError, OSError) as error:
                found.pop(name, None)
                failed[name] = str(error)
        for name, why in self._failed.new(failed).items():
            _log.debug("drift.unknown", collection=name, error=why)
        self._asked, self._known = asked, found
        return PERIOD_SECONDS

    def _computed(self, name: str, asked: _Asked, seen: Observation) -> DriftState:
        changed = self._catalog.entries.count_changes(
            name, after=asked.covered, most=MOST_COUNTED
        ).entries
        entries = seen.verdict.collections[name].entries
        return DriftState(
            changed_entries=changed,
            changed_ratio=round(changed / max(entries or 0, 1), 6),
            centroid_shift=self._shift(name, asked) if changed else 0.0,
            at=seen.at,
        )

    def _shift(self, name: str, asked: _Asked) -> float | None:
        from indexrelay.components.vector_index.comparison import centroid_shift

        released = self._released_vectors(asked.index)
        if released is None or not len(released):
            return None
        with self._catalog.entries.snapshot(name) as snapshot:
            changes = snapshot.changes(asked.covered, rows=SAMPLE_ROWS)
            chunk = None if changes is None else next(iter(changes), None)
            if chunk is None or not len(chunk.upserts):
                return None
            changed = chunk.upserts.vectors
        if changed.shape[1] != released.shape[1]:
            return None
        if self._settings.collections[name].metric is Metric.COSINE:
            changed, released = _of_length_one(changed), _of_length_one(released)
        return round(centroid_shift(changed, released), 4)

    def _released_vectors(self, index: tuple[str, str] | None) -> Vectors | None:
        """A sample of a released version, shape ``(n, dimension)``; the newest is remembered."""
        from indexrelay.components.vector_index.comparison import spread_vectors

        if index is None:
            return None
        if index not in self._released:
            component, version = index
            release = self._versions.found(component, version).release
            named = Named(component=component, version=version, release=release)
            opened = self._versions.open(named)  # it stays open for as long as this is held
            contents = _contents_of(opened.value)
            others = {key: each for key, each in self._released.items() if key[0] != component}
            sample = None if contents is None else spread_vectors(contents)
            self._released = {**others, index: sample}
        return self._released[index]

    def _stand_back(self) -> None:
        """Give this thread the least claim on the processor; on Linux each has its own."""
        if not self._stands_back and threading.current_thread() is not threading.main_thread():
            self._stands_back = True
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            except OSError as error:
                _log.debug("drift.not_niced", error=str(error))


def _of_length_one(vectors: Vectors) -> Vectors:
    """Where only directions count."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _contents_of(value: Any) -> Any:
    """The rows of a vector index, alone or within a search; ``None``: it has none."""
    from indexrelay.components.search.hybrid import HybridSearch
    from indexrelay.components.vector_index.search import VectorSearch

    found = value.by_vector if isinstance(value, HybridSearch) else value
    return found.contents if isinstance(found, VectorSearch) and len(found) else None


def _asked_of(settings: Settings, facts: Facts) -> dict[str, _Asked]:
    """By collection of the catalog: what its figure follows from; absent: nothing is released."""
    found: dict[str, _Asked] = {}
    for name, declared in settings.collections.items():
        source = facts.sources.get(name)
        if source is None or not isinstance(declared.source, CatalogSource):
            continue
        versions = {
            component: manifest
            for component, manifest in facts.versions.items()
            if name in manifest.covers and manifest.epochs.get(name) == source.epoch
        }
        if not versions:
            continue
        indexes = sorted(
            component
            for component in versions
            if component in facts.definitions
            and name in facts.definitions[component].inputs
            and facts.definitions[component].kind in ("vector_index", "search")
        )
        version = facts.served_version(indexes[0]) if indexes else None
        found[name] = _Asked(
            epoch=source.epoch,
            generation=source.generation,
            covered=min(manifest.covers[name] for manifest in versions.values()),
            index=None if version is None else (indexes[0], version),
        )
    return found
