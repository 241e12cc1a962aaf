"""One version of one component in memory, closed when nobody uses it any more.

Snapshots share the components that did not change between them, so what is counted is the users of
each component and not those of each snapshot. CPython counts them: a component is held by every
snapshot that contains it, and when the last of these lets go, `weakref.finalize` closes the value.
So borrowing costs a query no lock and no counter of its own, and nothing can be closed under it.
"""

import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from indexrelay.components.kind import Served
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.origin import told
from indexrelay.schemas.versions import VersionManifest

log = get_logger(__name__)


class ServedComponent:
    """What `Kind.load` gave, and what it was loaded from; never changed after it is made."""

    __slots__ = (
        *("__weakref__", "applied_at", "inodes", "manifest", "seconds", "value", "version"),
    )

    def __init__(
        self,
        value: Served,
        *,
        version: str,
        manifest: VersionManifest,
        inodes: Mapping[str, int],
        seconds: float,
        applied_at: datetime,
    ) -> None:
        self.value: Any = value
        self.version = version
        self.manifest = manifest
        self.inodes = inodes
        """By the digest of each blob: the file that it was loaded from, whatever is there now."""
        self.seconds = seconds
        """How long the load took, warm-up included."""
        self.applied_at = applied_at
        closing = weakref.finalize(self, _close, value, manifest.component, version)
        # A process that ends takes its files and maps along; queries may still be running then.
        closing.atexit = False

    @property
    def name(self) -> str:
        """The component's name."""
        return self.manifest.component

    @property
    def covers(self) -> Mapping[str, int]:
        """For each collection at its root: the generation that it contains."""
        return self.manifest.covers


def _close(value: Served, component: str, version: str) -> None:
    """Close a value on the thread of its last user, whose query must not fail for it."""
    try:
        value.close()
    except (Exception, SystemExit) as error:
        log.exception(
            "component.close_failed", component=component, version=version, error=told(error)
        )
    else:
        log.debug("component.closed", component=component, version=version)
