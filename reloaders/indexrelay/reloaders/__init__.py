"""Readers: from a release to snapshots in the memory of a serving process.

Never talks to a rebuilder: what it wants to know is in the release. Web frameworks are met in
modules of their own (`fastapi`, `flask`, `service`), which are imported by whoever uses them.
"""

from indexrelay.reloaders.errors import (
    ComponentNotServedError,
    KindNotAllowedError,
    ReloaderStoppedError,
    SnapshotClosedError,
)
from indexrelay.reloaders.reloader import Reloader
from indexrelay.reloaders.snapshot import Snapshot
from indexrelay.schemas.logs import show_logs

__all__ = [
    "ComponentNotServedError",
    "KindNotAllowedError",
    "Reloader",
    "ReloaderStoppedError",
    "Snapshot",
    "SnapshotClosedError",
    "show_logs",
]
