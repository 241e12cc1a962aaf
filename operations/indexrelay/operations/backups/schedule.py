"""Makes backups by the clock: a duty of the operator.

A slot of ``backups.schedule`` is done when a backup is there that was begun at it or later, whoever
made it; so several operators over one folder make one, and one that was missed is made up for when
an operator starts. The first is made as soon as there is a release. One whose time is still to come
(a clock was wrong) does not count.

A backup that fails is tried again after a wait that doubles, up to an hour: it may have read all of
the artifacts by then.
"""

import threading
from datetime import datetime
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from indexrelay.operations.backups.backups import Backups
from indexrelay.operations.service import DutyResources
from indexrelay.schemas.clock import backoff_seconds
from indexrelay.schemas.cron import last_slot, next_slot
from indexrelay.schemas.errors import IndexRelayError, see_installed
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.errors import BackupsBusyError, NothingReleasedError

_log = get_logger(__name__)
_LOOK_SECONDS: Final = 30.0
"""The longest wait for the next look: the wall clock may be set, and a thread's wait is not."""
_FIRST_RETRY_SECONDS: Final = 60.0
_LONGEST_RETRY_SECONDS: Final = 3600.0
_WHO: Final = "operator"


class _StoppedError(IndexRelayError):
    """Raised inside a backup when the operator stops; what was begun leaves nothing."""


class BackupDuty:
    """Makes the backups that are due; a `Duty`."""

    name: Final = "backups"
    longest_turn_seconds: Final = None

    def __init__(self, resources: DutyResources) -> None:
        """Raises MissingExtraError: cronsim, zstandard or pyrage is not installed."""
        settings = resources.settings
        see_installed("cronsim", "zstandard")
        if settings.backups.recipients:
            see_installed("pyrage")
        self._limits = settings.backups
        self._clock = resources.clock
        self._audit = AuditLog.of(settings, clock=resources.clock)
        self._backups = Backups(
            settings,
            store=resources.store,
            open_catalog=lambda: resources.catalog,
            clock=resources.clock,
            by=_WHO,
        )
        self._failures = 0
        self._stopping = threading.Event()

    def turn(self) -> float:
        """Make a backup if one is due; the seconds until the next look.

        Raises:
            StoreAccessError: the folder of backups cannot be read.
        """
        line, zone = self._limits.schedule, self._limits.timezone
        if line is None or self._stopping.is_set():
            return _LOOK_SECONDS
        now = self._clock.now()
        newest = self._backups.folder.newest_at(now)
        if newest is None:
            return self._make(None)
        slot = last_slot(line, zone, after=newest, until=now)
        if slot is not None:
            return self._make(slot)
        upcoming = next_slot(line, zone, after=now)
        return max(0.0, min((upcoming - now).total_seconds(), _LOOK_SECONDS))

    def stop(self) -> None:
        """Let a backup that is being made end at its next piece; safe twice."""
        self._stopping.set()

    def _make(self, slot: datetime | None) -> float:
        try:
            created = self._backups.create_due(slot, progress=self._go_on)
        except NothingReleasedError:
            return _LOOK_SECONDS
        except BackupsBusyError as error:  # most likely another operator, with the same one
            _log.debug("backup.busy", error=str(error))
            return _LOOK_SECONDS
        except _StoppedError:
            return _LOOK_SECONDS
        except (IndexRelayError, SQLAlchemyError, OSError) as error:
            self._failures += 1
            again = backoff_seconds(
                self._failures,
                first=_FIRST_RETRY_SECONDS,
                longest=_LONGEST_RETRY_SECONDS,
                key=self.name,
            )
            _log.error(
                "backup.failed",
                error=str(getattr(error, "orig", None) or error),
                failures=self._failures,
                again_in_seconds=round(again, 1),
            )
            return again
        self._failures = 0
        if created is not None:
            self._audit.record(
                AuditAction.BACKED_UP,
                who=_WHO,
                subject=created.backup.id,
                release=created.manifest.release.number,
                with_catalog=created.manifest.catalog is not None,
                removed=[each.id for each in created.removed] or None,
            )
        return 0.0

    def _go_on(self, done: int, total: int) -> None:  # noqa: ARG002 - a `Progress`
        if self._stopping.is_set():
            raise _StoppedError
