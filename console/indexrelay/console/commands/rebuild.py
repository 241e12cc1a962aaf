"""``indexrelay rebuild``: ask for a rebuild and wait for its result, or run one pass here.

The request is a row in the catalog; the event only wakes a rebuilder. The result is in that row,
too. An event in the results stream is only the moment to look there: anybody may have added it.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, Reason, component_names
from indexrelay.console.commands.status import NONE, covered, problems_page
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation, signals_of, verdict_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import adapted, note, print_json, stderr, stdout
from indexrelay.health.status import BUILDS, Problem
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.messages import BuildOutcome, RebuildResult, RebuildStatus
from indexrelay.schemas.versions import ancestors_of, root_collections
from indexrelay.storage.audit import AuditAction
from indexrelay.streams.consumer import Tail
from indexrelay.streams.server import EmbeddedServer

_LOOK_SECONDS: Final = 0.5
_SOON_SECONDS: Final = 0.02
_SOON_LOOKS: Final = 50
"""A result is published just before its rows are closed: then they are looked at more often."""
_COUNT: Final = 100


def rebuild(
    components: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT", help="Default: whatever is due.", autocompletion=component_names
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every component, due or not; not what is paused or held.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="From scratch, instead of continuing the last version.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if more entries went than max_shrink allows.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Run one pass in this process, without a rebuilder.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait at most."),
    ] = 3600.0,
    reason: Reason = "by hand",
    config: Config = None,
    json: Json = False,
) -> None:
    """Ask for a rebuild; exits 3 when some of it failed, or is not well for another reason."""
    if every and components:
        raise typer.BadParameter("give the components' names, or --all")
    with Installation.at(config) as installation:
        names = tuple(components or ())
        if every:
            names, kept_back = all_components(installation)
            if kept_back:
                note(f"left as they are: {listed(kept_back)}")
        wanted = RebuildRequest(components=names, force=force, full=full, reason=reason)
        if here:
            with stderr().status("building"):
                requested = rebuild_here(installation, wanted)
            code = _shown(requested, json=json)
        else:
            code = answer_request(
                installation, wanted, timeout_seconds=timeout if wait else None, json=json
            )
    raise typer.Exit(code)


def answer_request(
    installation: Installation,
    wanted: "RebuildRequest",
    *,
    timeout_seconds: float | None,
    json: bool,
) -> ExitCode:
    """Ask for a rebuild, and show what came of it; raises what `request` does."""
    waiting = timeout_seconds is not None
    with stderr().status("waiting for the result") if waiting else nullcontext():
        requested = request(installation, wanted, timeout_seconds=timeout_seconds)
    return _shown(requested, json=json)


def _shown(requested: "Requested", *, json: bool) -> ExitCode:
    if json:
        print_json(requested)
    else:
        stdout().print(result_page(requested))
        if requested.well is not None:
            well = "what is declared is built and released"
            stdout().print(problems_page(requested.problems, well=well))
    return _exit_code(requested)


@dataclass(frozen=True, kw_only=True)
class RebuildRequest:
    """A request for a rebuild, as a person makes it."""

    components: Sequence[str] = ()
    """Due or not; empty: whatever is due."""
    force: bool = False
    """Also if more entries went than ``max_shrink`` allows."""
    full: bool = False
    """From scratch."""
    failure_cooldown_seconds: float | None = None
    """Leave out what is paused, or failed too often and not so long ago (`RebuildRequested`)."""
    reason: str = "by hand"


class Requested(BaseModel):
    """A request, and its result if that was waited for."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    rebuilders: tuple[str, ...]
    """The ids of the rebuilders that were alive."""
    waited: bool
    result: RebuildResult | None
    """``None``: not waited for, or nothing was due."""
    well: bool | None = None
    """Whether everything that was asked for is built and released now; ``None``: not waited for."""
    problems: tuple[Problem, ...] = ()
    """What is not, as `indexrelay status` has it."""


def request(
    installation: Installation, wanted: RebuildRequest, *, timeout_seconds: float | None
) -> Requested:
    """Ask for a rebuild; ``timeout_seconds=None`` does not wait for the result.

    Raises:
        CommandError: no rebuilder is there to wait for, or no result came in time.
        UndeclaredComponentError: the settings do not declare one of them.
    """
    signals = signals_of(installation)
    if timeout_seconds is None:
        request_id = _insert(installation, wanted)
        return Requested(
            request_id=request_id, rebuilders=signals.rebuilder_ids, waited=False, result=None
        )
    if signals.error is not None:
        raise CommandError(f"results come through Redis, which does not answer: {signals.error}")
    if not signals.rebuilders:
        here = commands.rebuild(*wanted.components, force=wanted.force, full=wanted.full, here=True)
        raise CommandError(
            f"no rebuilder is running; start one, {commands.REBUILDER}, or build here: {here}"
        )
    tail = Tail(installation.connection, installation.keys.results)
    tail.read(count=_COUNT, block_seconds=0)  # from here on
    request_id = _insert(installation, wanted)
    result = _awaited(
        installation, tail, request_id, timeout_seconds=timeout_seconds, clock=SystemClock()
    )
    requested = Requested(
        request_id=request_id, rebuilders=signals.rebuilder_ids, waited=True, result=result
    )
    return _judged(requested, installation, wanted)


def rebuild_here(installation: Installation, wanted: RebuildRequest) -> Requested:
    """Run one pass in this process; builds still have child processes of their own.

    Without a Redis URL the embedded server runs meanwhile, as it does for a role: the pass takes
    leases and announces its release there.

    Raises:
        NoServerError, ServerStartError: there is no server, and none can be started.
        UndeclaredComponentError: the settings do not declare one of them.
        RedisError, IndexRelayError: events cannot be read.
    """
    from indexrelay.rebuilder.builds.process import LOGGER
    from indexrelay.rebuilder.service import Rebuilder

    # A command shows warnings only. Who builds by hand wants to see what the build prints, too.
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    with ExitStack() as stack:
        if installation.settings.redis_url is None:
            stack.enter_context(EmbeddedServer(installation.settings.data_dir))
        signals = signals_of(installation)
        request_id = _insert(installation, wanted)
        rebuilder = Rebuilder(
            installation.settings,
            catalog=installation.catalog,
            store=installation.store,
            connection=installation.connection,
        )
        stack.callback(rebuilder.stop)
        result = rebuilder.step()
        rebuilder.stop()
        requested = Requested(
            request_id=request_id, rebuilders=signals.rebuilder_ids, waited=True, result=result
        )
        return _judged(requested, installation, wanted)


def all_components(installation: Installation) -> tuple[tuple[str, ...], dict[str, str]]:
    """Every declared component but those that are paused or held; and these with the reason.

    Somebody decided about each of them by its name; "all" does not overrule that.

    Raises:
        CommandError: all of them are kept back.
    """
    release = installation.store.newest_release()
    held = {} if release is None else release.holds
    paused = installation.catalog.attempts.paused()
    kept_back = {
        name: f"held: {held[name].reason}" if name in held else f"paused: {paused[name].reason}"
        for name in installation.settings.components
        if name in held or name in paused
    }
    names = tuple(name for name in installation.settings.components if name not in kept_back)
    if not names:
        raise CommandError(f"every component is kept back: {listed(kept_back)}")
    return names, kept_back


def listed(kept_back: dict[str, str]) -> str:
    """``map (paused: too loud), index (held: by hand)``."""
    return ", ".join(f"{name} ({why})" for name, why in kept_back.items()) or "there is none"


def result_page(requested: Requested) -> RenderableType:
    """The result of a request, or that it waits for one."""
    result = requested.result
    if result is None and requested.waited:
        return Text("nothing was due")
    if result is None:
        seen = f"; {len(requested.rebuilders)} rebuilder(s) will see it"
        nobody = f"; no rebuilder is running, start one: {adapted(commands.REBUILDER)}"
        return Text(
            f"requested as {requested.request_id}{seen if requested.rebuilders else nobody}"
        )
    release = "" if result.release is None else f" (release {result.release})"
    verdict = Text(f"{result.status}: {result.message}{release}")
    if not result.components:
        return verdict
    sheet = Sheet(
        "",
        whole(""),
        flowing("component"),
        whole("outcome"),
        spare("build"),
        flowing("covers"),
        number("entries"),
        number("took"),
        flowing("error"),
    )
    for name, component in result.components.items():
        sheet.add(
            "✓" if component.outcome is BuildOutcome.REBUILT else "✗",
            name,
            str(component.outcome),
            str(component.mode or NONE),
            covered(component.covers),
            f"{component.entries:,}",
            figures.seconds(component.seconds),
            component.error or "",
        )
    return Group(sheet, verdict)


def _exit_code(requested: Requested) -> ExitCode:
    if requested.result is None or requested.result.status is RebuildStatus.SUCCESS:
        return ExitCode.PARTIAL if requested.well is False else ExitCode.SUCCESS
    return {
        RebuildStatus.PARTIAL_SUCCESS: ExitCode.PARTIAL,
        RebuildStatus.FAILURE: ExitCode.FAILURE,
    }[requested.result.status]


def _insert(installation: Installation, wanted: RebuildRequest) -> str:
    """Insert the request into the catalog; returns its id."""
    request_id = installation.producer.request_rebuild(
        wanted.components,
        force=wanted.force,
        full=wanted.full,
        failure_cooldown_seconds=wanted.failure_cooldown_seconds,
        reason=wanted.reason,
    )
    installation.audit(
        AuditAction.REBUILD_REQUESTED,
        subject=", ".join(wanted.components) or None,
        request_id=request_id,
        reason=wanted.reason,
        force=wanted.force or None,
        full=wanted.full or None,
    )
    return request_id


def _awaited(
    installation: Installation,
    tail: Tail,
    request_id: str,
    *,
    timeout_seconds: float,
    clock: Clock,
) -> RebuildResult | None:
    deadline = clock.monotonic() + timeout_seconds
    soon = 0
    while True:
        block = _SOON_SECONDS if soon else _LOOK_SECONDS
        news = bool(tail.read(count=_COUNT, block_seconds=block).deliveries)
        soon = _SOON_LOOKS if news else max(0, soon - 1)
        answer = installation.catalog.inbox.answer(request_id)
        if answer is None or answer.finished:
            return None if answer is None else answer.result
        if clock.monotonic() >= deadline:
            raise CommandError(
                f"no result within {timeout_seconds:g} s; the request stays; look for its result "
                f"with: {commands.STATUS}"
            )


def _judged(requested: Requested, installation: Installation, wanted: RebuildRequest) -> Requested:
    """With the judge's problems of the components that were asked for, and of their inputs."""
    definitions = installation.settings.components
    subjects: set[str] | None = None
    if wanted.components:
        subjects = set()
        for name in wanted.components:
            subjects |= {name, *ancestors_of(name, definitions)}
            subjects |= root_collections(name, definitions)
    verdict = verdict_of(installation).within(BUILDS, subjects=subjects)
    return requested.model_copy(update={"well": verdict.well, "problems": verdict.problems})
