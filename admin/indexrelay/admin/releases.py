"""Releases: a list, one in detail, what two differ in, and the way back; holds and pauses.

    GET  /releases                        the newest first, page by page
    GET  /releases/{number}               what it serves, who made it, when and why, what it holds
    GET  /releases/{before}/diff/{after}  what changed from one to the other, whichever is newer
    POST /releases/{number}/rollback      serve again what it served, and hold it
    POST /components/{name}/hold          keep the version that is served
    POST /components/{name}/lift          let it follow its source again
    POST /lift                            the same for several, in one release
    POST /components/{name}/pause         build nothing of it
    POST /components/{name}/resume        build it again

A rollback shows first what it would change (``dry_run``), by the function that then makes it. Who
was shown that gives the newest release of then (``newest``): if another one was made meanwhile, the
answer is 409 and nothing was done. The console decides by the same functions
(`indexrelay.operations.decisions`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from indexrelay.admin.access import PREFIX, Caller, Operator
from indexrelay.admin.document import DecisionState, Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.operations.decisions import Decisions
from indexrelay.schemas.errors import UnknownNameError, suggestion
from indexrelay.schemas.names import MAX_COMPONENTS, NAME_PATTERN, Name, shown
from indexrelay.schemas.versions import Hold, Release
from indexrelay.service.problems import RefusedError
from indexrelay.storage.artifacts import (
    ArtifactStore,
    GroupTornError,
    NothingReleasedError,
    ReleaseExistsError,
    ReleaseNotWholeError,
    ReleaseUnreadableError,
    SigningRefusedError,
)
from indexrelay.storage.artifacts.history import (
    Changed,
    ReleaseDiff,
    VersionFacts,
    difference,
    manifest_of,
    release_history,
    versions_of,
)

MOST_RELEASES: Final = 200
"""On one page."""
_REASON: Final = 1000
"""Characters, as of a request for a rebuild."""
SOURCE: Final = "indexrelay/admin"
"""Of the events that are added here."""

ReleaseNumber = Annotated[int, Path(gt=0, lt=2**63)]
ComponentName = Annotated[str, Path(pattern=NAME_PATTERN)]


class ReleaseRow(Fact):
    """One release in a list."""

    number: int
    made_at: datetime | None
    """Null: it cannot be read, and ``reason`` is why."""
    by: str
    reason: str
    components: int
    """How many it serves."""
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    holds: tuple[str, ...]
    canary: tuple[str, ...]
    """The readers that were to take it first; empty: it is for everyone."""
    unreadable: bool


class ReleasePage(Fact):
    """Some of the kept releases, the newest first."""

    releases: tuple[ReleaseRow, ...]
    next: int | None
    """``before`` of the next page; null: these are the oldest."""
    total: int
    """How many are kept."""


class ReleasedComponent(VersionFacts):
    """One component of a release."""

    group: str | None
    held: DecisionState | None
    checks_failed: int | None
    """Checks of its version that were not passed; null: the manifest cannot be read."""


class ReleaseView(Fact):
    """One release in detail."""

    number: int
    made_at: datetime
    by: str
    reason: str
    previous: int
    """The release that it was made from; 0: it is the first."""
    digest: str
    newest: bool
    canary: tuple[str, ...]
    """The readers that were to take it first; empty: it is for everyone."""
    components: dict[str, ReleasedComponent]


class ChangeView(Fact):
    """One component that differs."""

    change: Changed
    before: VersionFacts | None
    after: VersionFacts | None
    redefined: bool
    """Whether its settings are others than before."""
    back: bool = False
    """Whether the version that is served was built before the one that goes."""


class DiffView(Fact):
    """What two releases have different."""

    before: int
    after: int
    components: dict[str, ChangeView]
    """Those that differ."""
    same: tuple[str, ...]
    held: dict[str, DecisionState]
    """Holds that came."""
    lifted: tuple[str, ...]
    """Holds that went."""
    regrouped: dict[str, tuple[str | None, str | None]]
    """Components that flip with another group than before, and with which."""
    readers: int
    """How many live readers there are, that follow."""


class RollbackPreview(DiffView):
    """What a rollback would change; ``after`` is the number that its release would get."""

    rolled_back_to: int
    stays_held: tuple[str, ...]
    """What is held before and after."""
    reason: str
    """Why the release would be made, as people find it later."""


class RolledBack(Fact):
    """A rollback that was made."""

    release: int
    """The number of the new release."""
    rolled_back_to: int
    held: tuple[str, ...]
    """What it holds, and nothing replaces until somebody lifts it."""
    changed: tuple[str, ...]
    """Components that serve another version than before."""


class RollbackRequest(BaseModel):
    """What to go back to."""

    model_config = ConfigDict(extra="forbid")

    components: Annotated[list[Name], Field(min_length=1, max_length=MAX_COMPONENTS)] | None = None
    """Only these, and the others of their groups; null: all that the release names."""
    reason: Annotated[str, Field(max_length=_REASON)] = "by hand"
    """For the people who find the holds later."""
    dry_run: bool = False
    """Whether to change nothing, and say what would be."""
    newest: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    """The newest release that this follows from: where another one is the newest by now, it is
    refused. Null: whichever is."""


class DecisionRequest(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=_REASON)] = "by hand"


class LiftRequest(DecisionRequest):
    """Which holds to lift, and why."""

    components: Annotated[list[Name], Field(min_length=1, max_length=1000)]


class Lifted(Fact):
    """What came of it."""

    release: int
    """The release that holds them no longer."""
    lifted: tuple[str, ...]
    """Those that were held."""


class Decided(Fact):
    """What came of a decision about one component."""

    component: str
    changed: bool
    """Whether it was not so already, for the reason that is given."""
    release: int | None = None
    """The release that holds it, or holds it no longer."""


def release_routes(resources: AdminResources) -> APIRouter:
    """All of them, without a prefix."""
    router = APIRouter()
    store = resources.store

    @router.get("/releases")
    def releases(
        before: Annotated[int | None, Query(gt=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_RELEASES)] = 50,
    ) -> ReleasePage:
        """Some of the kept releases, the newest first."""
        return release_page(store, before=before, limit=limit)

    @router.get("/releases/{number}", responses={404: {"description": "There is none."}})
    def release(number: ReleaseNumber) -> ReleaseView:
        """One release: what it serves, who made it, when and why, and what it holds."""
        found = kept_release(store, number)
        newest = store.newest_release()
        return _release_view(store, found, is_newest=newest is not None and newest.number == number)

    @router.get("/releases/{before}/diff/{after}")
    def diff(before: ReleaseNumber, after: ReleaseNumber) -> DiffView:
        """What changed from one release to another, whichever of them is newer."""
        found = difference(store, kept_release(store, before), kept_release(store, after))
        return DiffView(**_diff_fields(found, readers=_live_readers(resources)))

    @router.post(
        "/releases/{number}/rollback",
        status_code=HTTPStatus.CREATED,
        responses={
            200: {"model": RollbackPreview, "description": "What it would change (`dry_run`)."},
            409: {"description": "It cannot be served again, or another release was made."},
        },
    )
    def rollback(
        number: ReleaseNumber,
        body: RollbackRequest,
        response: Response,
        caller: Operator,
    ) -> RolledBack | RollbackPreview:
        """Serve again what a release served, and hold it; with `dry_run` say what would change."""
        kept_release(store, number)
        reason = shown(body.reason)
        if body.dry_run:
            response.status_code = HTTPStatus.OK
            with refusing():
                newest, changed = store.preview_rollback(
                    number, reason=reason, components=body.components
                )
            _see_newest(body.newest, newest.number)
            return _preview(store, newest, changed, number, readers=_live_readers(resources))
        with refusing():
            served = store.newest_release()
            rolled = decisions_of(resources, caller).rollback(
                number, reason=reason, components=body.components, decided_on=body.newest
            )
        resources.state.wake()
        response.headers["Location"] = f"{PREFIX}/releases/{rolled.number}"
        before = {} if served is None else served.components
        return RolledBack(
            release=rolled.number,
            rolled_back_to=number,
            held=tuple(sorted(rolled.holds)),
            changed=tuple(
                sorted(name for name, each in rolled.components.items() if before.get(name) != each)
            ),
        )

    _decision_routes(router, resources)
    return router


def _decision_routes(router: APIRouter, resources: AdminResources) -> None:
    """What a person decides about components."""

    @router.post("/lift", responses={404: {"description": "There is no such component."}})
    def lift_several(body: LiftRequest, caller: Operator) -> Lifted:
        """Let several held components follow their sources again, by one release."""
        for name in body.components:
            see_component(resources, name)
        with refusing():
            release, lifted = decisions_of(resources, caller).lift(
                list(dict.fromkeys(body.components)), reason=shown(body.reason)
            )
        resources.state.wake()
        return Lifted(release=release.number, lifted=tuple(lifted))

    def decision(
        verb: str, act: Callable[[Decisions, str, str], Decided]
    ) -> Callable[..., Decided]:
        def decide(
            name: ComponentName,
            body: DecisionRequest,
            caller: Operator,
        ) -> Decided:
            see_component(resources, name, declared=verb in ("pause", "resume"))
            with refusing():
                decided = act(decisions_of(resources, caller), name, shown(body.reason))
            resources.state.wake()
            return decided

        decide.__name__, decide.__doc__ = verb, _MEANINGS[verb]
        return decide

    for verb, act in _ACTS.items():
        router.add_api_route(
            f"/components/{{name}}/{verb}",
            decision(verb, act),
            methods=["POST"],
            responses={404: {"description": "There is no such component."}},
        )


def release_page(store: ArtifactStore, *, before: int | None, limit: int) -> ReleasePage:
    """At most ``limit`` of the kept releases below ``before``, the newest first."""
    found = release_history(store, most=limit, before=before)
    numbers = store.release_numbers()
    more = bool(found) and found[-1].number != numbers[-1]
    return ReleasePage(
        releases=tuple(
            ReleaseRow(
                **each.model_dump(exclude={"by", "reason"}),
                by=shown(each.by),
                reason=shown(each.reason),
                unreadable=each.made_at is None,
            )
            for each in found
        ),
        next=found[-1].number if more else None,
        total=len(numbers),
    )


def kept_release(store: ArtifactStore, number: int) -> Release:
    """One release. Raises RefusedError: there is none of that number, or it cannot be read."""
    try:
        return store.release(number)
    except ReleaseUnreadableError as error:
        if not error.missing:
            raise RefusedError(409, shown(str(error))) from error
    numbers = store.release_numbers()
    kept = f"those from {numbers[-1]} to {numbers[0]} are kept" if numbers else "there is none yet"
    raise RefusedError(404, f"there is no release {number}, or not any more; {kept}")


def see_component(resources: AdminResources, name: str, *, declared: bool = False) -> None:
    """Refuse a name that neither the settings nor the newest release has.

    Args:
        declared: whether the settings have to have it: what is not declared is not built.

    Raises:
        RefusedError: with the name that may have been meant.
    """
    newest = None if declared else resources.store.newest_release()
    known = {*resources.settings.components, *(newest.components if newest is not None else ())}
    if name not in known:
        raise RefusedError(404, f"there is no component {name!r}{suggestion(name, known)}")


@contextmanager
def refusing() -> Iterator[None]:
    """What the store refuses to change, as a refusal over HTTP.

    Raises:
        RefusedError: with the store's own sentence.
    """
    try:
        yield
    except UnknownNameError as error:
        raise RefusedError(404, shown(str(error))) from error
    except ReleaseExistsError as error:
        newest = error.next_number - 1
        raise RefusedError(
            409, f"release {newest} was made meanwhile, and nothing was done; look at it first"
        ) from error
    except (
        GroupTornError,
        NothingReleasedError,
        ReleaseNotWholeError,
        ReleaseUnreadableError,
        SigningRefusedError,
    ) as error:
        raise RefusedError(409, shown(str(error))) from error


def decisions_of(resources: AdminResources, caller: Caller) -> Decisions:
    """What a caller may decide on: under their own name, in releases and in the audit log."""
    return Decisions(
        settings=resources.settings,
        store=ArtifactStore.of(resources.settings, clock=resources.clock, by=caller.who),
        catalog=lambda: resources.catalog,
        connection=resources.connection.get,
        who=caller.who,
        source=SOURCE,
        ask=lambda reason: resources.producer.request_rebuild(
            reason=reason, requested_by=caller.who
        ),
        clock=resources.clock,
    )


def decision_state(hold: Hold) -> DecisionState:
    """A hold, as it is shown."""
    return DecisionState(
        reason=shown(hold.reason), since=hold.since, automatic=hold.refused is not None
    )


def _pause(decisions: Decisions, name: str, reason: str) -> Decided:
    before = decisions.catalog().attempts.paused().get(name)
    decisions.pause([name], reason=reason)
    return Decided(component=name, changed=before is None or before.reason != reason)


def _resume(decisions: Decisions, name: str, _: str) -> Decided:
    return Decided(component=name, changed=bool(decisions.resume([name])))


def _hold(decisions: Decisions, name: str, reason: str) -> Decided:
    before = decisions.store.newest_release()
    release = decisions.hold([name], reason=reason)
    changed = before is None or before.number != release.number
    return Decided(component=name, changed=changed, release=release.number)


def _lift(decisions: Decisions, name: str, reason: str) -> Decided:
    release, lifted = decisions.lift([name], reason=reason)
    return Decided(component=name, changed=bool(lifted), release=release.number)


_MEANINGS: Final = {
    "hold": "Keep the version that is served now.",
    "lift": "Let a held component follow its source again.",
    "pause": "Build nothing of a component by itself; what it serves stays.",
    "resume": "Let a paused component be built again.",
}
_ACTS: Final = {"hold": _hold, "lift": _lift, "pause": _pause, "resume": _resume}


def _release_view(store: ArtifactStore, release: Release, *, is_newest: bool) -> ReleaseView:
    components = {}
    for name, facts in versions_of(store, release).items():
        manifest = manifest_of(store, name, facts.version)
        hold = release.holds.get(name)
        components[name] = ReleasedComponent(
            **facts.model_dump(),
            group=release.groups.get(name),
            held=None if hold is None else decision_state(hold),
            checks_failed=None
            if manifest is None
            else sum(not check.passed for check in manifest.checks),
        )
    return ReleaseView(
        number=release.number,
        made_at=release.created_at,
        by=shown(release.by),
        reason=shown(release.reason),
        previous=release.previous,
        digest=release.digest,
        newest=is_newest,
        canary=() if release.canary is None else release.canary.readers,
        components=components,
    )


def _diff_fields(diff: ReleaseDiff, *, readers: int) -> dict[str, Any]:
    return {
        "before": diff.before,
        "after": diff.after,
        "components": {
            name: ChangeView(
                change=each.change,
                before=each.before,
                after=each.after,
                redefined=each.redefined,
                back=_is_older(each.after, each.before),
            )
            for name, each in diff.components.items()
        },
        "same": diff.same,
        "held": {name: decision_state(hold) for name, hold in diff.held.items()},
        "lifted": diff.lifted,
        "regrouped": diff.regrouped,
        "readers": readers,
    }


def _is_older(one: VersionFacts | None, other: VersionFacts | None) -> bool:
    times = [each.built_at for each in (one, other) if each is not None and each.built_at]
    return len(times) == 2 and times[0] < times[1]


def _preview(
    store: ArtifactStore, newest: Release, changed: Release, to: int, *, readers: int
) -> RollbackPreview:
    # What canaries try is taken back as well: readers go from what each of them serves.
    found = difference(store, newest, changed)
    return RollbackPreview(
        **_diff_fields(found, readers=readers),
        rolled_back_to=to,
        stays_held=tuple(sorted(newest.holds.keys() & changed.holds.keys())),
        reason=shown(changed.reason),
    )


def _see_newest(decided_on: int | None, newest: int) -> None:
    if decided_on is not None and decided_on != newest:
        raise RefusedError(409, f"release {newest} was made meanwhile; look at it first")


def _live_readers(resources: AdminResources) -> int:
    look = resources.state.look()
    return 0 if look is None else len(look.look.seen.facts.known_readers)
