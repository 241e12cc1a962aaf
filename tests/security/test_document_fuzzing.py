"""Hostile manifests and releases, with the right digests, are refused, or served as they are."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.errors import CorruptFileError, KindNotFoundError
from indexrelay.reloaders.errors import KindNotAllowedError
from indexrelay.reloaders.loader import Opener
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.names import sha256_hex
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from tests.security.artifacts.mutations import mutated
from tests.security.artifacts.versions import make
from tests.security.fuzzing import MINUTES, seeds
from tests.storage.artifacts.samples import make_file, make_release

REFUSED = (ArtifactError, CorruptFileError, KindNotAllowedError, KindNotFoundError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder / "store")


@pytest.fixture(scope="module")
def manifest(store: ArtifactStore, folder: Path) -> bytes:
    """That of an embedding cache with a delta, all of whose files are there."""
    version = make("embedding cache", folder / "work")
    files = {name: store.put_blob(make_file(folder, data)) for name, data in version.files.items()}
    written = VersionManifest(
        component="tracks",
        kind="embedding_cache",
        definition="0" * 64,
        covers={"tracks": 3},
        epochs={"tracks": "e"},
        files=files,
        entries=1,
        created_at=datetime.now(UTC),
    )
    make_release(store, tracks=store.put_version(written))
    return written.canonical()


def hostile(document: bytes, seed: int, number: int) -> bytes:
    rng = random.Random(f"{seed} {number}")
    _, files = mutated({"document.json": document}, rng)
    return files.get("document.json", b"")


@pytest.mark.timeout(120 + 90 * MINUTES)
def test_a_hostile_manifest_is_refused_or_what_it_names_is_served(
    store: ArtifactStore, manifest: bytes
) -> None:
    opener = Opener(store, definitions={}, clock=SystemClock())
    served = refused = 0
    for seed in seeds(1):
        for number in range(400):
            data = hostile(manifest, seed, number)
            path = store.root / "versions" / "tracks" / f"{sha256_hex(data)}.json"
            path.write_bytes(data)
            try:
                opener.open("tracks", path.stem, serving=None)
                served += 1
            except REFUSED:
                refused += 1
            except Exception as error:
                raise AssertionError((seed, number, data[:500])) from error
    assert served > 20
    assert refused > 100


@pytest.mark.timeout(120 + 90 * MINUTES)
def test_a_hostile_release_is_passed_over_or_taken_as_it_is(
    store: ArtifactStore, manifest: bytes
) -> None:
    good = store.release(1).canonical()
    taken = refused = 0
    for seed in seeds(1):
        for number in range(400):
            data = resealed(hostile(good, seed, number))
            for folder in ("releases", "copies"):
                path = store.root / folder / "00000002.json"
                path.unlink(missing_ok=True)
                path.write_bytes(data)
            try:
                newest = store.newest_release()
                assert newest is not None
                taken += newest.number == 2
                refused += newest.number == 1
                for name, version in newest.components.items():
                    store.open_version(name, version)
            except ArtifactError:
                taken += 1
            except Exception as error:
                raise AssertionError((seed, number, data[:500])) from error
    assert refused > 100
    assert taken > 5


def resealed(data: bytes) -> bytes:
    """The same with the number of its file, and with the digest that its content has."""
    try:
        fields: Any = json.loads(data)
        fields["number"] = 2
        fields["previous"] = 1
        del fields["digest"]
        text = json.dumps(
            fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        fields["digest"] = sha256_hex(text.encode())
        return json.dumps(fields).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return data
