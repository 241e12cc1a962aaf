"""Only what somebody trusted has signed is served, whoever may write to the store."""

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from indexrelay.health.status import Code
from indexrelay.schemas.errors import MissingExtraError, SettingsError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings, load_settings
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    ReleaseUntrustedError,
    SigningKey,
    SigningKeyError,
    SigningRefusedError,
    Trust,
)
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, texts
from tests.storage.artifacts.samples import MovedClock, make_release, make_version

MakeStore = Callable[..., ArtifactStore]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    key = SigningKey.generate()
    key.write(tmp_path / "key.pem")
    return key


@pytest.fixture
def other(tmp_path: Path) -> SigningKey:
    key = SigningKey.generate()
    key.write(tmp_path / "other.pem")
    return key


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Another process on the same store: what it signs with, and whom it trusts."""

    def make(
        signs: str | None = None, trusts: tuple[SigningKey, ...] | None = None, **keys: Any
    ) -> ArtifactStore:
        trust = Trust(
            namespace=keys.pop("namespace", "here"),
            signing_key_file=None if signs is None else tmp_path / signs,
            trusted_keys=None if trusts is None else tuple(each.public for each in trusts),
        )
        return ArtifactStore(tmp_path / "store", trust=trust, **keys)

    return make


def release(store: ArtifactStore, content: bytes = b"1") -> int:
    return make_release(store, voyager=make_version(store, "voyager", content)).number


def newest(store: ArtifactStore) -> int:
    found = store.newest_release()
    return 0 if found is None else found.number


def test_only_signed_releases_are_taken_and_the_others_are_told_of_once(
    make_store: MakeStore, key: SigningKey
) -> None:
    signing, anybody = make_store("key.pem"), make_store()
    reader = make_store(trusts=(key,))
    assert newest(reader) == 0
    release(signing)
    assert newest(reader) == newest(anybody) == 1
    release(anybody, b"2")
    with capture_logs() as lines:
        assert newest(reader) == newest(reader) == 1
    assert [line["event"] for line in lines] == ["release.untrusted"]
    assert list(reader.broken_releases) == [2]
    with pytest.raises(ReleaseUntrustedError, match=r"it is not signed.* releases sign 2"):
        reader.release(2)
    release(signing, b"3")
    assert newest(reader) == 3
    assert reader.broken_releases == {}


@pytest.mark.parametrize(
    "attack", ["another key", "another namespace", "bytes", "copied", "garbage"]
)
def test_a_signature_that_is_not_of_a_trusted_key_over_this_release_counts_for_nothing(
    make_store: MakeStore, key: SigningKey, other: SigningKey, attack: str
) -> None:
    release(make_store("key.pem"))
    reader = make_store(trusts=(key,))
    [good] = (reader.root / "signatures").iterdir()
    assert newest(reader) == 1
    if attack == "another key":
        release(make_store("other.pem"), b"2")
    elif attack == "another namespace":
        release(make_store("key.pem", namespace="there"), b"2")
    else:
        release(make_store("key.pem"), b"2")
        [signature] = set((reader.root / "signatures").iterdir()) - {good}
        document = json.loads(signature.read_bytes())
        raw = bytearray(base64.b64decode(document["signatures"][0]["signature"]))
        raw[7] ^= 1
        signature.unlink()
        if attack == "bytes":
            document["signatures"][0]["signature"] = base64.b64encode(raw).decode()
            signature.write_text(json.dumps(document))
        elif attack == "copied":
            moved = json.loads(good.read_bytes()) | {"digest": document["digest"]}
            signature.write_text(json.dumps(moved))
        else:
            signature.write_bytes(b"\xff" * 100)
    assert newest(reader) == 1
    assert newest(make_store(trusts=(key,))) == 1  # one that has verified nothing yet


def test_a_release_that_was_changed_after_it_was_signed_is_not_served(
    make_store: MakeStore, key: SigningKey
) -> None:
    store = make_store("key.pem")
    evil = make_version(store, "voyager", b"evil")
    release(store)
    forged = store.release(1).model_copy(update={"components": {"voyager": evil}}).sealed()
    for path in (*store.root.glob("releases/*"), *store.root.glob("copies/*")):
        path.unlink()
        path.write_bytes(forged.canonical())
    assert newest(make_store()) == 1
    assert newest(make_store(trusts=(key,))) == 0


def test_keys_change_while_both_are_trusted(
    make_store: MakeStore, key: SigningKey, other: SigningKey
) -> None:
    release(make_store("key.pem"))
    both = make_store(trusts=(key, other))
    assert newest(both) == 1
    release(make_store("other.pem"), b"2")
    assert newest(both) == 2
    only_new = make_store(trusts=(other,))
    assert newest(only_new) == 2
    with pytest.raises(ReleaseUntrustedError, match=r"artifacts\.trusted_keys has not"):
        only_new.release(1)
    assert make_store("other.pem").sign_release(1) == (other.public, key.public)
    assert only_new.release(1) == both.release(1)
    assert make_store(trusts=(key,)).release(1).number == 1  # the old signature is still there


def test_nobody_releases_what_nobody_would_take(
    make_store: MakeStore, key: SigningKey, other: SigningKey
) -> None:
    with pytest.raises(SigningRefusedError, match=r"has no artifacts\.signing_key_file"):
        release(make_store(trusts=(key,)))
    with pytest.raises(SigningRefusedError, match=f"is {other.public}".replace("+", r"\+")):
        release(make_store("other.pem", trusts=(key,)))
    assert make_store().release_numbers() == []
    store = make_store("key.pem", trusts=(key,))
    release(store)
    assert store.hold("voyager", reason="test").number == 2
    assert store.rollback(1, reason="test").number == 3
    assert newest(store) == 3


def test_a_mark_in_the_store_is_not_believed_where_releases_are_verified(
    make_store: MakeStore, key: SigningKey, tmp_path: Path
) -> None:
    store = make_store("key.pem")
    release(store)
    [blob] = store.root.glob("blobs/sha256/*/*")
    reader = make_store(trusts=(key,), marks=tmp_path / "marks")
    version = reader.release(1).components["voyager"]
    reader.open_version("voyager", version)
    blob.chmod(0o600)
    blob.write_bytes(b"2")
    found = blob.stat()
    [mark] = store.root.glob(f"checked/*/{blob.name}")
    mark.write_text(f"{found.st_ino} {found.st_size} {found.st_ctime_ns}\n")
    make_store().open_version("voyager", version)  # who trusts the store believes it
    with pytest.raises(BlobCorruptError):
        reader.open_version("voyager", version)


def test_settings_that_trust_keys_keep_marks_out_of_the_store(
    tmp_path: Path, key: SigningKey
) -> None:
    tables: dict[str, Any] = {"data_dir": tmp_path / "data"}
    assert Settings.model_validate(tables).marks_dir is None
    tables["artifacts"] = {"trusted_keys": [key.public]}
    assert Settings.model_validate(tables).marks_dir == tmp_path / "data" / "marks"


def test_a_file_that_is_replaced_while_a_version_is_opened_is_noticed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.publish(voyager="v1")
    reader = bench.reader()
    assert reader.step()
    bench.publish(voyager="v2")
    open_version = bench.store.open_version

    def replaced(component: str, version: str) -> Any:
        opened = open_version(component, version)
        [path] = opened.files.values()
        moved = path.with_name("moved")
        path.rename(moved)
        shutil.copy(moved, path)
        return opened

    reader._store.open_version = replaced  # type: ignore[method-assign, assignment]
    reader.step()
    assert texts(reader) == {"voyager": "v1"}
    [error] = [each.error for each in reader.state.components.values()]
    assert "replaced while it was opened" in str(error)
    reader.stop()


def test_a_reader_serves_what_is_signed_and_says_what_it_does_not_take(
    tmp_path: Path, key: SigningKey
) -> None:
    bench = Bench(tmp_path / "bench")
    bench.store = ArtifactStore(
        bench.settings.artifacts_dir,
        clock=bench.clock,
        trust=Trust(namespace=bench.settings.namespace, signing_key_file=tmp_path / "key.pem"),
    )
    bench.publish(voyager="v1")
    settings = Settings.model_validate(
        {
            "namespace": bench.settings.namespace,
            "data_dir": bench.settings.data_dir,
            "artifacts": {"trusted_keys": [key.public]},
        }
    )
    bench.store = ArtifactStore.of(settings, clock=bench.clock)
    reader = bench.reader()
    assert reader.step()
    assert not reader.problems
    bench.store = ArtifactStore(bench.settings.artifacts_dir, clock=bench.clock)
    bench.publish(voyager="v2")
    reader.step()
    assert texts(reader) == {"voyager": "v1"}
    [problem] = reader.problems
    assert problem.code is Code.RELEASE_UNTRUSTED
    assert problem.what == "release 2 is passed over: it is not signed"
    assert "indexrelay releases sign 2" in problem.advice
    reader.stop()


def test_a_running_reader_follows_no_older_release_whoever_signed_it(
    tmp_path: Path, key: SigningKey
) -> None:
    bench = Bench(tmp_path / "bench")
    trust = Trust(
        namespace=bench.settings.namespace,
        signing_key_file=tmp_path / "key.pem",
        trusted_keys=(key.public,),
    )
    bench.store = ArtifactStore(bench.settings.artifacts_dir, clock=bench.clock, trust=trust)
    bench.publish(voyager="v1")
    bench.publish(voyager="v2")
    reader = bench.reader()
    assert reader.step()
    for path in bench.store.root.glob("*/00000002.json"):
        path.unlink()  # the older one, signed as ever, is the newest now
    reader.step()
    assert texts(reader) == {"voyager": "v2"}
    reader.stop()


def test_garbage_collection_keeps_signatures_with_their_releases_whatever_strangers_write(
    make_store: MakeStore, key: SigningKey
) -> None:
    clock = MovedClock()
    store = make_store("key.pem", trusts=(key,), clock=clock)
    for content in (b"1", b"2"):
        release(store, content)
    for content in (b"3", b"4"):
        release(make_store(), content)
    clock.advance(10_000.0)
    store.collect_garbage(keep_releases=1, used_versions=(), grace_seconds=100.0)
    assert store.release_numbers() == [4, 3, 2]
    assert newest(store) == 2
    store.open_version("voyager", store.release(2).components["voyager"])
    [signature] = (store.root / "signatures").iterdir()
    assert signature.stem == store.release(2).digest


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o644, "others may read it; keep it to yourself: chmod 600"),
        (b"", 0o600, "no private key in PEM"),
        (b"\x00\xff" * 10_000, 0o600, "bytes, of at most"),
        ("of another kind", 0o600, "a key of another kind"),
        ("missing", 0o600, "No such file"),
        ("link", 0o600, "symbolic"),
    ],
)
def test_a_file_that_is_no_key_of_ones_own_is_refused(
    tmp_path: Path,
    key: SigningKey,
    make_store: MakeStore,
    content: bytes | str | None,
    mode: int,
    says: str,
) -> None:
    file = tmp_path / "key.pem"
    if content == "of another kind":
        content = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    if content == "missing":
        file.unlink()
    elif content == "link":
        file.rename(tmp_path / "elsewhere.pem")
        file.symlink_to(tmp_path / "elsewhere.pem")
    else:
        if isinstance(content, bytes):
            file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(SigningKeyError, match=says):
        release(make_store("key.pem"))
    assert make_store().release_numbers() == []


def test_what_is_missing_is_said_when_the_store_is_opened(
    make_store: MakeStore, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    make_store()
    for keys in ({"signs": "key.pem"}, {"trusts": (key,)}):
        with pytest.raises(MissingExtraError, match=r"indexrelay\[signing\]"):
            make_store(**keys)


@pytest.mark.parametrize("wrong", ["", "ed25519:short", "rsa:" + "A" * 43 + "=", "A" * 43 + "="])
def test_what_is_no_public_key_is_a_mistake_in_the_settings(wrong: str) -> None:
    with pytest.raises(SettingsError, match="trusted_keys"):
        check_settings({"artifacts": {"trusted_keys": [wrong]}}, origin="test")


def test_a_list_of_no_keys_is_a_mistake_and_a_key_file_is_found_beside_the_settings(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match="trusted_keys"):
        check_settings({"artifacts": {"trusted_keys": []}}, origin="test")
    file = tmp_path / "indexrelay.toml"
    file.write_text('[artifacts]\nsigning_key_file = "keys/key.pem"\n')
    assert load_settings(file, environ={}).artifacts.signing_key_file == tmp_path / "keys/key.pem"
