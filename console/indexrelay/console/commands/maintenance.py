"""``indexrelay maintenance``: what takes the disk, what may go, and whether all of it is sound.

``scrub`` reads every file of every kept version; ``validate`` also measures what is released now.

A rebuilder cleans up by itself (``rebuilder.gc_seconds``), and readers hash what they serve. These
commands do the same at once, for who is short of room or does not trust a disk.
"""

from collections import Counter
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, component_names
from indexrelay.console.commands.backup import backups_of, bytes_bar
from indexrelay.console.commands.status import facts_table
from indexrelay.console.disk_usage import (
    DiskUsage,
    blobs_in,
    blobs_sheet,
    catalog_bytes,
    components_in,
    counts,
    usage_page,
    versions_sheet,
)
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.scrub import scrubbed_page, scrubbed_versions
from indexrelay.console.terminal import note, print_json, stdout
from indexrelay.console.validation import validated, validation_sheet
from indexrelay.console.versions import NOTHING_RELEASED, require_released
from indexrelay.rebuilder.gc import GarbageCollector
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.artifacts import Collected
from indexrelay.storage.artifacts.history import manifest_of
from indexrelay.storage.audit import AuditAction
from indexrelay.streams.connection import Connection

log = get_logger(__name__)
app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def cleanup(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Remove what no kept release, reader or build needs, and backups that do not stay."""
    with Installation.at(config) as installation:
        collected = GarbageCollector(
            installation.settings,
            catalog=installation.catalog,
            store=installation.store,
            connection=connection_of(installation),
            keys=installation.keys,
            clock=SystemClock(),
        ).collect(dry_run=dry_run)
        audit_collected(installation, collected, dry_run=dry_run)
        backups = backups_of(installation).prune(dry_run=dry_run)
        if backups and not dry_run:
            ids = [each.id for each in backups]
            installation.audit(AuditAction.DELETED, subject="backups", backups=ids)
    removed = Removed(
        dry_run=dry_run,
        releases=collected.releases,
        versions=collected.versions,
        blobs=len(collected.blobs),
        blob_bytes=collected.bytes,
        staged_files=collected.staged,
        backups=tuple(each.id for each in backups),
        backup_bytes=sum(each.bytes for each in backups),
    )
    if json:
        print_json(removed)
    else:
        stdout().print(removed_page(removed), soft_wrap=True)


@app.command("disk-usage")
def disk_usage(
    versions: Annotated[
        bool, typer.Option("--versions", help="Also each version, and what it has for itself.")
    ] = False,
    blobs: Annotated[
        bool, typer.Option("--blobs", help="Also each blob, and how many versions share it.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """What takes how much of the disk: by component, version and blob, and what is shared."""
    with Installation.at(config) as installation:
        usage = installation.store.usage()
        catalog = catalog_bytes(installation.settings)
        document = DiskUsage(
            components=tuple(components_in(usage)),
            blobs=usage.blobs,
            blob_bytes=usage.blob_bytes,
            unnamed_blobs=usage.unnamed,
            unnamed_bytes=usage.unnamed_bytes,
            staged_bytes=usage.staged_bytes,
            catalog_bytes=catalog,
            backup_bytes=sum(each.bytes for each in backups_of(installation).folder.all()),
            blob_list=tuple(blobs_in(usage)) if blobs else None,
        )
    if json:
        print_json(document)
        return
    parts: list[RenderableType] = [usage_page(document)]
    if versions:
        parts.append(versions_sheet(document))
    if document.blob_list is not None:
        parts.append(blobs_sheet(document.blob_list))
    stdout().print(Group(*parts))


@app.command()
def scrub(
    component: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT",
            help="Only these; default: all.",
            autocompletion=component_names,
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Read every file of every kept version, and check its digest; exits 3 when one is corrupt."""
    with Installation.at(config) as installation:
        usage = installation.store.usage()
        known = {each.component for each in usage.versions}
        for name in component or ():
            if name not in known:
                raise UnknownNameError(f"no version of {name!r} is kept{suggestion(name, known)}")
        chosen = [each for each in usage.versions if not component or each.component in component]
        scrubbed = scrubbed_versions(installation.store, chosen)
    if json:
        print_json(scrubbed)
    else:
        stdout().print(scrubbed_page(scrubbed), soft_wrap=True)
    if scrubbed.corrupt:
        raise typer.Exit(ExitCode.PARTIAL)


@app.command()
def validate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT",
            help="Only these; default: all that is released.",
            autocompletion=component_names,
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Judge what is released now, byte by byte and by the limits of today; exits 3 when not all of
    it passes."""
    with Installation.at(config) as installation:
        released = require_released(installation, names or ())
        chosen = sorted(names or released)
        if not chosen:
            note(NOTHING_RELEASED)
            raise typer.Exit(ExitCode.FAILURE)
        store, definitions = installation.store, installation.settings.components
        sizes = [manifest_of(store, name, released[name]) for name in chosen]
        total, done = sum(each.size for each in sizes if each is not None), 0
        with bytes_bar("hashing") as bar:

            def read(count: int) -> bool:
                nonlocal done
                done += count
                bar(done, total)
                return True

            found = {
                name: validated(store, name, released[name], definitions.get(name), read=read)
                for name in chosen
            }
    valid = all(each.valid for each in found.values())
    if json:
        print_json(
            {
                "valid": valid,
                "components": {name: each.model_dump(mode="json") for name, each in found.items()},
            }
        )
    else:
        stdout().print(validation_sheet(found))
        for name in (name for name, each in found.items() if not each.valid):
            note(f"{name} does not pass; build it again: {commands.rebuild(name)}")
    if not valid:
        raise typer.Exit(ExitCode.PARTIAL)


class Removed(BaseModel):
    """What a cleanup removed, or would."""

    model_config = ConfigDict(frozen=True)

    dry_run: bool
    releases: tuple[int, ...]
    versions: tuple[tuple[str, str], ...]
    """Each with its component."""
    blobs: int
    blob_bytes: int
    staged_files: int
    backups: tuple[str, ...]
    backup_bytes: int


def audit_collected(installation: Installation, collected: Collected, *, dry_run: bool) -> None:
    """Record what a person had removed from the artifacts, if anything was."""
    if dry_run or not (collected.releases or collected.versions or collected.blobs):
        return
    installation.audit(
        AuditAction.DELETED,
        subject="artifacts",
        releases=[str(each) for each in collected.releases] or None,
        versions=[f"{component}/{id_}" for component, id_ in collected.versions] or None,
        blobs=list(collected.blobs) or None,
        bytes=collected.bytes,
    )


def connection_of(installation: Installation) -> Connection | None:
    """Redis; ``None``: it cannot be opened, and what readers serve is not known."""
    try:
        return installation.connection
    except (RedisError, IndexRelayError, OSError) as error:
        log.warning("readers.unknown", error=str(error), consequence="more is kept")
        return None


def removed_page(removed: Removed) -> RenderableType:
    """What went, or would."""
    verb = "would remove" if removed.dry_run else "removed"
    blobs = f"{removed.blobs} blob(s), {figures.size(removed.blob_bytes)}"
    rows = {
        "releases": ", ".join(map(str, removed.releases)) or "none",
        "versions": counts(Counter(component for component, _ in removed.versions)) or "none",
        "blobs": blobs if removed.blobs else "none",
        "left behind": f"{removed.staged_files} file(s)" if removed.staged_files else "none",
        "backups": f"{', '.join(removed.backups)}, {figures.size(removed.backup_bytes)}"
        if removed.backups
        else "none",
    }
    return Group(Text(verb, style="bold"), facts_table(rows))
