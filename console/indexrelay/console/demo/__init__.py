"""``indexrelay demo``: one whole installation on real text, from an analysis job to answers.

Read and embed the texts, start a rebuilder and readers, commit batch by batch, ask every reader the
same questions, report, stop. The demo uses nothing that a user does not have: settings, a producer,
and the command line's own roles as child processes. Whatever is started or made is on one stack and
is undone in the reverse order, however the demo ends.
"""

import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from indexrelay.console.demo.corpus import plan, standard_library, text_folder
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.demo.job import Job, admin_started, check_running, started
from indexrelay.console.demo.report import Observed, ask_all, report_page, summarise
from indexrelay.console.demo.settings import COLLECTION, check_component, declare, marker
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.processes import REDIS_URL, Child, Stop
from indexrelay.console.terminal import print_json, stderr, stdout
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import LogSettings
from indexrelay.streams.server import EmbeddedServer, noted_socket

_FEWEST_BATCHES: Final = 8
_LOOK_SECONDS: Final = 0.5
_OUR_VARIABLES: Final = "INDEXRELAY_"
_CATALOG_URL: Final = "INDEXRELAY_CATALOG__URL"


def demo(
    readers: Annotated[int, typer.Option(min=1, max=64, help="How many reader processes.")] = 3,
    batches: Annotated[
        int, typer.Option(min=_FEWEST_BATCHES, max=1000, help="How many batches the job commits.")
    ] = _FEWEST_BATCHES,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of text files; otherwise the docstrings of Python's standard library.",
        ),
    ] = None,
    fail: Annotated[
        str | None,
        typer.Option(metavar="COMPONENT", help="Let its build fail in one batch, then heal."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep everything there; otherwise it is removed."),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url", metavar="URL", help="A server to use instead of the embedded one."
        ),
    ] = None,
    catalog_url: Annotated[
        str | None,
        typer.Option(
            "--catalog-url", metavar="URL", help="A database to use instead of SQLite in the data."
        ),
    ] = None,
    stay: Annotated[
        bool,
        typer.Option("--stay", help="Serve the admin page, and stay until Ctrl-C, to look around."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Index real text, batch by batch, and ask several reader processes about it."""
    raise typer.Exit(
        run_demo(
            DemoOptions(
                readers=readers,
                batches=batches,
                corpus=corpus,
                fail=fail,
                data=data,
                redis_url=redis_url,
                catalog_url=catalog_url,
                stay=stay,
                json=json,
            )
        )
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What was asked for on the command line."""

    readers: int
    batches: int
    corpus: Path | None
    fail: str | None
    data: Path | None
    redis_url: str | None
    catalog_url: str | None
    stay: bool
    json: bool


def run_demo(options: DemoOptions) -> ExitCode:
    """Run it, and print its report.

    Raises:
        CorpusError, CommandError, NotServedError, ProcessEndedError: with what to do about it.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(Stop(interrupt=True))
        try:
            return _run(options, stack, stop)
        except KeyboardInterrupt:
            return stop.exit_code


class Narrator:
    """A bar over the batches, with lines above it; without a terminal, the lines alone."""

    def __init__(self, *, steps: int) -> None:
        self._console = stderr()
        self._progress = Progress(
            TextColumn("batches"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("batches", total=steps)

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, soft_wrap=True)

    def step(self, line: str) -> None:
        """Print the line of one batch, and move the bar."""
        self.say(line)
        self._progress.advance(self._task)

    def close(self) -> None:
        """Take the bar away; safe twice."""
        self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _run(options: DemoOptions, stack: ExitStack, stop: Stop) -> ExitCode:
    check_component(options.fail)
    configure_logs(LogSettings(level="warning"))
    clock = SystemClock()
    began = clock.monotonic()
    narrator = stack.enter_context(Narrator(steps=options.batches))
    narrator.say("reading the texts")
    corpus = standard_library() if options.corpus is None else text_folder(options.corpus)
    narrator.say(str(corpus))
    planned = plan(corpus.documents, batches=options.batches)
    embedding = Embedding()
    narrator.say(f"embedded as vectors of {embedding.dimension} dimensions")

    data_dir = _data_dir(options.data, stack)
    environ = _environ(options, data_dir, stack)
    config, settings = declare(
        data_dir,
        namespace=f"demo_{secrets.token_hex(4)}",
        dimension=embedding.dimension,
        breakable=options.fail,
        environ=environ,
    )
    installation = stack.enter_context(Installation(settings))
    _claim(installation, options, stack)
    children = started(
        installation, config=config, environ=environ, readers=options.readers, stack=stack
    )
    narrator.say(f"started a rebuilder and {options.readers} reader(s)")
    job = Job(
        installation,
        embedding=embedding,
        clock=clock,
        children=children,
        readers=options.readers,
        fail=options.fail,
        marker=marker(data_dir),
    )
    for number, batch in enumerate(planned.batches):
        failing = options.fail is not None and number == options.batches // 2
        narrator.step(job.run(batch, failing=failing))
    answers, narrowed = ask_all(installation, embedding)
    report = summarise(
        Observed(
            corpus=corpus,
            live=planned.live - job.without_vector,
            batches=job.batches,
            results=job.results,
            answers=answers,
            narrowed=narrowed,
            readers=options.readers,
            seconds=clock.monotonic() - began,
        ),
        installation,
    )
    narrator.close()
    if options.json:
        print_json(report)
    else:
        stdout().print(report_page(report))
        if options.data is not None:
            stdout().print(
                f"look around: {commands.STATUS} --config {shlex.quote(str(config))}",
                soft_wrap=True,
            )
    if options.stay:
        page = admin_started(installation, config=config, environ=environ, stack=stack)
        stderr().print(
            f"admin page: {page.address}\nCtrl-C ends the demo"
            + ("" if options.data else ", and removes what it made"),
            soft_wrap=True,
        )
        _stay([*children, page.child], stop)
    return ExitCode.SUCCESS if report.converged and report.agree else ExitCode.FAILURE


def _stay(children: Sequence[Child], stop: Stop) -> None:
    """Wait for a signal, which is no failure here.

    Raises:
        ProcessEndedError: a child ended.
    """
    with suppress(KeyboardInterrupt):
        while not stop.wait(_LOOK_SECONDS):
            check_running(children)


def _data_dir(chosen: Path | None, stack: ExitStack) -> Path:
    """An empty folder: the one that was asked for, or a temporary one that is removed."""
    if chosen is None:
        temporary = Path(tempfile.mkdtemp(prefix="indexrelay-demo-"))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        return temporary
    chosen.mkdir(parents=True, exist_ok=True)
    if any(chosen.iterdir()):
        raise CommandError(f"{chosen} is not empty; give the demo a folder of its own")
    return chosen.resolve()


def _environ(options: DemoOptions, data_dir: Path, stack: ExitStack) -> Mapping[str, str]:
    """The children's variables: none of the user's own installation, and where the servers are."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(_OUR_VARIABLES)
    }
    if options.catalog_url is not None:
        environ[_CATALOG_URL] = options.catalog_url
    if options.redis_url is not None:
        environ[REDIS_URL] = options.redis_url
    else:
        server = EmbeddedServer(data_dir)
        stack.callback(_forget_socket, data_dir)
        stack.callback(server.stop)
        environ[REDIS_URL] = server.start()
    return environ


def _forget_socket(data_dir: Path) -> None:
    """Under a deep data folder the server's socket is elsewhere, in a folder of its own."""
    socket = noted_socket(data_dir / "redis")
    if socket is not None and data_dir not in socket.parents:
        shutil.rmtree(socket.parent, ignore_errors=True)


def _claim(installation: Installation, options: DemoOptions, stack: ExitStack) -> None:
    """On servers of the user's: disturb nothing that is there, and leave nothing."""
    if options.catalog_url is not None:
        catalog = installation.catalog
        if any(collection.name == COLLECTION for collection in catalog.collections.all()):
            raise CommandError(
                f"the catalog at --catalog-url holds a collection {COLLECTION!r} already; "
                "give the demo a database of its own"
            )
        collection = installation.settings.collections[COLLECTION]
        catalog.collections.declare(
            COLLECTION, dimension=collection.dimension, metric=collection.metric
        )
        stack.callback(catalog.collections.drop, COLLECTION)
    if options.redis_url is not None:
        stack.callback(_forget_keys, installation)


def _forget_keys(installation: Installation) -> None:
    """Remove every key of the demo's own namespace, which has a random name."""
    commands = installation.connection.commands
    for key in commands.scan_iter(match=f"{{{installation.keys.namespace}}}:*", count=1000):
        commands.delete(key)
