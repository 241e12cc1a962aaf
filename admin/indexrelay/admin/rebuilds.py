"""Rebuilds: asked for by a row of the inbox, and followed component by component.

A request is refused (409) while an open one covers it, in one transaction of the catalog: of any
number that come at the same moment, to any number of admin processes, one is taken. What a rebuild
came to is in its row. How far an open one is follows from what is durable (the versions and the
failures since it was made) and, for what is being built, from the presence of rebuilders.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexrelay.admin.access import PREFIX, Operator
from indexrelay.admin.document import ComponentView, Fact, State
from indexrelay.admin.resources import AdminResources
from indexrelay.operations.rebuilds import (
    AllKeptBackError,
    RebuildRequest,
    all_components,
    ask_for_rebuild,
)
from indexrelay.schemas.messages import BuildOutcome, RebuildResult, RebuildStatus
from indexrelay.schemas.names import MAX_COMPONENTS, Name
from indexrelay.schemas.progress import BuildStep
from indexrelay.service.description import refusals
from indexrelay.service.problems import (
    MEDIA_TYPE,
    FieldMistake,
    ProblemDetails,
    RefusedError,
)
from indexrelay.storage.catalog import RequestRow
from indexrelay.storage.errors import RequestCoveredError, TooManyRequestsError

MOST: Final = 100
"""Rebuilds that one answer lists."""
_REASON: Final = "from the admin page"
_SCHEMAS: Final = "#/components/schemas"

ComponentWord: TypeAlias = Literal[
    "waiting", "building", "verifying", "released", "unchanged", "failed", "skipped"
]


class RebuildOrder(BaseModel):
    """What is to be built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: Annotated[tuple[Name, ...], Field(max_length=MAX_COMPONENTS)] = ()
    """Due or not; empty: whatever is due."""
    all: bool = False
    """Every component, but those that are paused or held; then ``components`` is empty."""
    force: bool = False
    """Also if more entries went than ``max_shrink`` allows."""
    full: bool = False
    """From scratch."""
    reason: Annotated[str, Field(max_length=1000)] = ""

    @model_validator(mode="after")
    def _names_or_all(self) -> "RebuildOrder":
        if self.all and self.components:
            raise ValueError("give the components' names, or all")
        return self


class RebuildComponent(Fact):
    """One component's part in a rebuild."""

    state: ComponentWord
    step: BuildStep | None = None
    """Of a build that runs."""
    share: float | None = None
    """Of that step."""
    started_at: datetime | None = None
    seconds: float | None = None
    version: str | None = None
    entries: int | None = None
    error: str | None = None


class Rebuild(Fact):
    """One rebuild that somebody asked for."""

    id: str
    state: Literal["running", "complete", "failed"]
    """``running``: it waits for a rebuilder, or is worked on."""
    status: RebuildStatus | None
    """How it ended; null: it runs, or nothing was due."""
    components: dict[str, RebuildComponent]
    requested: tuple[str, ...]
    """Those that were asked for by name; empty: whatever was due."""
    force: bool
    full: bool
    requested_by: str
    reason: str
    started_at: datetime
    """When it was asked for."""
    finished_at: datetime | None
    release: int | None
    error: str | None
    message: str | None


class Rebuilds(Fact):
    """The newest first."""

    rebuilds: tuple[Rebuild, ...]
    next: int | None
    """To be given as ``before`` for those before them; null: there are none."""


class RebuildCovered(ProblemDetails):
    """Why it was refused, and which rebuild covers it."""

    rebuild_id: str


def rebuild_routes(resources: AdminResources) -> APIRouter:
    """Ask for rebuilds, and follow them."""
    router = APIRouter()
    catalog = resources.catalog

    @router.post(
        "/rebuilds",
        status_code=202,
        responses={
            **refusals(401, 403, 422),
            409: {
                "description": "An open one covers it",
                "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}/RebuildCovered"}}},
            },
        },
        response_model=Rebuild,
    )
    def rebuild(order: RebuildOrder, response: Response, caller: Operator) -> Any:
        """Ask for a rebuild."""
        wanted = RebuildRequest(
            components=_wanted(order, resources),
            force=order.force,
            full=order.full,
            reason=order.reason or _REASON,
        )
        try:
            request_id = ask_for_rebuild(
                wanted,
                producer=resources.producer,
                audit=resources.audit,
                who=caller.who,
                unless_covered=True,
            )
        except RequestCoveredError as error:
            covered = RebuildCovered(
                title="Conflict", status=409, detail=str(error), rebuild_id=error.request_id
            )
            place = {"Location": f"{PREFIX}/rebuilds/{error.request_id}"}
            return Response(covered.to_bytes(), 409, place, media_type=MEDIA_TYPE)
        except TooManyRequestsError as error:
            raise RefusedError(503, str(error)) from None
        resources.events.publish("rebuild", {"id": request_id, "state": "running"})
        resources.state.wake()
        response.headers["Location"] = f"{PREFIX}/rebuilds/{request_id}"
        return _found(request_id, resources)

    @router.get("/rebuilds", responses=refusals(401, 422))
    def rebuilds(
        before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    ) -> Rebuilds:
        """Those that were asked for within the last week, and those that run."""
        rows = catalog.inbox.requests(before=before, most=limit + 1)
        shown, document = rows[:limit], _document(resources)
        return Rebuilds(
            rebuilds=tuple(_rebuild(row, document) for row in shown),
            next=shown[-1].position if len(rows) > limit else None,
        )

    @router.get("/rebuilds/{rebuild_id}", responses=refusals(401, 404, 422))
    def one(rebuild_id: Annotated[str, Path(pattern=r"^[!-~]{1,200}$")]) -> Rebuild:
        """One of them, with the progress of each component."""
        return _found(rebuild_id, resources)

    return router


def _wanted(order: RebuildOrder, resources: AdminResources) -> Sequence[str]:
    """The components to ask for.

    Raises:
        RefusedError: the settings do not declare one, or every component is kept back.
    """
    declared = resources.settings.components
    unknown = [
        FieldMistake(
            field=f"components.{place}",
            detail=f"the settings declare no component {name}",
        )
        for place, name in enumerate(order.components)
        if name not in declared
    ]
    if unknown:
        raise RefusedError(422, unknown[0].detail, errors=unknown)
    if not order.all:
        return order.components
    try:
        return all_components(
            resources.settings,
            release=resources.store.newest_release(),
            paused=resources.catalog.attempts.paused(),
        )[0]
    except AllKeptBackError as error:
        raise RefusedError(409, str(error)) from None


def _document(resources: AdminResources) -> State | None:
    last = resources.state.look()
    return None if last is None else last.document


def _found(request_id: str, resources: AdminResources) -> Rebuild:
    row = resources.catalog.inbox.find_request(request_id)
    if row is None:
        raise RefusedError(404, "there is no such rebuild, or it was answered over a week ago")
    return _rebuild(row, _document(resources))


def _rebuild(row: RequestRow, document: State | None) -> Rebuild:
    request, result = row.request, row.result
    status = None if result is None else result.status
    failed = status not in (None, RebuildStatus.SUCCESS)
    if row.finished_at is None:
        components = dict(_so_far(row, document))
    elif result is None:
        components = {name: RebuildComponent(state="unchanged") for name in request.components}
    else:
        components = dict(_ended(request.components, result))
    message = None if result is None else result.message
    if row.finished_at is not None and result is None:
        message = "Nothing was due"
    return Rebuild(
        id=request.request_id,
        state="running" if row.finished_at is None else "failed" if failed else "complete",
        status=status,
        components=components,
        requested=request.components,
        force=request.force,
        full=request.full,
        requested_by=request.requested_by,
        reason=request.reason,
        started_at=row.received_at,
        finished_at=row.finished_at,
        release=None if result is None else result.release,
        error=_error(result) if failed and result is not None else None,
        message=message,
    )


def _error(result: RebuildResult) -> str:
    """Why it did not succeed: what the components that failed say, or its message."""
    errors = [
        f"{name}: {each.error}"
        for name, each in result.components.items()
        if each.outcome is BuildOutcome.FAILED and each.error
    ]
    return "; ".join(errors[:3]) or result.message


def _ended(asked: Sequence[str], result: RebuildResult) -> Iterator[tuple[str, RebuildComponent]]:
    """What each component came to."""
    words: dict[BuildOutcome, ComponentWord] = {
        BuildOutcome.REBUILT: "released",
        BuildOutcome.FAILED: "failed",
        BuildOutcome.SKIPPED: "skipped",
    }
    for name, each in result.components.items():
        waits = result.waiting.get(name)
        yield (
            name,
            RebuildComponent(
                state="waiting" if waits else words[each.outcome],
                started_at=each.started_at,
                seconds=each.seconds,
                version=each.version,
                entries=each.entries,
                error=each.error or waits,
            ),
        )
    for name in asked:
        if name not in result.components:
            yield name, RebuildComponent(state="unchanged")


def _so_far(row: RequestRow, document: State | None) -> Iterator[tuple[str, RebuildComponent]]:
    """How far each component is: those that were asked for, and those that are built now."""
    known = {} if document is None else {each.name: each for each in document.components}
    named = row.request.components
    if not named:
        named = tuple(name for name, each in known.items() if _concerns(each, row.received_at))
    for name in named:
        component = known.get(name)
        yield (
            name,
            RebuildComponent(state="waiting")
            if component is None
            else _component_so_far(component, row.received_at),
        )


def _concerns(component: ComponentView, since: datetime) -> bool:
    """Whether something was done of it since a moment, or is done now."""
    return _component_so_far(component, since).state != "waiting"


def _component_so_far(component: ComponentView, since: datetime) -> RebuildComponent:
    building = component.building
    if building is not None:
        verifying = building.step in (BuildStep.VERIFYING, BuildStep.STORING, BuildStep.RELEASING)
        return RebuildComponent(
            state="verifying" if verifying else "building",
            step=building.step,
            share=building.share,
            started_at=building.started_at,
            seconds=building.elapsed_seconds,
        )
    rebuilt, failed = component.last_rebuild_at, component.failed_at
    if failed is not None and failed >= since and (rebuilt is None or failed > rebuilt):
        return RebuildComponent(state="failed", error=component.error)
    if rebuilt is not None and rebuilt >= since:
        return RebuildComponent(
            state="released", version=component.version, entries=component.entries
        )
    return RebuildComponent(state="waiting")
