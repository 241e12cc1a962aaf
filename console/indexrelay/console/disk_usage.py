"""What takes how much of the disk: ``indexrelay maintenance disk-usage``."""

from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType

from indexrelay.console import figures
from indexrelay.console.commands.status import NONE, facts_table
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts.usage import StoreUsage, VersionUsage
from indexrelay.storage.catalog.database import sqlite_file


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


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
        sheet.add(each.digest[:12], figures.size(each.bytes), counts(each.versions))
    return sheet


def counts(of: Mapping[str, int]) -> str:
    """``map 2, similar``: each name, and how often it comes."""
    return ", ".join(f"{name} {count}" if count > 1 else name for name, count in sorted(of.items()))
