"""``indexrelay backup``: make, list, verify and restore backups, and make a key for them.

A backup is a release with all that it names, and the catalog. Restoring makes a new release of it,
announced at once; nothing is changed unless the whole backup is sound.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.commands.components import SOURCE
from indexrelay.console.commands.status import NONE, passed_mark
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation, person
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import advice_line, print_json, stderr, stdout
from indexrelay.operations.backups import Backups, generate_identity
from indexrelay.operations.backups.backups import BackupFacts, facts_of, verified_facts
from indexrelay.operations.decisions import announce_release
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.errors import BackupUnknownError

app = typer.Typer(add_completion=False)
Id = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it: 20241105_143000.")]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FILE",
        help="The private key of an encrypted backup; default: backups.identity_file.",
    ),
]


@app.callback(invoke_without_command=True)
def backup(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each backup; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_backups(config=config, json=json)


@app.command("list")
def list_backups(identity: Identity = None, config: Config = None, json: Json = False) -> None:
    """Each backup, the newest first: of which release, how large, and what is in it."""
    with Installation.at(config) as installation:
        backups = backups_of(installation)
        found = [facts_of(backups, each, identity) for each in backups.folder.all()]
    if json:
        print_json({"backups": [each.model_dump(mode="json") for each in found]})
    else:
        stdout().print(backups_table(found))


@app.command()
def create(
    release: Annotated[
        int | None, typer.Argument(metavar="RELEASE", min=1, help="Default: the newest.")
    ] = None,
    with_catalog: Annotated[
        bool | None,
        typer.Option(
            "--with-catalog/--without-catalog",
            help="Whether the catalog is in it; default: backups.with_catalog.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Back up a release, and remove older backups that do not stay by the settings."""
    with Installation.at(config) as installation, bytes_bar("backing up") as progress:
        created = backups_of(installation).create(
            release=release, with_catalog=with_catalog, progress=progress
        )
        installation.audit(
            AuditAction.BACKED_UP,
            subject=created.backup.id,
            release=created.manifest.release.number,
            with_catalog=created.manifest.catalog is not None,
            removed=[each.id for each in created.removed] or None,
        )
    facts = BackupFacts.of(created.backup, created.manifest)
    if json:
        print_json(
            {**facts.model_dump(mode="json"), "removed": [each.id for each in created.removed]}
        )
        return
    lines = [
        Text(
            f"✓ backup {facts.id} of release {facts.release}, "
            f"{'with' if facts.catalog else 'without'} the catalog: "
            f"{figures.size(facts.bytes)} in {facts.path}"
        )
    ]
    if created.removed:
        lines.append(
            Text(f"  removed, by the settings: {', '.join(each.id for each in created.removed)}")
        )
    stdout().print(Group(*lines), soft_wrap=True)


@app.command()
def restore(
    id_: Id,
    with_catalog: Annotated[
        bool,
        typer.Option(
            "--with-catalog", help="The catalog as well; the one of the settings has to be empty."
        ),
    ] = False,
    hold: Annotated[
        bool | None,
        typer.Option(
            "--hold/--no-hold",
            help="Whether it is held at what is restored; default: where there is a release "
            "already, and the catalog stays.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="That of the installation that made it, if another."),
    ] = None,
    identity: Identity = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Kept for those who read it later.")
    ] = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Serve what a backup holds, as a new release; first all of it is checked."""
    with Installation.at(config) as installation, bytes_bar("restoring") as progress:
        done = backups_of(installation).restore(
            id_,
            with_catalog=with_catalog,
            hold=hold,
            namespace=namespace,
            identity_file=identity,
            reason=reason,
            progress=progress,
        )
        installation.audit(
            AuditAction.RESTORED,
            subject=id_,
            release=done.release.number,
            of_release=done.manifest.release.number,
            with_catalog=done.generations is not None,
            reason=reason or None,
        )
        announce_release(
            done.release,
            connection=lambda: installation.connection,
            namespace=installation.settings.namespace,
            source=SOURCE,
            clock=SystemClock(),
        )
    held = sorted(set(done.release.holds) & set(done.manifest.versions))
    if json:
        print_json(
            {
                "backup": id_,
                "release": done.release.number,
                "of_release": done.manifest.release.number,
                "held": held,
                "generations": done.generations,
            }
        )
        return
    lines = [
        Text(
            f"✓ release {done.release.number} serves what release {done.manifest.release.number} "
            f"served, from the backup {id_}"
        )
    ]
    for name, generation in (done.generations or {}).items():
        lines.append(Text(f"  {name} goes on at generation {generation}, and is built in full"))
    if held:
        lines.append(advice_line(f"it is held; back to what is built: {commands.lift(*held)}"))
    stdout().print(Group(*lines), soft_wrap=True)


@app.command()
def verify(
    id_: Annotated[
        str | None, typer.Argument(metavar="ID", help="Default: the newest.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every backup.")] = False,
    identity: Identity = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Read backups to their end, and check each digest; exits 3 when one is not sound."""
    if id_ is not None and every:
        raise typer.BadParameter("give an ID or --all, not both")
    with Installation.at(config) as installation:
        backups = backups_of(installation)
        chosen = backups.folder.all() if id_ is None else [backups.folder.get(id_)]
        if not chosen:
            raise BackupUnknownError("latest", [], backups.folder.path)
        found = []
        for each in chosen if every else chosen[:1]:
            with bytes_bar(f"verifying {each.id}") as progress:
                found.append(verified_facts(backups, each, identity, progress))
    if json:
        print_json({"backups": [each.model_dump(mode="json") for each in found]})
    else:
        for facts in found:
            line = Text.assemble(passed_mark(facts.error is None), f" {facts.id}: ")
            stdout().print(line + Text(facts.error or _contents(facts)), soft_wrap=True)
    if any(facts.error for facts in found):
        raise typer.Exit(ExitCode.PARTIAL)


@app.command("generate-key")
def generate_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key.")],
    json: Json = False,
) -> None:
    """Make a key: the private part goes into a new file of yours alone, the public one is shown."""
    public = generate_identity(file)
    if json:
        print_json({"file": str(file), "public_key": public})
        return
    stdout().print(public, soft_wrap=True)
    stderr().print(
        f"The private key is in {file}; without it no backup that is encrypted for it can be "
        "opened. Keep a copy of it away from the backups. Where they are made:\n"
        f'  backups.recipients = ["{public}"]\n'
        "Where they are verified and restored:\n"
        f'  backups.identity_file = "{file}"',
        soft_wrap=True,
    )


def backups_of(installation: Installation) -> Backups:
    """The backups of an installation, made by who types."""
    return Backups(
        installation.settings,
        store=installation.store,
        open_catalog=lambda: installation.catalog,
        by=person(),
    )


def backups_table(found: Iterable[BackupFacts]) -> RenderableType:
    """One row for each, the newest first."""
    rows = list(found)
    if not rows:
        return Group(
            Text("there is no backup yet"), advice_line(f"make one: {commands.CREATE_BACKUP}")
        )
    sheet = Sheet(
        "Backups",
        whole("backup"),
        whole("made"),
        number("release"),
        number("components"),
        number("size"),
        flowing("in it"),
        spare("by"),
    )
    for each in rows:
        sheet.add(
            each.id,
            figures.ago(each.begun_at),
            NONE if each.release is None else str(each.release),
            NONE if each.release is None else str(len(each.components)),
            figures.size(each.bytes),
            each.error or _contents(each),
            each.by or NONE,
        )
    return sheet


@contextlib.contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on stderr, where that is a terminal; call what it yields with done and all."""
    console = stderr()
    bar = Progress(
        TextColumn(label),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _contents(facts: BackupFacts) -> str:
    parts = ["encrypted"] if facts.encrypted else []
    parts += ["a folder"] if facts.folder else []
    if facts.release is not None:
        parts.append(", ".join(facts.components) or "no component")
        parts.append(f"{figures.size(facts.content_bytes or 0)} of files")
        parts.append("with the catalog" if facts.catalog else "without the catalog")
    return "; ".join(parts)
