"""``indexrelay rebuild``: ask for a rebuild and wait for its result, or run one pass here.

The request is a row in the catalog; the event only wakes a rebuilder. The result is in that row,
too. An event in the results stream is only the moment to look there: anybody may have added it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, Reason, component_names
from indexrelay.console.commands.status import NONE, builds_of, covered, problems_page
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation, person, signals_of, verdict_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import adapted, note, print_json, stderr, stdout
from indexrelay.health.status import BUILDS, Problem
from indexrelay.operations.rebuilds import (
    RebuildRequest,
    all_components,
    ask_for_rebuild,
    listed,
)
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.messages import BuildOutcome, RebuilderState, RebuildResult, RebuildStatus
from indexrelay.schemas.versions import ancestors_of, root_collections
from indexrelay.storage.audit import AuditLog
from indexrelay.streams.consumer import Tail
from indexrelay.streams.server import EmbeddedServer

_LOOK_SECONDS: Final = 0.5
_SOON_SECONDS: Final = 0.02
_SOON_LOOKS: Final = 50
"""A result is published just before its rows are closed: then they are looked at more often."""
_COUNT: Final = 100
_WAITING: Final = "waiting for the result"


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
            names, kept_back = all_components(
                installation.settings,
                release=installation.store.newest_release(),
                paused=installation.catalog.attempts.paused(),
            )
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
    wanted: RebuildRequest,
    *,
    timeout_seconds: float | None,
    json: bool,
) -> ExitCode:
    """Ask for a rebuild, and show what came of it; raises what `request` does."""
    with _progress_shown(waiting=timeout_seconds is not None) as show:
        requested = request(installation, wanted, timeout_seconds=timeout_seconds, show=show)
    return _shown(requested, json=json)


@contextmanager
def _progress_shown(*, waiting: bool) -> Iterator[Callable[[str], None]]:
    """Shows a line while the result is waited for; on a terminal only."""
    if not waiting:
        yield lambda _line: None
        return
    with stderr().status(_WAITING) as status:
        yield lambda line: status.update(Text(line))


def _shown(requested: "Requested", *, json: bool) -> ExitCode:
    if json:
        print_json(requested)
    else:
        stdout().print(result_page(requested))
        if requested.well is not None:
            well = "what is declared is built and released"
            stdout().print(problems_page(requested.problems, well=well))
    return _exit_code(requested)


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
    installation: Installation,
    wanted: RebuildRequest,
    *,
    timeout_seconds: float | None,
    show: Callable[[str], None] = lambda _line: None,
) -> Requested:
    """Ask for a rebuild; ``timeout_seconds=None`` does not wait for the result.

    ``show`` is given how far it is, in a line, again and again.

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
        installation,
        tail,
        request_id,
        timeout_seconds=timeout_seconds,
        clock=SystemClock(),
        show=show,
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
    return ask_for_rebuild(
        wanted,
        producer=installation.producer,
        audit=AuditLog.of(installation.settings),
        who=person(),
    )


def _awaited(
    installation: Installation,
    tail: Tail,
    request_id: str,
    *,
    timeout_seconds: float,
    clock: Clock,
    show: Callable[[str], None],
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
        if not soon:
            show(progress_line(signals_of(installation).rebuilders))
        if clock.monotonic() >= deadline:
            raise CommandError(
                f"no result within {timeout_seconds:g} s; the request stays; look for its result "
                f"with: {commands.STATUS}"
            )


def progress_line(rebuilders: Mapping[str, RebuilderState]) -> str:
    """What is built, and how far each is: ``waiting for the result: index (building, 40 %)``."""
    builds = ", ".join(each for state in rebuilders.values() for each in builds_of(state))
    return f"{_WAITING}: {builds}" if builds else _WAITING


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
