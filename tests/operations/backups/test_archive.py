"""An archive is opened by tar, zstd and age as well; one from anywhere does no harm."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
import zstandard

from indexrelay.operations.backups import BackupCorruptError, generate_identity
from indexrelay.operations.backups.archive import read_backup, write_archive
from indexrelay.schemas.backups import (
    BackedUpRelease,
    BackupFile,
    BackupManifest,
    BackupSettings,
    FileRef,
)
from indexrelay.schemas.names import sha256_hex
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.backups import StoredBackup
from tests.operations.backups.conftest import Install, backups_of, blobs_of, commit

ID = "20260101_000000"
LONG = "a" * 64
"""The longest name of a component: its path does not fit into tar's own field."""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; install Debian's package {name}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


CONTENT = {"release": b"{release}", LONG: b"{version}", "blob": b"a blob " * 100_000, "empty": b""}


def ref(name: str) -> FileRef:
    return FileRef(size=len(CONTENT[name]), digest=sha256_hex(CONTENT[name]))


def manifest() -> BackupManifest:
    return BackupManifest(
        id=ID,
        namespace="indexrelay",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        release=BackedUpRelease(number=7, release="d" * 64, **ref("release").model_dump()),
        versions={LONG: ref(LONG)},
        blobs=(ref("blob"), ref("empty")),
    )


class Kept:
    """Takes everything into memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def begin(self, manifest: BackupManifest) -> None:
        self.files["begun"] = manifest.id.encode()

    def open(self, file: BackupFile) -> IO[bytes]:
        kept = io.BytesIO()
        kept.name = file.path
        kept.close = lambda: self.files.update({file.path: kept.getvalue()})  # type: ignore[method-assign]
        return kept


def stored(path: Path) -> StoredBackup:
    return StoredBackup(id=ID, path=path, bytes=path.stat().st_size)


def read(path: Path) -> dict[str, bytes]:
    kept = Kept()
    read_backup(stored(path), kept, identity_file=None, progress=lambda *_: None)
    return kept.files


def source(file: BackupFile) -> Iterator[bytes]:
    content = {sha256_hex(each): each for each in CONTENT.values()}[file.digest]
    yield from (content[at : at + 1000] for at in range(0, len(content), 1000))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / f"indexrelay-{ID}.tar.zst"
    write_archive(path, manifest(), source, BackupSettings(), lambda *_: None)
    return path


def test_what_is_written_is_read_again_whatever_the_length_of_a_name(archive: Path) -> None:
    files = read(archive)
    assert files.pop("begun") == ID.encode()
    assert list(files.values()) == list(CONTENT.values())
    assert f"versions/{LONG}/{ref(LONG).digest}.json" in files


@pytest.mark.parametrize("encrypted", [False, True])
def test_age_zstd_and_tar_make_a_store_that_is_served_from_without_us(
    install: Install, tmp_path: Path, encrypted: bool
) -> None:
    key = tmp_path / "key.txt"
    tools = [program("zstd"), program("tar")]
    more = {"recipients": [generate_identity(key)]} if encrypted else {}
    pipeline = install(backups=more)
    commit(pipeline, "first", range(30))
    pipeline.settle()
    blobs = blobs_of(pipeline)
    backup = backups_of(pipeline).create().backup
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    command = f"{tools[0]} -dc | {tools[1]} -x -C {unpacked}"
    if encrypted:
        command = f"{program('age')} -d -i {key} {backup.path} | {command}"
    else:
        command = f"cat {backup.path} | {command}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)  # noqa: S607 - on PATH
    store = ArtifactStore(unpacked)
    release = store.newest_release()
    assert release is not None
    found = {}
    for component, version in release.components.items():
        opened = store.open_version(component, version)
        for label, named in opened.manifest.files.items():
            found[named.digest] = opened.files[label].read_bytes()
    assert found == blobs
    assert (unpacked / "catalog.db").read_bytes().startswith(b"SQLite format 3")


def packed(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


FIRST = (member("backup.json"), manifest().to_bytes())
RELEASE = "releases/00000007.json"
OTHER = manifest().model_copy(update={"id": "20250101_000000"})
HOSTILE: dict[str, Callable[[], bytes]] = {
    "an absolute path": lambda: packed(FIRST, (member("/etc/passwd"), CONTENT["release"])),
    "a path to elsewhere": lambda: packed(FIRST, (member("../../x"), CONTENT["release"])),
    "a symbolic link": lambda: packed(FIRST, (member(RELEASE, tarfile.SYMTYPE, "/etc"), b"")),
    "a hard link": lambda: packed(FIRST, (member(RELEASE, tarfile.LNKTYPE, "/etc/shadow"), b"")),
    "a device": lambda: packed(FIRST, (member(RELEASE, tarfile.CHRTYPE), b"")),
    "a pipe": lambda: packed(FIRST, (member(RELEASE, tarfile.FIFOTYPE), b"")),
    "a folder": lambda: packed(FIRST, (member("releases", tarfile.DIRTYPE), b"")),
    "a sparse file": lambda: packed(FIRST, (member(RELEASE, tarfile.GNUTYPE_SPARSE), b"")),
    "an extended header": lambda: packed(
        FIRST, (member("é" * 200), CONTENT["release"]), form=tarfile.PAX_FORMAT
    ),
    "another content": lambda: packed(FIRST, (member(RELEASE), b"{RELEASE}")),
    "more than was announced": lambda: packed(FIRST, (member(RELEASE), b"x" * 5000)),
    "no manifest": lambda: packed((member(RELEASE), CONTENT["release"])),
    "two manifests": lambda: packed(FIRST, FIRST),
    "the manifest of another": lambda: packed((member("backup.json"), OTHER.to_bytes())),
    "a manifest of a later format": lambda: packed(
        (member("backup.json"), manifest().to_bytes().replace(b'version":1', b'version":2'))
    ),
    "a manifest that is a path": lambda: packed(
        (member("backup.json"), manifest().to_bytes().replace(LONG.encode(), b"../../etc"))
    ),
    "a huge manifest": lambda: packed((member("backup.json"), bytes(17 << 20))),
    "a long long name": lambda: packed(FIRST, (member("x" * 5000), b"")),
    "no tar": lambda: b"no tar at all" * 100,
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_is_not_of_our_making_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / f"indexrelay-{ID}.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(HOSTILE[what]()))
    with pytest.raises(BackupCorruptError, match="is not sound"):
        read(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_bomb_is_refused_at_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / f"indexrelay-{ID}.tar.zst"
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    zeros = bytes(1 << 20)
    first = packed(FIRST)[: -(-len(manifest().to_bytes()) // 512) * 512 + 512]
    with path.open("wb") as file:
        file.write(compressor.compress(first + packed((member(RELEASE), zeros))[:512]))
        for _ in range(100):
            file.write(compressor.compress(zeros))
        file.write(compressor.flush())
    assert path.stat().st_size < 100_000
    kept = Kept()
    with pytest.raises(BackupCorruptError, match=r"of 1048576 bytes comes where"):
        read_backup(stored(path), kept, identity_file=None, progress=lambda *_: None)
    assert kept.files == {"begun": ID.encode()}


def test_a_frame_that_asks_for_a_large_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"indexrelay-{ID}.tar.zst"
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, window_log=27, write_content_size=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(packed(FIRST)) + compressor.flush())
    with pytest.raises(BackupCorruptError, match="zstd"):
        read(path)
