"""`components show` names the file that each check concerns."""

from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.artifacts.history import checked_files
from tests.health.healthy_facts import manifest


def test_files_of_equal_content_are_each_named_once() -> None:
    one, other = BlobRef(digest="a" * 64, size=1), BlobRef(digest="b" * 64, size=2)
    version = manifest(
        "similar",
        files={"tombstones.npy": one, "delta_places.npy": one, "ids.table": other},
        checks=(
            Check(name="bytes", passed=True, blob=one.digest),
            Check(name="bytes", passed=True, blob=other.digest),
            Check(name="bytes", passed=True, blob=one.digest),
            Check(name="trained", passed=True, blob=other.digest),
            Check(name="count", passed=True),
        ),
    )
    assert checked_files(version) == [
        "delta_places.npy",
        "ids.table",
        "tombstones.npy",
        "ids.table",
        "",
    ]
