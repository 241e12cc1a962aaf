"""Manifests: written when all that they name is there, and checked when they are read."""

import json
from pathlib import Path

import pytest

from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    UnsafeNameError,
    VersionUnreadableError,
)
from tests.storage.artifacts.samples import make_version


def _path(store: ArtifactStore, version_id: str) -> Path:
    return store.root / "versions" / "voyager" / f"{version_id}.json"


def test_a_version_is_opened_with_all_its_files(store: ArtifactStore) -> None:
    version_id = make_version(store, "voyager", b"base", b"ids")
    opened = store.open_version("voyager", version_id)
    assert opened.manifest == store.version("voyager", version_id)
    assert opened.manifest.id == version_id
    assert {label: path.read_bytes() for label, path in opened.files.items()} == {
        "part0": b"base",
        "part1": b"ids",
    }


def test_the_same_version_again_is_nothing(store: ArtifactStore) -> None:
    version_id = make_version(store, "voyager", b"base")
    before = _path(store, version_id).stat()
    assert make_version(store, "voyager", b"base") == version_id
    assert _path(store, version_id).stat().st_ino == before.st_ino


def test_a_version_cannot_name_what_was_not_stored(store: ArtifactStore) -> None:
    version_id = make_version(store, "voyager", b"base")
    manifest = store.version("voyager", version_id)
    stranger = BlobRef(digest="a" * 64, size=1)
    with pytest.raises(BlobMissingError):
        store.put_version(manifest.model_copy(update={"files": {"part0": stranger}}))
    longer = manifest.files["part0"].model_copy(update={"size": 99})
    with pytest.raises(BlobCorruptError):
        store.put_version(manifest.model_copy(update={"files": {"part0": longer}}))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"component": "voyager"', b"\x00" * 100], ids=repr
)
def test_a_corrupt_manifest_is_found_and_repaired_by_the_same_version(
    store: ArtifactStore, content: bytes
) -> None:
    version_id = make_version(store, "voyager", b"base")
    path = _path(store, version_id)
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(VersionUnreadableError, match="corrupt") as caught:
        store.version("voyager", version_id)
    assert not caught.value.missing
    assert make_version(store, "voyager", b"base") == version_id
    assert store.version("voyager", version_id).entries == 1


def test_a_manifest_whose_name_a_folder_has_taken_is_corrupt_and_repaired(
    store: ArtifactStore,
) -> None:
    version_id = make_version(store, "voyager", b"base")
    _path(store, version_id).unlink()
    _path(store, version_id).mkdir()
    with pytest.raises(VersionUnreadableError, match="not a regular file") as caught:
        store.version("voyager", version_id)
    assert not caught.value.missing
    assert make_version(store, "voyager", b"base") == version_id
    assert store.version("voyager", version_id).id == version_id


def test_a_missing_manifest_says_so(store: ArtifactStore) -> None:
    with pytest.raises(VersionUnreadableError) as caught:
        store.version("voyager", "a" * 64)
    assert caught.value.missing


def test_a_manifest_does_not_serve_another_component(store: ArtifactStore) -> None:
    version_id = make_version(store, "voyager", b"base")
    other = store.root / "versions" / "clap"
    other.mkdir()
    _path(store, version_id).rename(other / f"{version_id}.json")
    with pytest.raises(VersionUnreadableError, match="version of voyager"):
        store.version("clap", version_id)


def test_a_manifest_of_a_newer_minor_version_is_read(store: ArtifactStore) -> None:
    fields = json.loads(_path(store, make_version(store, "voyager", b"base")).read_bytes())
    data = canonical_json(fields | {"schema_version": "1.9", "colour": "blue"})
    _path(store, sha256_hex(data)).write_bytes(data)
    assert store.version("voyager", sha256_hex(data)).schema_version == "1.9"


def test_a_manifest_of_another_major_version_is_refused(store: ArtifactStore) -> None:
    fields = json.loads(_path(store, make_version(store, "voyager", b"base")).read_bytes())
    data = canonical_json(fields | {"schema_version": "2.0"})
    _path(store, sha256_hex(data)).write_bytes(data)
    with pytest.raises(VersionUnreadableError, match="this release of indexrelay"):
        store.version("voyager", sha256_hex(data))


def test_what_has_the_right_digest_but_is_no_manifest_is_refused(store: ArtifactStore) -> None:
    make_version(store, "voyager", b"base")
    data = b'{"component":"voyager"}'
    _path(store, sha256_hex(data)).write_bytes(data)
    with pytest.raises(VersionUnreadableError, match="not a manifest"):
        store.version("voyager", sha256_hex(data))


@pytest.mark.parametrize(
    ("component", "version_id"),
    [
        ("../releases", "a" * 64),
        ("Voyager", "a" * 64),
        ("voyager", "../../../etc/passwd"),
        ("", ""),
    ],
)
def test_what_is_no_name_never_becomes_a_path(
    store: ArtifactStore, component: str, version_id: str
) -> None:
    with pytest.raises(UnsafeNameError):
        store.open_version(component, version_id)
