"""The command line: which commands there are, and the options that several of them share.

`COMMANDS` lists every command with its one line of help. A command's own module is imported when
the command runs, so that ``indexrelay --help`` answers before FAISS or SQLAlchemy is found on the
disk. A test holds that the list agrees with the modules.

Completion of names runs at every press of the tab key. It reads the settings file itself, checks
nothing, opens nothing, and reports no error.
"""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup

from indexrelay.console.commands.manual import MANUAL

_RUN: Final = "Run it"
_LOOK: Final = "Look"
_DO: Final = "Do something about it"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One command as the list has it."""

    module: str
    """Where it is: a function of the command's name, or (with ``verbs``) the group ``app``."""
    panel: str
    help: str
    verbs: tuple[str, ...] = ()


COMMANDS: Final[Mapping[str, Listed]] = {
    "demo": Listed(
        module="demo",
        panel=_RUN,
        help="Index real text, batch by batch, and ask several reader processes about it.",
    ),
    "check": Listed(
        module="commands.check",
        panel=_RUN,
        help="Check the settings, open each source and ask Redis: a mistake exits 2, "
        "not well exits 3.",
    ),
    "config": Listed(
        module="commands.config",
        panel=_RUN,
        help="The settings: whether they are right, or each of them and where it comes from.",
        verbs=("check", "show"),
    ),
    "up": Listed(
        module="commands.up",
        panel=_RUN,
        help="Run the server (unless a URL is given), a rebuilder, readers and the admin page; "
        "stop them all at the end.",
    ),
    "rebuilder": Listed(
        module="commands.roles", panel=_RUN, help="Build what is due until SIGTERM or Ctrl-C."
    ),
    "reader": Listed(
        module="commands.roles",
        panel=_RUN,
        help="Serve what is released, over HTTP, until SIGTERM or Ctrl-C.",
    ),
    "operator": Listed(
        module="commands.roles",
        panel=_RUN,
        help="Do what is done by the clock, such as scheduled rebuilds, until SIGTERM or Ctrl-C.",
    ),
    "admin": Listed(
        module="commands.admin",
        panel=_RUN,
        help="Serve the admin page until SIGTERM or Ctrl-C; or make a password for it.",
        verbs=("password",),
    ),
    "mcp": Listed(
        module="commands.mcp",
        panel=_RUN,
        help="Answer an agent over stdin and stdout, by the Model Context Protocol.",
    ),
    "status": Listed(
        module="commands.status",
        panel=_LOOK,
        help="Collections, components, readers and rebuilders; exits 3 unless all is well.",
    ),
    "monitor": Listed(
        module="commands.monitor",
        panel=_LOOK,
        help="For who watches it: health, metrics, alerts, and a dashboard for Grafana.",
        verbs=("health", "metrics", "alerts", "dashboard"),
    ),
    "search": Listed(
        module="commands.search",
        panel=_LOOK,
        help="Find the nearest entries; give --text, --vector, both of them, or --id.",
    ),
    "collections": Listed(
        module="commands.collections",
        panel=_LOOK,
        help="Where entries are: a list, one in detail, or an end to one.",
        verbs=("list", "show", "drop", "restore"),
    ),
    "components": Listed(
        module="commands.components",
        panel=_LOOK,
        help="What is built: a list, one in detail, and what keeps some back.",
        verbs=("list", "show", "pause", "resume", "hold", "lift", "rebuild"),
    ),
    "releases": Listed(
        module="commands.releases",
        panel=_LOOK,
        help="What was released: a list, one in detail, or what two have different.",
        verbs=("list", "show", "diff", "sign"),
    ),
    "backup": Listed(
        module="commands.backup",
        panel=_LOOK,
        help="Backups of releases and the catalog: a list, make one, verify, or restore.",
        verbs=("list", "create", "restore", "verify", "generate-key"),
    ),
    "readers": Listed(
        module="commands.readers",
        panel=_LOOK,
        help="Who serves: a list, one in detail, or another attempt at what failed.",
        verbs=("list", "show", "retry"),
    ),
    "dead": Listed(
        module="commands.dead_letters",
        panel=_LOOK,
        help="Dead letters: events that could not be read, kept byte for byte.",
        verbs=("list", "show", "retry", "drop"),
    ),
    "audit": Listed(
        module="commands.audit",
        panel=_LOOK,
        help="Who had what done on this host: the newest lines of the audit log.",
    ),
    "rebuild": Listed(
        module="commands.rebuild",
        panel=_DO,
        help="Ask for a rebuild; exits 3 when some of it failed, or is not well for another "
        "reason.",
    ),
    "schedule": Listed(
        module="commands.schedule",
        panel=_DO,
        help="What is rebuilt by the clock: a list, or one of them at once.",
        verbs=("list", "run"),
    ),
    "pause": Listed(
        module="commands.components",
        panel=_DO,
        help="Keep components from being built; what they serve stays.",
    ),
    "resume": Listed(
        module="commands.components", panel=_DO, help="Let paused components be built again."
    ),
    "hold": Listed(
        module="commands.components",
        panel=_DO,
        help="Keep components at the versions that are served now.",
    ),
    "lift": Listed(
        module="commands.components",
        panel=_DO,
        help="Let held components follow their sources again.",
    ),
    "rollback": Listed(
        module="commands.components",
        panel=_DO,
        help="Serve again what an earlier release served, and hold it.",
    ),
    "reconcile": Listed(
        module="commands.repair",
        panel=_DO,
        help="Compare everything once and repair what needs no build; exits 3 unless all is well "
        "then.",
    ),
    "maintenance": Listed(
        module="commands.maintenance",
        panel=_DO,
        help="Clean up, show what takes the disk, check every file, judge what is released.",
        verbs=("cleanup", "disk-usage", "scrub", "validate"),
    ),
    "service": Listed(
        module="commands.service",
        panel=_DO,
        help="Units of systemd for the roles: write them, or remove them.",
        verbs=("install", "uninstall"),
    ),
    "repair": Listed(
        module="commands.repair",
        panel=_DO,
        help="Repair a corrupt Redis; it shows first what it would do.",
        verbs=("redis",),
    ),
    "keys": Listed(
        module="commands.keys",
        panel=_DO,
        help="Keys that releases are signed with: make one, or show its public part.",
        verbs=("generate", "show"),
    ),
    "tokens": Listed(
        module="commands.tokens",
        panel=_DO,
        help="Tokens that readers ask for over HTTP: make one, or list those there are.",
        verbs=("generate", "list"),
    ),
}
"""Every command, in the order in which ``--help`` lists them."""
_WITHOUT_CONFIG: Final = frozenset(
    {
        "demo",
        "config",
        "admin password",
        "repair",
        "keys",
        "keys generate",
        "tokens",
        "tokens generate",
        "backup generate-key",
        "maintenance",
        "service",
        "service uninstall",
    }
)

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The settings; otherwise $INDEXRELAY_CONFIG, or indexrelay.toml here. "
        "Kinds and functions of your own may be modules in its folder.",
        show_default=False,
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Kept for those who read it later.")
]


@cache
def build_command() -> TyperGroup:
    """The command line: it runs a command by its arguments."""
    app = typer.Typer(
        help="Carries analysis batches into live, verified indexes in every serving process.\n\n"
        "Begin with `demo`, or with `check` and `up` beside your indexrelay.toml. "
        "`status` says what is wrong and what to do; most commands have `--json`.\n\n"
        "Exit codes: 0 success, 1 failure, 2 wrong call or settings, 3 partial, 130 Ctrl-C.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 - an app with a callback is one
    for name, listed in COMMANDS.items():
        group.add_command(_Listed(name, help=listed.help, rich_help_panel=listed.panel))
    return group


def load(name: str) -> TyperCommand | TyperGroup:
    """Import a command's module, and make the command; its signature is read for that."""
    listed = COMMANDS[name]
    module = import_module(f"indexrelay.console.{listed.module}")
    if listed.verbs:
        app: typer.Typer = module.app
    else:
        app = typer.Typer(add_completion=False)
        app.command(name)(getattr(module, name))
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand | TyperGroup)  # noqa: S101 - typer makes no others
    command.help = command.help if not listed.verbs else listed.help
    verbs = command.commands.items() if isinstance(command, TyperGroup) else ()
    for words, each in ((name, command), *((f"{name} {verb}", each) for verb, each in verbs)):
        if words in MANUAL:
            each.epilog = MANUAL[words].epilog(words)
    return command


def command_names(*, configured: bool = True) -> Iterator[str]:
    """Every command with the words of its name; ``configured``: those that take ``--config``."""
    for name, listed in COMMANDS.items():
        for words in (name, *(f"{name} {verb}" for verb in listed.verbs)):
            if not (configured and words in _WITHOUT_CONFIG):
                yield words


def alone(context: typer.Context, **given: object) -> bool:
    """Whether a group is called without a verb: then it lists what it has.

    Raises:
        typer.BadParameter: an option is before the verb, where it has no effect.
    """
    if context.invoked_subcommand is None:
        return True
    misplaced = [f"--{name}" for name, value in given.items() if value]
    if misplaced:
        raise typer.BadParameter(
            f"{', '.join(misplaced)} goes behind {context.invoked_subcommand}", ctx=context
        )
    return False


def confirm(what: str) -> None:
    """Ask on stderr whether ``what`` is meant; no is the default.

    Raises:
        typer.BadParameter: stdin is no terminal; ``--yes`` answers without it.
        typer.Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what} There is no terminal to ask on: give --yes")
    # Not typer's own question: that leaves a blank on stdout, where a document belongs.
    sys.stderr.write(f"{what} Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort


def component_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the declared components that begin so."""
    return _declared(context, "components", incomplete)


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the declared collections that begin so."""
    return _declared(context, "collections", incomplete)


def schedule_names(context: typer.Context, incomplete: str) -> list[str]:
    """Completion: the declared schedules that begin so."""
    return _declared(context, "schedules", incomplete)


def _declared(context: typer.Context, table: str, incomplete: str) -> list[str]:
    from indexrelay.schemas.settings_file import CONFIG, DEFAULT_FILE

    named = context.params.get("config") or os.environ.get(CONFIG) or DEFAULT_FILE
    try:
        declared = tomllib.loads(Path(named).read_text(encoding="utf-8-sig")).get(table)
    except (OSError, ValueError):
        return []
    return [name for name in declared or () if name.startswith(incomplete)]


class _Listed(TyperCommand):
    """A command as the list has it; the command itself is imported when it is called."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        return load(self.name or "").make_context(info_name, args, parent, **extra)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"indexrelay {version('indexrelay')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Options before the command; typer calls this for their sake."""
