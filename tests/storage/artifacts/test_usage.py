"""What takes how much of the disk."""

from indexrelay.storage.artifacts import ArtifactStore
from tests.storage.artifacts.samples import make_file, make_release, make_version


def test_what_versions_share_is_told_from_what_each_has_for_itself(store: ArtifactStore) -> None:
    first = make_version(store, "map", b"base", b"d1")
    second = make_version(store, "map", b"base", b"delta2")
    other = make_version(store, "similar", b"base")
    never = make_version(store, "similar", b"unreleased")
    make_release(store, map=first)
    make_release(store, map=second, similar=other)
    store.put_blob(make_file(store.staging, b"of a build that failed"))
    (store.staging / "left.tmp").write_bytes(b"123")
    usage = store.usage()
    found = {each.version: each for each in usage.versions}
    assert {key: (each.bytes, each.own_bytes, each.releases) for key, each in found.items()} == {
        first: (6, 2, (1,)),
        second: (10, 6, (2,)),
        other: (4, 0, (2,)),
        never: (10, 10, ()),
    }
    assert (usage.blobs, usage.blob_bytes) == (5, 4 + 2 + 6 + 10 + 22)
    assert (usage.unnamed, usage.unnamed_bytes) == (1, 22)
    assert usage.staged_bytes >= 3
    # A manifest that cannot be read is shown, and takes nothing from what the others name.
    (store.root / "versions" / "similar" / f"{never}.json").chmod(0o600)
    (store.root / "versions" / "similar" / f"{never}.json").write_bytes(b"{}")
    damaged = {each.version: each for each in store.usage().versions}[never]
    assert (damaged.readable, damaged.bytes) == (False, 0)
