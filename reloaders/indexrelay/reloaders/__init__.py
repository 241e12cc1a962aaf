"""Readers: from a release to snapshots in the memory of a serving process.

A reader never talks to a rebuilder: whatever it needs to know is in the release. Helpers for web
frameworks are imported from modules of their own: `indexrelay.reloaders.fastapi` and `.flask`; the
HTTP service is `indexrelay.service`.
"""

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.query import Entry, Explanation, Hits, ManyHits, Page
from indexrelay.components.served import Hit
from indexrelay.reloaders.consistency import Consistency
from indexrelay.reloaders.errors import (
    ComponentNotServedError,
    KindNotAllowedError,
    NotFreshError,
    ReloaderStoppedError,
    SnapshotClosedError,
)
from indexrelay.reloaders.reloader import Reloader
from indexrelay.reloaders.snapshot import Snapshot, SwapCallback
from indexrelay.schemas.errors import EmbeddingError
from indexrelay.schemas.filters import InvalidFilterError
from indexrelay.schemas.logs import show_logs

__all__ = [
    "ComponentNotServedError",
    "Consistency",
    "EmbeddingError",
    "Entry",
    "Explanation",
    "Hit",
    "Hits",
    "InvalidFilterError",
    "InvalidQueryError",
    "KindNotAllowedError",
    "ManyHits",
    "NotFreshError",
    "Page",
    "Reloader",
    "ReloaderStoppedError",
    "Snapshot",
    "SnapshotClosedError",
    "SwapCallback",
    "UnknownEntryError",
    "show_logs",
]
