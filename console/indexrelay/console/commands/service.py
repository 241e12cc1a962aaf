"""``indexrelay service``: units of systemd for the roles of an installation, written or removed.

It writes files and runs nothing: what to type next is shown, for who may manage services.
"""

import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from indexrelay.console.commands import Config, Json
from indexrelay.console.installation import Installation
from indexrelay.console.terminal import ANSWERS, advice_line, note, print_json, stderr
from indexrelay.schemas.commands import PROGRAM
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import CONFIG, DEFAULT_FILE
from indexrelay.storage.catalog.database import sqlite_file

if TYPE_CHECKING:
    from indexrelay.operations.units import ServicePlace

app = typer.Typer(add_completion=False, no_args_is_help=True)

_SYSTEM: Final = Path("/etc/systemd/system")
Folder: TypeAlias = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Where the units are.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
]


@app.command()
def install(
    folder: Folder = _SYSTEM,
    user: Annotated[str, typer.Option(help="Who runs them; its group has its name.")] = PROGRAM,
    dry_run: DryRun = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write a unit for the rebuilder, for readers, and for an operator and an admin page that the
    settings name."""
    from indexrelay.operations.units import units_of, written

    with Installation.at(config) as installation:
        settings = installation.settings
    place = place_of(settings, config, user=user)
    units = units_of(place, with_operator=settings.has_duties, with_admin=settings.has_admin)
    if not dry_run:
        written(units, folder)
    following = _next_commands(place, units)
    if json:
        files = {str(folder / name): text for name, text in units.items()}
        print_json({"dry_run": dry_run, "files": files, "next": following})
        return
    for name, text in units.items():
        if dry_run:
            ANSWERS.stream.write(f"# {folder / name}\n{text}\n")
        else:
            ANSWERS.stream.write(f"{folder / name}\n")
    _advise(following)


@app.command()
def uninstall(folder: Folder = _SYSTEM, dry_run: DryRun = False, json: Json = False) -> None:
    """Remove the units that `install` wrote; changed ones and those of others stay."""
    from indexrelay.operations.units import ours, removed

    mine, others = ours(folder)
    if not dry_run:
        removed(mine)
    following = [] if not mine else ["systemctl daemon-reload"]
    stopped = [_stop_command(file.name) for file in mine]
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [str(file) for file in mine],
                "left": [str(file) for file in others],
                "next": [*stopped, *following],
            }
        )
        return
    for file in mine:
        ANSWERS.stream.write(f"{file}\n")
    for file in others:
        note(f"{file} stays: it was not written by this command, or was changed since")
    if not mine:
        note(f"there is no unit of ours in {folder}")
    _advise([*stopped, *following])


def place_of(settings: Settings, config: Path | None, *, user: str) -> "ServicePlace":
    """Where the installation with these settings is.

    Raises:
        UnitError: a unit cannot name a path, or a role could not see it.
    """
    from indexrelay.operations.units import ServicePlace, require_usable

    file = config or Path(os.environ.get(CONFIG) or DEFAULT_FILE)
    database = sqlite_file(settings.catalog_url)
    folders = [settings.data_dir, settings.artifacts_dir, settings.backups_dir]
    if database is not None:
        folders.append(database.parent)
    writable: list[Path] = []
    for each in sorted({each.absolute() for each in folders}):  # what is around another is first
        if not any(each.is_relative_to(other) for other in writable):
            writable.append(each)
    require_usable(Path(sys.base_prefix))  # a virtual environment's interpreter may be elsewhere
    return ServicePlace(
        program=Path(sys.executable).with_name(PROGRAM),
        config=file.expanduser().absolute(),
        writable=tuple(writable),
        user=user,
    )


def _next_commands(place: "ServicePlace", units: dict[str, str]) -> list[str]:
    """What makes the user and the folders, and starts what was written."""
    folders = " ".join(shlex.quote(str(each)) for each in place.writable)
    user = place.user
    started = [name.replace("@", "@8001") for name in units]
    try:
        pwd.getpwnam(user)
        made = []
    except KeyError:
        made = [f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {user}"]
    return [
        *made,
        f"install -d -o {user} -g {user} -m 0750 {folders}",
        "systemctl daemon-reload",
        *(f"systemctl enable --now --no-block {name}" for name in started),
    ]


def _stop_command(name: str) -> str:
    """What ends a unit; one that was removed runs on until then."""
    return f"systemctl disable --now '{name.replace('@', '@*')}'"


def _advise(lines: list[str]) -> None:
    for line in lines:
        stderr().print(advice_line(line), soft_wrap=True)
