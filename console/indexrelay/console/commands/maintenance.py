"""``indexrelay maintenance``: what takes the disk, what may go, and whether all of it is sound.

``scrub`` reads every file of every kept version; ``validate`` also measures what is released now.

A rebuilder cleans up by itself (``rebuilder.gc_seconds``), and readers hash what they serve. These
commands do the same at once, for who is short of room or does not trust a disk.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, component_names
from indexrelay.console.commands.backup import backups_of, bytes_bar
from indexrelay.console.commands.status import NONE, facts_table, passed_mark
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.console.terminal import advice_line, note, print_json, stdout
from indexrelay.console.validation import validated, validation_sheet
from indexrelay.console.versions import NOTHING_RELEASED, manifest_of, require_released
from indexrelay.rebuilder.gc import GarbageCollector
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    Collected,
    VersionUnreadableError,
)
from indexrelay.storage.artifacts.usage import StoreUsage, VersionUsage
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.catalog.database import sqlite_file
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


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class Removed(_Fact):
    """What a cleanup removed, or would."""

    dry_run: bool
    releases: tuple[int, ...]
    versions: tuple[tuple[str, str], ...]
    """Each with its component."""
    blobs: int
    blob_bytes: int
    staged_files: int
    backups: tuple[str, ...]
    backup_bytes: int


class VersionSize(_Fact):
    """One version on the disk."""

    version: str
    releases: tuple[int, ...]
    bytes: int
    own_bytes: int
    """What removing it would free: no other version has it."""


class ComponentSize(_Fact):
    """One component on the disk."""

    component: str
    versions: tuple[VersionSize, ...]
    blobs: int
    bytes: int
    """Of all its blobs, each counted once."""
    shared_bytes: int
    """Of those that several versions have."""


class BlobSize(_Fact):
    """One blob on the disk."""

    digest: str
    bytes: int
    versions: dict[str, int]
    """How many versions of each component share it."""


class DiskUsage(_Fact):
    """One installation on the disk."""

    components: tuple[ComponentSize, ...]
    blobs: int
    blob_bytes: int
    unnamed_blobs: int
    unnamed_bytes: int
    """Of builds that run or failed: no version has them."""
    staged_bytes: int
    catalog_bytes: int | None
    """``None``: it is no file."""
    backup_bytes: int
    blob_list: tuple[BlobSize, ...] | None = None
    """Each blob that a version names, the largest first; ``None``: not asked for."""


class Corrupt(_Fact):
    """One file that is not what its name says."""

    digest: str
    reason: str
    components: tuple[str, ...]
    """Of the versions that name it."""


class Scrubbed(_Fact):
    """What was read, and what of it is wrong."""

    versions: int
    blobs: int
    bytes: int
    corrupt: tuple[Corrupt, ...]


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


def components_in(usage: StoreUsage) -> Iterable[ComponentSize]:
    """The components in the store, by name."""
    by_name: dict[str, list[VersionUsage]] = {}
    for each in usage.versions:
        by_name.setdefault(each.component, []).append(each)
    for name, versions in sorted(by_name.items()):
        sizes: dict[str, int] = {}
        for each in versions:
            sizes |= each.blobs
        own = sum(each.own_bytes for each in versions)
        yield ComponentSize(
            component=name,
            versions=tuple(
                VersionSize(
                    version=each.version,
                    releases=each.releases,
                    bytes=each.bytes,
                    own_bytes=each.own_bytes,
                )
                for each in sorted(versions, key=lambda each: each.releases, reverse=True)
            ),
            blobs=len(sizes),
            bytes=sum(sizes.values()),
            shared_bytes=sum(sizes.values()) - own,
        )


def blobs_in(usage: StoreUsage) -> Iterable[BlobSize]:
    """The blobs that versions name, the largest first."""
    sizes: dict[str, int] = {}
    users: dict[str, Counter[str]] = {}
    for each in usage.versions:
        sizes |= each.blobs
        for digest in each.blobs:
            users.setdefault(digest, Counter())[each.component] += 1
    for digest in sorted(sizes, key=lambda digest: (-sizes[digest], digest)):
        yield BlobSize(digest=digest, bytes=sizes[digest], versions=dict(users[digest]))


def catalog_bytes(settings: Settings) -> int | None:
    """What the catalog takes, its log included; ``None``: it is no file."""
    file = sqlite_file(settings.catalog_url)
    if file is None:
        return None
    files = (file.with_name(file.name + end) for end in ("", "-wal", "-shm"))
    return sum(each.stat().st_size for each in files if each.exists())


def scrubbed_versions(store: ArtifactStore, versions: Iterable[VersionUsage]) -> Scrubbed:
    """Hash every blob of these versions once, with a bar on stderr.

    Raises:
        StoreAccessError: one cannot be read.
    """
    refs: dict[str, BlobRef] = {}
    users: dict[str, set[str]] = {}
    corrupt: list[Corrupt] = []
    count = 0
    for each in versions:
        count += 1
        try:
            manifest = store.version(each.component, each.version)
        except VersionUnreadableError as error:
            if not error.missing:  # else it was collected meanwhile
                damaged = Corrupt(
                    digest=each.version, reason=str(error), components=(each.component,)
                )
                corrupt.append(damaged)
            continue
        for ref in manifest.files.values():
            refs[ref.digest] = ref
            users.setdefault(ref.digest, set()).add(each.component)
    total, done = sum(ref.size for ref in refs.values()), 0
    with bytes_bar("scrubbing") as progress:

        def read(some: int) -> bool:
            nonlocal done
            done += some
            progress(done, total)
            return True

        for digest, ref in sorted(refs.items()):
            try:
                store.recheck_blob(ref, go_on=read)
            except (BlobCorruptError, BlobMissingError) as error:
                names = tuple(sorted(users[digest]))
                corrupt.append(Corrupt(digest=digest, reason=str(error), components=names))
    return Scrubbed(versions=count, blobs=len(refs), bytes=done, corrupt=tuple(corrupt))


def removed_page(removed: Removed) -> RenderableType:
    """What went, or would."""
    verb = "would remove" if removed.dry_run else "removed"
    blobs = f"{removed.blobs} blob(s), {figures.size(removed.blob_bytes)}"
    rows = {
        "releases": ", ".join(map(str, removed.releases)) or "none",
        "versions": _counts(Counter(component for component, _ in removed.versions)) or "none",
        "blobs": blobs if removed.blobs else "none",
        "left behind": f"{removed.staged_files} file(s)" if removed.staged_files else "none",
        "backups": f"{', '.join(removed.backups)}, {figures.size(removed.backup_bytes)}"
        if removed.backups
        else "none",
    }
    return Group(Text(verb, style="bold"), facts_table(rows))


def usage_page(usage: DiskUsage) -> RenderableType:
    """A row for each component, and the sums."""
    sheet = Sheet(
        "Disk usage",
        flowing("component"),
        number("versions"),
        number("blobs"),
        number("size"),
        number("shared"),
        number("of the newest"),
    )
    for each in usage.components:
        sheet.add(
            each.component,
            str(len(each.versions)),
            str(each.blobs),
            figures.size(each.bytes),
            figures.size(each.shared_bytes),
            figures.size(each.versions[0].bytes),
        )
    catalog = usage.catalog_bytes
    facts = {
        "artifacts": f"{figures.size(usage.blob_bytes)} in {usage.blobs:,} blobs",
        "no version has": f"{figures.size(usage.unnamed_bytes)} in {usage.unnamed_blobs:,} blobs",
        "being written": figures.size(usage.staged_bytes),
        "catalog": "in a database server" if catalog is None else figures.size(catalog),
        "backups": figures.size(usage.backup_bytes),
    }
    return Group(sheet, facts_table(facts))


def versions_sheet(usage: DiskUsage) -> Sheet:
    """A row for each version, the newest first."""
    sheet = Sheet(
        "Versions",
        flowing("component"),
        whole("version"),
        number("size"),
        number("its own"),
        flowing("releases"),
    )
    for component in usage.components:
        for index, each in enumerate(component.versions):
            sheet.add(
                "" if index else component.component,
                each.version[:12],
                figures.size(each.bytes),
                figures.size(each.own_bytes),
                ", ".join(map(str, each.releases)) or NONE,
                end_section=index == len(component.versions) - 1,
            )
    return sheet


def blobs_sheet(blobs: Iterable[BlobSize]) -> Sheet:
    """A row for each blob, and the components whose versions have it."""
    sheet = Sheet("Blobs", whole("blob"), number("size"), flowing("versions"))
    for each in blobs:
        sheet.add(each.digest[:12], figures.size(each.bytes), _counts(each.versions))
    return sheet


def scrubbed_page(scrubbed: Scrubbed) -> RenderableType:
    """What is wrong, or that nothing is."""
    read = (
        f"{scrubbed.versions} version(s), {scrubbed.blobs} blob(s), "
        f"{figures.size(scrubbed.bytes)} read"
    )
    if not scrubbed.corrupt:
        return Text.assemble(passed_mark(True), f" {read}: all of it is as its digests say")
    lines: list[Text] = [Text(read)]
    for each in scrubbed.corrupt:
        lines.append(
            Text.assemble(passed_mark(False), f" {', '.join(each.components)}: {each.reason}")
        )
        again = commands.rebuild(*each.components, full=True)
        lines.append(advice_line(f"if it is served, build it again: {again}"))
    return Group(*lines)


def _counts(counts: Mapping[str, int]) -> str:
    """``map 2, similar``: each name, and how often it comes."""
    return ", ".join(
        f"{name} {count}" if count > 1 else name for name, count in sorted(counts.items())
    )
