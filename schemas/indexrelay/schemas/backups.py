"""Backups: the table ``[backups]``, and the manifest that each backup begins with.

A backup holds one release whole: its document, the manifests of its versions, and their blobs; on
request the catalog as well. Its own manifest lists every file with size and digest, in the order in
which they follow. The paths are those of an artifact store, and follow from names and digests that
match their patterns: no path is ever read from a manifest.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from indexrelay.schemas.cron import CronLine, TimeZone
from indexrelay.schemas.names import Digest, Name, canonical_json
from indexrelay.schemas.tables import (
    CountOrFalse,
    PositiveSeconds,
    SecondsOrFalse,
    Table,
    UserPath,
)

BACKUP_ID_PATTERN: Final = r"^[0-9]{8}_[0-9]{6}$"
BackupId = Annotated[str, Field(pattern=BACKUP_ID_PATTERN)]
"""When it was begun, in UTC: ``20241105_143000``."""
_ID_FORMAT: Final = "%Y%m%d_%H%M%S"
Recipient = Annotated[
    str, Field(pattern=r"^(age1[0-9a-z]{20,2000}|ssh-(ed25519|rsa) [ -~]{1,4000})$")
]
"""A public key of age (``age1…``) or of OpenSSH."""


class BackupSettings(Table):
    """Where backups are kept, what is in them, who can read them, and for how long they stay."""

    dir: UserPath | None = None
    """The folder, best on another disk: what lies on the disk of the artifacts is lost with them.
    Relative to the file that names it. ``None``: ``DATA_DIR/backups``."""
    format: Literal["file", "folder"] = "file"
    """``file``: one archive, ``.tar.zst`` (and ``.age``). ``folder``: the same files as they are,
    for file systems that compress or deduplicate."""
    schedule: CronLine | None = None
    """When ``indexrelay operator`` makes one: minute, hour, day of the month, month, day of the
    week; ``0 3 * * *`` is every night at three. ``None``: only people make backups."""
    timezone: TimeZone = "UTC"
    """In which that line is read, as ``Europe/Berlin``."""
    with_catalog: bool = True
    """Whether a backup holds the catalog's entries, so that nothing else is needed after a loss.
    ``false``: for a catalog that is a PostgreSQL with backups of its own."""
    compression_level: Annotated[int, Field(ge=1, le=19)] = 3
    """Of zstd: higher ones are slower by far, and vectors hardly get smaller."""
    recipients: Annotated[tuple[Recipient, ...], Field(max_length=20)] = ()
    """Public keys for which archives are encrypted (age). Each of their private keys opens them;
    ``indexrelay backup generate-key`` or ``age-keygen`` makes one. Empty: not encrypted."""
    identity_file: UserPath | None = None
    """The private key that opens encrypted archives, to verify and to restore them; of age or of
    OpenSSH without a password. Making backups does not need it: keep it elsewhere. Relative to the
    file that names it."""
    keep_count: CountOrFalse = 14
    """The newest backups that stay; ``false``: all."""
    keep_seconds: SecondsOrFalse = None
    """Older ones are removed; ``None``: age does not matter."""
    keep_bytes: CountOrFalse = None
    """The oldest are removed until all together take no more; ``None``: size does not matter. The
    newest backup stays in any case."""
    max_age_seconds: PositiveSeconds = 8 * 86_400.0
    """Where backups are scheduled: without one that is younger, `status` reports it. A day longer
    than a week: once a week is the least that anybody would call a schedule."""

    @field_validator("recipients")
    @classmethod
    def _a_folder_is_not_encrypted(
        cls, recipients: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        if recipients and info.data.get("format") == "folder":
            raise ValueError('a folder is not encrypted; use format = "file"')
        return recipients


class FileRef(BaseModel):
    """A file by its content."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: NonNegativeInt
    digest: Digest


class BackedUpRelease(FileRef):
    """The document of the release; ``digest`` is that of the file."""

    number: PositiveInt
    release: Digest
    """The digest that the release carries, of its content."""


class BackedUpCatalog(FileRef):
    """The catalog as one SQLite database, whatever it is kept in."""

    generations: dict[Name, NonNegativeInt]
    """For each collection: how far it is in there."""


class BackupFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    digest: str


MANIFEST_FILE: Final = "backup.json"
CATALOG_FILE: Final = "catalog.db"


class BackupManifest(BaseModel):
    """What a backup holds; it comes first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    id: BackupId
    namespace: Name
    created_at: datetime
    by: str = ""
    """Who made it: USER@HOST, or the schedule."""
    software: str = ""
    """The version of indexrelay that made it."""
    release: BackedUpRelease
    signatures: FileRef | None = None
    """The signatures of the release; ``None``: it is not signed."""
    versions: dict[Name, FileRef]
    """For each component: its version, whose id is the digest of its manifest."""
    blobs: tuple[FileRef, ...]
    """Every blob that these name, once."""
    catalog: BackedUpCatalog | None = None

    @field_validator("blobs")
    @classmethod
    def _each_once(cls, blobs: tuple[FileRef, ...]) -> tuple[FileRef, ...]:
        if len({each.digest for each in blobs}) != len(blobs):
            raise ValueError("a blob is listed twice")
        return blobs

    def files(self) -> Iterator[BackupFile]:
        """Every file but the manifest, in the order in which they follow it."""
        release = self.release
        yield BackupFile(
            path=f"releases/{release.number:08d}.json", size=release.size, digest=release.digest
        )
        if self.signatures is not None:
            signed = f"signatures/{release.release}.json"
            yield BackupFile(path=signed, size=self.signatures.size, digest=self.signatures.digest)
        for component, ref in sorted(self.versions.items()):
            path = f"versions/{component}/{ref.digest}.json"
            yield BackupFile(path=path, size=ref.size, digest=ref.digest)
        for ref in self.blobs:
            path = f"blobs/sha256/{ref.digest[:2]}/{ref.digest}"
            yield BackupFile(path=path, size=ref.size, digest=ref.digest)
        if self.catalog is not None:
            yield BackupFile(path=CATALOG_FILE, size=self.catalog.size, digest=self.catalog.digest)

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest, before they are compressed."""
        return sum(each.size for each in self.files())

    def to_bytes(self) -> bytes:
        """As it is written."""
        return canonical_json(self.model_dump(mode="json"))


def backup_id(at: datetime) -> str:
    """The id of a backup that is begun then."""
    return at.astimezone(UTC).strftime(_ID_FORMAT)


def backup_time(id_: str) -> datetime:
    """When the backup of that id was begun.

    Raises:
        ValueError: it is no id.
    """
    if re.fullmatch(BACKUP_ID_PATTERN[1:-1], id_) is None:
        raise ValueError(f"{id_!r} is no id of a backup")
    return datetime.strptime(id_, _ID_FORMAT).replace(tzinfo=UTC)
