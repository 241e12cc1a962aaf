"""What people decide on: what is served stays, goes back or moves on, and what is not built.

*Pausing* keeps a component from being built. *Holding* keeps the version that is served; a
*rollback* serves earlier versions and holds them. The last two are new releases, announced at once.
Each decision is one line of the audit log, whoever makes it and wherever.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import Event, ReleasePublished
from indexrelay.schemas.names import shortened
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditAction, AuditLog, AuditValue
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import ReleaseUnreadableError
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import announce

log = get_logger(__name__)
_MAX_REASON: Final = 1000
"""Characters, of a request for a rebuild."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Makes the decisions of one person; what it is given stays the caller's to close."""

    settings: Settings
    store: ArtifactStore
    """Opened with that person as the author of releases."""
    catalog: Callable[[], Catalog]
    """Called where it is needed: to hold a component takes none."""
    connection: Callable[[], Connection]
    who: str
    """For the audit log of this host."""
    source: str
    """For the events."""
    ask: Callable[[str], object]
    """Asks for a rebuild of what is due; takes the reason. Where it fails the decision stands: a
    rebuilder finds what is due at its next look."""
    clock: Clock = SystemClock()  # noqa: RUF009 - it has no state

    def pause(self, names: Sequence[str], *, reason: str) -> None:
        """Keep components from being built; what they serve stays."""
        for name in names:
            self.catalog().attempts.pause(name, reason)
            self._record(AuditAction.PAUSED, subject=name, reason=reason)

    def resume(self, names: Sequence[str]) -> list[str]:
        """Let paused components be built again; returns those that were paused."""
        resumed = [name for name in names if self.catalog().attempts.resume(name)]
        for name in resumed:
            self._record(AuditAction.RESUMED, subject=name)
        if resumed:
            self._ask("resumed", resumed)
        return resumed

    def hold(self, names: Sequence[str], *, reason: str) -> Release:
        """Keep components at the versions that are served now. Raises as `ArtifactStore.hold`."""
        release = self.store.hold(*names, reason=reason)
        self._announce(release)
        for name in names:
            self._record(AuditAction.HELD, subject=name, release=release.number, reason=reason)
        return release

    def lift(self, names: Sequence[str], *, reason: str) -> tuple[Release, list[str]]:
        """Let held components follow their sources again; returns those that were held.

        Raises as `ArtifactStore.lift`.
        """
        newest = self.store.newest_release()
        held = newest.holds if newest is not None else {}
        release = self.store.lift(*names, reason=reason)
        self._announce(release)
        lifted = [name for name in names if name in held]
        for name in lifted:
            self._record(
                AuditAction.LIFTED,
                subject=name,
                release=release.number,
                reason=reason,
            )
        if lifted:
            self._ask("lifted", lifted)
        return release, lifted

    def rollback(
        self,
        to: int,
        *,
        reason: str,
        components: Collection[str] | None = None,
        decided_on: int | None = None,
    ) -> Release:
        """Serve again what an earlier release served, and hold it; its arguments are those of
        `ArtifactStore.rollback`, and it raises what that does.
        """
        rolled = self.store.rollback(
            to, reason=reason, components=components, decided_on=decided_on
        )
        self._announce(rolled)
        self._record(
            AuditAction.ROLLED_BACK,
            subject=f"release {to}",
            release=rolled.number,
            components=self._went_back(rolled),
            reason=reason,
        )
        return rolled

    def _went_back(self, rolled: Release) -> list[str]:
        """What a rollback decided on: the components named, and the others of their groups."""
        try:
            before = self.store.release(rolled.previous)
        except ReleaseUnreadableError:
            return sorted(rolled.holds)
        return sorted(
            name
            for name, hold in rolled.holds.items()
            if before.holds.get(name) != hold
            or before.components.get(name) != rolled.components.get(name)
        )

    def _ask(self, what: str, names: Sequence[str]) -> None:
        try:
            self.ask(shortened(f"{what} {', '.join(names)}", _MAX_REASON))
        except (RedisError, SQLAlchemyError, IndexRelayError, OSError) as error:
            log.warning("decision.rebuild_not_asked", components=list(names), error=str(error))

    def _announce(self, release: Release) -> None:
        announce_release(
            release,
            connection=self.connection,
            namespace=self.settings.namespace,
            source=self.source,
            clock=self.clock,
        )

    def _record(self, action: AuditAction, *, subject: str, **of: AuditValue) -> None:
        log_of_host = AuditLog.of(self.settings, clock=self.clock)
        log_of_host.record(action, who=self.who, subject=subject, **of)


def announce_release(
    release: Release,
    *,
    connection: Callable[[], Connection],
    namespace: str,
    source: str,
    clock: Clock,
) -> None:
    """Announce a committed release to the readers.

    Without Redis the release is valid all the same: readers find it at their next look, and a
    rebuilder announces it at its next reconcile.

    Args:
        source: of the event.
    """
    event = Event.of(
        ReleasePublished(
            release=release.number, digest=release.digest, components=release.components
        ),
        source=source,
        time=clock.now(),
    )
    try:
        announce(
            connection(),
            Keys(namespace),
            number=release.number,
            release_event=event.to_bytes(),
            result_event=None,
        )
    except (RedisError, IndexRelayError, OSError) as error:
        log.warning("release.not_announced", release=release.number, error=str(error))
