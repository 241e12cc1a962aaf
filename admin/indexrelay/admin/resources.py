"""What the routes of the admin API work with: one value, made once by the service."""

from dataclasses import dataclass

from indexrelay.admin.access import Access, Caller
from indexrelay.admin.backups import BackupWork
from indexrelay.admin.history import History
from indexrelay.admin.state import StateWatch
from indexrelay.admin.stream import EventStream
from indexrelay.admin.version_cache import VersionCache
from indexrelay.producers import Producer
from indexrelay.producers.events import JobConnection
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditAction, AuditLog, AuditValue
from indexrelay.storage.catalog import Catalog


@dataclass(frozen=True, kw_only=True)
class AdminResources:
    """What routes work with; whoever opened it closes it. Safe from several threads."""

    settings: Settings
    catalog: Catalog
    store: ArtifactStore
    connection: JobConnection
    """To Redis, opened when it is first asked for: the server may be away."""
    producer: Producer
    """Asks for rebuilds, by rows of the inbox."""
    clock: Clock
    audit: AuditLog
    access: Access
    state: StateWatch
    """The last look at everything."""
    events: EventStream
    """To all open pages."""
    versions: VersionCache
    """What people look into, opened read-only."""
    history: History
    """What looks have shown since months."""
    backups: BackupWork
    """Makes and verifies backups."""

    def record(
        self, action: AuditAction, caller: Caller, *, subject: str | None = None, **of: AuditValue
    ) -> None:
        """Record in the audit log of this host what somebody had done."""
        self.audit.record(action, who=caller.who, subject=subject, **of)
