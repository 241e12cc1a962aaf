"""The routes of the scope ``admin``: how each collection stands, and a rebuild that is asked for.

    GET  /admin/index/status    each collection: available or not and why, and what it is made of
    POST /admin/index/rebuild   ask for a rebuild: a row in the catalog, that a rebuilder takes

Whether all is well says the one judge (`indexrelay.health.judge`), from the catalog, the artifacts
and what this reader has loaded. Redis is not looked at: a reader's user may not see the others
there. A reader that cannot open the catalog says so, and leaves out what only the catalog knows.

A look asks a database and a disk, so one runs at a time, on a thread, and its answer serves for a
second. While one does not end, the next ones are refused.
"""

import secrets
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from indexrelay.components.live import LIVE_KINDS
from indexrelay.health.status import Condition, Problem, Verdict
from indexrelay.reloaders import Reloader, Snapshot
from indexrelay.reloaders.catalog import CatalogAccess
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LiveState, ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service.bodies import JSON, RebuildRequest, read_body
from indexrelay.service.collections import Answering, CollectionFacts, collections_of
from indexrelay.service.description import body_of, refusals
from indexrelay.service.limits import FewThreads
from indexrelay.service.problems import RefusedError
from indexrelay.service.queries import sent
from indexrelay.service.tokens import caller_of, see_admin

if TYPE_CHECKING:
    from indexrelay.storage.artifacts import ArtifactStore

log = get_logger(__name__)
T = TypeVar("T")

PREFIX: Final = "/admin/index"
_KEPT_SECONDS: Final = 1.0
"""How long an answer serves for those who ask next."""
_THREADS: Final = 2
"""One may hang in the catalog, and another one in the artifacts."""
_LONGEST_SECONDS: Final = 10.0
"""After which whoever asked is told that the catalog or the artifacts do not answer."""
_UP_TO_DATE: Final = frozenset({Condition.CURRENT, Condition.DEFERRED})
"""As it should be, with what was committed since laid over it where the collection is live."""
_NO_CATALOG: Final = (
    "this reader cannot open the catalog, so it does not know what is committed: ask where the "
    f"catalog is, {commands.STATUS}"
)


class RebuildAccepted(BaseModel):
    """The request stands in the catalog; a rebuilder takes it at its next look."""

    request_id: str


class ComponentStatus(Answering):
    """A component of a collection."""

    version: str | None = None
    persisted_at: datetime | None = None
    """When the version that is served was built."""
    tombstone_ratio: float | None = None
    """Rows of its base whose entries changed or are gone, as a share of it; null: it has none."""
    delta_share: float | None = None
    """Entries beside its base, or changed since its last full build, as a share of all."""
    condition: Condition | None = None
    """What is released of it, against what is declared and committed; null: unknown here."""
    recovery: Literal["earlier_version", "text_search", "rebuild"] | None = None
    """Where the released version is damaged, it is built from the entries, and until then an
    earlier one that is whole serves instead; or none is, and searches by text are answered by
    another component; or by none; null: there is nothing to recover from."""
    error: str | None = None
    """Why it cannot."""


class CollectionStatus(BaseModel):
    """A collection, as an operator has to know it."""

    available: bool
    """Whether this reader serves every component of it that it is to serve."""
    reasons: tuple[str, ...]
    """What is not well with it; empty: nothing."""
    dimension: int
    model: str | None
    """The function that embeds its texts; null: vectors are given."""
    entries: int | None
    """How many are committed; null: unknown here, or they are not counted."""
    committed_generation: int | None
    tombstone_ratio: float | None
    """The greatest of its components."""
    delta_share: float | None
    """As well."""
    live: LiveState | None
    """What is laid over the release; null: it is not live."""
    rebuild_needed: bool | None
    """Whether a component of it has to be built; null: unknown here."""
    last_release: int
    """The newest release that this reader has worked through."""
    last_persisted_at: datetime | None
    """When the newest version that is served of it was built."""
    components: dict[str, ComponentStatus]


class IndexStatus(BaseModel):
    """How everything stands, as far as a reader can tell."""

    well: bool
    problems: tuple[Problem, ...]
    """As `indexrelay status` has them, without what only Redis shows."""
    unknown: str | None
    """What could not be looked at; null: nothing."""
    collections: dict[str, CollectionStatus]


class IndexAdmin:
    """Looks, and asks for rebuilds; from any thread."""

    def __init__(self, reloader: Reloader, clock: Clock | None = None) -> None:
        """Nothing is opened before it is first asked for."""
        self._reloader = reloader
        self._clock = clock or SystemClock()
        self._looking = threading.Lock()
        self._last: tuple[float, IndexStatus] | None = None
        self._catalog = CatalogAccess(reloader.settings, self._clock)
        self._store: ArtifactStore | None = None

    def close(self) -> None:
        """Close what was opened; safe twice."""
        self._catalog.close()

    def status(self) -> IndexStatus:
        """How everything stands now, or did a second ago.

        Raises:
            RefusedError: another look does not end.
        """
        if not self._looking.acquire(timeout=_LONGEST_SECONDS):
            raise _silent()
        try:
            now = self._clock.monotonic()
            if self._last is None or now - self._last[0] >= _KEPT_SECONDS:
                self._last = (now, self._look())
            return self._last[1]
        finally:
            self._looking.release()

    def request_rebuild(self, asked: RebuildRequest, *, who: str) -> str:
        """Write down what is asked for; returns the request's id.

        Args:
            who: for the audit log of this host.

        Raises:
            RefusedError: there is no catalog here, no such component, or no room for one more.
        """
        from indexrelay.storage.audit import AuditAction, AuditLog
        from indexrelay.storage.errors import TooManyRequestsError

        declared = self._reloader.settings.components
        unknown = [name for name in asked.components if name not in declared]
        if unknown:
            raise RefusedError(
                422,
                f"components: the settings declare no {', '.join(unknown)}; there is "
                f"{', '.join(declared) or 'none'}",
            )
        catalog = self._catalog.get()
        if catalog is None:
            raise RefusedError(503, f"{_NO_CATALOG}, or {commands.rebuild()}")
        request_id = secrets.token_hex(16)
        try:
            catalog.inbox.request(
                request_id,
                components=tuple(dict.fromkeys(asked.components)),
                force=asked.force,
                full=asked.full,
                reason=asked.reason,
            )
        except TooManyRequestsError as error:
            raise RefusedError(503, str(error)) from error
        except Exception as error:
            self._catalog.failed(error)
            raise RefusedError(503, f"the catalog does not answer: {error}") from error
        AuditLog.of(self._reloader.settings, clock=self._clock).record(
            AuditAction.REBUILD_REQUESTED,
            who=who,
            subject=", ".join(asked.components) or None,
            request_id=request_id,
            reason=asked.reason,
            force=asked.force or None,
            full=asked.full or None,
        )
        return request_id

    def _look(self) -> IndexStatus:
        reloader = self._reloader
        verdict = self._verdict()
        state, listed = reloader.state, collections_of(reloader)
        problems = reloader.problems
        if verdict is not None:
            same = {(each.code, each.subject) for each in problems}
            problems += tuple(
                each for each in verdict.problems if (each.code, each.subject) not in same
            )
        with reloader.acquire() as snapshot:
            collections = {
                name: _status_of(name, facts, snapshot, state, reloader, verdict, problems)
                for name, facts in listed.collections.items()
            }
        return IndexStatus(
            well=not problems,
            problems=problems,
            unknown=_NO_CATALOG if verdict is None else None,
            collections=collections,
        )

    def _verdict(self) -> Verdict | None:
        """The judge's, from catalog and artifacts; ``None``: there is no catalog here."""
        from indexrelay.health.judge import judge
        from indexrelay.health.survey import Survey

        catalog = self._catalog.get()
        if catalog is None:
            return None
        survey = Survey(
            self._reloader.settings,
            catalog=lambda: catalog,
            store=self._opened_store,
            clock=self._clock,
        )
        return judge(survey.of_a_reader())

    def _opened_store(self) -> "ArtifactStore":
        if self._store is None:
            from indexrelay.storage.artifacts import ArtifactStore

            self._store = ArtifactStore.of(self._reloader.settings, may_be_away=True)
        return self._store


def _silent() -> RefusedError:
    return RefusedError(
        503, "the catalog or the artifacts do not answer; see whether disk and database do"
    )


def _status_of(
    name: str,
    facts: CollectionFacts,
    snapshot: Snapshot,
    state: ReaderState,
    reloader: Reloader,
    verdict: Verdict | None,
    problems: Iterable[Problem],
) -> CollectionStatus:
    components = {
        each: _component_status(each, answering, snapshot, state, reloader, verdict)
        for each, answering in facts.components.items()
    }
    subjects = {name, *components}
    reasons = [each.what for each in problems if each.subject in subjects]
    live = state.live.get(name)
    if live is not None and live.reason is not None:
        reasons.append(live.reason)
    reasons += [f"{name}: {each.error}" for name, each in components.items() if each.error]
    committed = None if verdict is None else verdict.collections.get(name)
    conditions = [each.condition for each in components.values()]
    built = [each.persisted_at for each in components.values() if each.persisted_at is not None]
    return CollectionStatus(
        available=bool(components) and all(each.served for each in components.values()),
        reasons=tuple(dict.fromkeys(reasons)),
        dimension=facts.dimension,
        model=facts.embedder,
        entries=None if committed is None else committed.entries,
        committed_generation=None if committed is None else committed.generation,
        tombstone_ratio=_greatest(each.tombstone_ratio for each in components.values()),
        delta_share=_greatest(each.delta_share for each in components.values()),
        live=live,
        rebuild_needed=None
        if None in conditions or not conditions
        else not _UP_TO_DATE.issuperset(conditions),
        last_release=snapshot.release,
        last_persisted_at=max(built, default=None),
        components=components,
    )


def _component_status(
    name: str,
    answering: Answering,
    snapshot: Snapshot,
    state: ReaderState,
    reloader: Reloader,
    verdict: Verdict | None,
) -> ComponentStatus:
    known = None if verdict is None else verdict.components.get(name)
    load = state.components.get(name)
    error = None if load is None else load.error
    found: dict[str, Any] = {
        **answering.model_dump(),
        "condition": None if known is None else known.condition,
        "error": error,
    }
    if error is not None and name in reloader.damaged:
        found["recovery"] = _recovery_of(name, snapshot, reloader.settings)
    if name not in snapshot:
        return ComponentStatus(**found)
    manifest = snapshot.manifest(name)
    return ComponentStatus(
        **found,
        version=snapshot.versions[name],
        persisted_at=manifest.created_at,
        **layers_of(snapshot.released(name), manifest),
    )


def _recovery_of(name: str, snapshot: Snapshot, settings: Settings) -> str:
    """What answers in place of a version that is damaged."""
    if name in snapshot:
        return "earlier_version"
    from indexrelay.service.texts import stand_in

    return "rebuild" if stand_in(snapshot, settings, name, ()) is None else "text_search"


def layers_of(served: Any, manifest: VersionManifest) -> dict[str, float]:
    """``tombstone_ratio`` and ``delta_share`` of a version; empty: it is not made of layers.

    Of a vector index both are shares of its base. The changes of a text index are applied to a copy
    of its file: of them it has the share of its entries that changed since its last full build. A
    search by both has the greater one of its halves.

    Args:
        served: what its kind serves.
        manifest: of the version.
    """
    if manifest.kind not in LIVE_KINDS:
        return {}
    from indexrelay.components.search.parts import facts_of
    from indexrelay.components.vector_index.search import VectorSearch

    details = [manifest.details]
    if manifest.kind == "search":
        served, details = (
            served.by_vector,
            [each.details for each in facts_of(manifest.details).values()],
        )
    entries = max(manifest.entries, 1)
    shares = [each["changed"] / entries for each in details if "changed" in each]
    found: dict[str, float] = {}
    if isinstance(served, VectorSearch):
        delta, rows = served.facts.delta, max(served.facts.count, 1)
        found["tombstone_ratio"] = 0.0 if delta is None else delta.dead / rows
        shares.append(0.0 if delta is None else delta.count / rows)
    if shares:
        found["delta_share"] = max(shares)
    return found


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((each for each in values if each is not None), default=None)


def admin_routes(admin: IndexAdmin) -> APIRouter:
    """Both routes."""
    router = APIRouter(prefix=PREFIX)
    threads = FewThreads(_THREADS, "looks of administrators to make")

    async def on_thread(call: Callable[[], T]) -> T:
        """What ``call`` gives; a `RefusedError` where that takes too long."""
        try:
            return await threads.run(
                call, seconds=_LONGEST_SECONDS, answer_seconds=_LONGEST_SECONDS
            )
        except TimeoutError:
            raise _silent() from None

    @router.get("/status", responses=refusals())
    async def status(request: Request) -> IndexStatus:
        see_admin(request)
        return await on_thread(admin.status)

    @router.post(
        "/rebuild",
        status_code=202,
        responses=refusals(415, 422),
        openapi_extra=body_of(RebuildRequest),
    )
    async def rebuild(request: Request) -> RebuildAccepted:
        see_admin(request)
        body, _, _ = await sent(request, JSON)
        asked = read_body(body, RebuildRequest)
        name = caller_of(request).name
        who = "http" if name is None else f"token/{name}"
        request_id = await on_thread(lambda: admin.request_rebuild(asked, who=who))
        log.info(
            "rebuild.requested",
            request_id=request_id,
            components=asked.components,
            token=name,
            reason=asked.reason,
        )
        return RebuildAccepted(request_id=request_id)

    return router
