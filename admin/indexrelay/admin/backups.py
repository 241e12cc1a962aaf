"""Backups: a list, one that is made now, and one that is read to its end.

    GET  /backups                 each backup, and what is being done with them
    POST /backups                 make one, on a thread of its own
    POST /backups/{id}/verify     read one to its end, on that thread as well

One backup is made or verified at a time here; what is begun while another one runs is refused, as
it is between processes. How far it is, and what came of it, says the list.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from indexrelay.admin.access import PREFIX, Operator
from indexrelay.admin.document import SHORT, Fact
from indexrelay.health.status import Code
from indexrelay.operations.backups import Backups
from indexrelay.operations.backups.backups import BackupFacts, facts_of
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError, see_installed
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import shown
from indexrelay.schemas.settings import Settings
from indexrelay.service.problems import RefusedError
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.backups import StoredBackup
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import BackupUnknownError

if TYPE_CHECKING:
    from indexrelay.admin.resources import AdminResources

_log = get_logger(__name__)

_MOST_VERIFIED: Final = 1000
"""Backups of which is remembered what came of reading them; those that were read last."""
_STOP_SECONDS: Final = 10.0
"""How long a backup may take to its next piece once it is to stop."""

BackupId = Annotated[str, Path(pattern=r"^[0-9]{8}_[0-9]{6}$")]
Work: TypeAlias = Literal["create", "verify"]


class Verified(Fact):
    """What became of the last verification of a backup, in this process."""

    at: datetime
    ok: bool
    detail: str


class BackupView(Fact):
    """One backup."""

    id: str
    begun_at: datetime
    bytes: int
    encrypted: bool
    release: int | None
    """Null: its manifest cannot be read here."""
    components: tuple[str, ...]
    catalog: bool | None
    by: str
    error: str | None
    verified: Verified | None


class RunningWork(Fact):
    """What is being done with backups."""

    what: Work
    id: str | None
    """Of the backup; null: one is being made."""
    by: str
    started_at: datetime
    share: float | None
    """Of the bytes; null: how many there are is not known yet."""


class EndedWork(Fact):
    """What was done last, in this process."""

    what: Work
    id: str | None
    ended_at: datetime
    ok: bool
    detail: str
    removed: tuple[str, ...] = ()
    """Older backups that did not stay by the settings."""


class BackupList(Fact):
    """Every backup, the newest first."""

    folder: str
    schedule: str | None
    """The cron line; null: they are made by hand only."""
    max_age_seconds: float | None
    overdue: bool
    """Whether none is as young as the settings ask for."""
    running: RunningWork | None
    last: EndedWork | None
    backups: tuple[BackupView, ...]


class BackupRequest(BaseModel):
    """What to back up."""

    model_config = ConfigDict(extra="forbid")

    release: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    """Null: the newest."""
    with_catalog: bool | None = None
    """Null: as the settings say."""


class BackupWork:
    """Makes and verifies backups, one at a time, on a thread; from any thread."""

    def __init__(
        self, settings: Settings, *, catalog: Catalog, store: ArtifactStore, clock: Clock
    ) -> None:
        """What is handed in stays the caller's to close."""
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._audit = AuditLog.of(settings, clock=clock)
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self._running: RunningWork | None = None
        self._last: EndedWork | None = None
        self._verified: dict[str, Verified] = {}
        self._facts: dict[StoredBackup, BackupFacts] = {}

    @property
    def running(self) -> RunningWork | None:
        """What is being done; ``None``: nothing."""
        return self._running

    @property
    def last(self) -> EndedWork | None:
        """What was done last."""
        return self._last

    def all(self) -> list[BackupView]:
        """Every backup, the newest first; each manifest is read once.

        Raises:
            StoreAccessError: the folder cannot be read.
        """
        backups = self._backups("")
        stored = backups.folder.all()
        known = self._facts
        facts = {each: known.get(each) or facts_of(backups, each, None) for each in stored}
        self._facts = facts  # another thread may replace it by what it has listed
        return [_view(facts[each], self._verified.get(each.id)) for each in stored]

    def create(self, wanted: BackupRequest, *, who: str) -> RunningWork:
        """Begin to make one.

        Raises:
            RefusedError: another one is being made or verified.
            MissingExtraError: a library is missing.
        """
        see_installed("zstandard")
        backups = self._backups(who)

        def make(progress: Callable[[int, int], None]) -> EndedWork:
            created = backups.create(
                release=wanted.release, with_catalog=wanted.with_catalog, progress=progress
            )
            removed = tuple(each.id for each in created.removed)
            self._audit.record(
                AuditAction.BACKED_UP,
                who=who,
                subject=created.backup.id,
                release=created.manifest.release.number,
                with_catalog=created.manifest.catalog is not None,
                removed=list(removed) or None,
            )
            return EndedWork(
                what="create",
                id=created.backup.id,
                ended_at=self._clock.now(),
                ok=True,
                detail=f"release {created.manifest.release.number} is backed up",
                removed=removed,
            )

        return self._begin("create", None, make, who=who)

    def verify(self, id_: str, *, who: str) -> RunningWork:
        """Begin to read one to its end.

        Raises:
            RefusedError: another one is being made or verified.
            BackupUnknownError: there is none of that id.
        """
        backups = self._backups(who)
        backups.folder.get(id_)

        def read(progress: Callable[[int, int], None]) -> EndedWork:
            try:
                manifest = backups.verify(id_, progress=progress)
            except IndexRelayError:
                self._audit.record(AuditAction.VERIFIED, who=who, subject=id_, sound=False)
                raise
            self._audit.record(AuditAction.VERIFIED, who=who, subject=id_, sound=True)
            return EndedWork(
                what="verify",
                id=id_,
                ended_at=self._clock.now(),
                ok=True,
                detail=f"every digest of {sum(1 for _ in manifest.files()):,} files is right",
            )

        return self._begin("verify", id_, read, who=who)

    def stop(self) -> None:
        """Let what runs end at its next piece, and wait for that; it leaves nothing. Safe twice."""
        self.stopping.set()
        thread = self.thread
        if thread is not None:
            thread.join(_STOP_SECONDS)

    def _backups(self, who: str) -> Backups:
        return Backups(
            self._settings,
            store=self._store,
            open_catalog=lambda: self._catalog,
            clock=self._clock,
            by=who,
        )

    def _begin(
        self,
        what: Work,
        id_: str | None,
        act: Callable[[Callable[[int, int], None]], EndedWork],
        *,
        who: str,
    ) -> RunningWork:
        with self._lock:
            if self.stopping.is_set():
                raise RefusedError(503, "the admin service stops")
            if self._running is not None:
                doing = "made" if self._running.what == "create" else "verified"
                raise RefusedError(409, f"a backup is being {doing}; ask again when it has ended")
            running = self._running = RunningWork(
                what=what, id=id_, by=who, started_at=self._clock.now(), share=None
            )
            self.thread = threading.Thread(
                target=self._run, args=(act, running), name="indexrelay-admin-backup", daemon=True
            )
            self.thread.start()
        return running

    def _run(
        self, act: Callable[[Callable[[int, int], None]], EndedWork], begun: RunningWork
    ) -> None:
        def progress(done: int, total: int) -> None:
            if self.stopping.is_set():
                raise _StoppedError
            share = done / total if total else None
            self._running = begun.model_copy(update={"share": share})

        try:
            ended = act(progress)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told to who asked; a user's code
            # may end its thread.
            why = shown(str(getattr(error, "orig", None) or error))
            _log.warning("backup.failed", what=begun.what, backup=begun.id, error=why)
            ended = EndedWork(
                what=begun.what, id=begun.id, ended_at=self._clock.now(), ok=False, detail=why
            )
        if ended.what == "verify" and ended.id is not None:
            self._verified.pop(ended.id, None)
            self._verified[ended.id] = Verified(at=ended.ended_at, ok=ended.ok, detail=ended.detail)
            while len(self._verified) > _MOST_VERIFIED:
                del self._verified[next(iter(self._verified))]
        self._last, self._running = ended, None


class _StoppedError(IndexRelayError):
    """Raised inside a backup when the service stops."""

    def __init__(self) -> None:
        super().__init__("the admin service was stopped; nothing is left of it")


def backup_routes(resources: "AdminResources") -> APIRouter:
    """All of them, without a prefix."""
    router = APIRouter()
    work = resources.backups
    limits = resources.settings.backups
    busy: Any = {409: {"description": "Another backup is being made or verified."}}

    @router.get("/backups")
    def backups() -> BackupList:
        """Each backup, the newest first, and what is being done with them."""
        look = resources.state.look()
        problems = () if look is None else look.look.seen.verdict.problems
        return BackupList(
            folder=str(resources.settings.backups_dir),
            schedule=limits.schedule,
            max_age_seconds=None if limits.schedule is None else limits.max_age_seconds,
            overdue=any(each.code is Code.BACKUP_OVERDUE for each in problems),
            running=work.running,
            last=work.last,
            backups=tuple(work.all()),
        )

    @router.post("/backups", status_code=HTTPStatus.ACCEPTED, responses=busy)
    def create(
        body: BackupRequest,
        response: Response,
        caller: Operator,
    ) -> RunningWork:
        """Begin to make a backup; the list says how far it is."""
        response.headers["Location"] = f"{PREFIX}/backups"
        return work.create(body, who=caller.who)

    @router.post(
        "/backups/{backup}/verify",
        status_code=HTTPStatus.ACCEPTED,
        responses=busy | {404: {"description": "There is no such backup."}},
    )
    def verify(
        backup: BackupId,
        response: Response,
        caller: Operator,
    ) -> RunningWork:
        """Begin to read a backup to its end; the list says what came of it."""
        response.headers["Location"] = f"{PREFIX}/backups"
        try:
            return work.verify(backup, who=caller.who)
        except BackupUnknownError as error:
            raise RefusedError(404, str(error)) from error

    return router


def _view(facts: BackupFacts, verified: Verified | None) -> BackupView:
    return BackupView(
        id=facts.id,
        begun_at=facts.begun_at,
        bytes=facts.bytes,
        encrypted=facts.encrypted,
        release=facts.release,
        components=facts.components,
        catalog=facts.catalog,
        by=shown(facts.by, SHORT),
        error=None if facts.error is None else shown(facts.error),
        verified=verified,
    )
