"""What a real index maps is unmapped with its last user: memory does not grow with the swaps."""

import re
from pathlib import Path

import numpy as np

from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Release
from tests.components.jobs import clustered
from tests.reloaders.bench import Bench
from tests.reloaders.indexes import put_index
from tests.storage.artifacts.samples import MOMENT

SWAPS = 30
_BLOB = re.compile(r"/blobs/sha256/../([0-9a-f]{64})")


def _version(bench: Bench, seed: int) -> str:
    vectors = clustered(200, 16, seed=seed)
    return put_index(bench.store, bench.folder / f"job-{seed}", vectors, component="voyager")


def _mapped() -> set[str]:
    """The digests of the blobs that this process maps."""
    return set(_BLOB.findall(Path("/proc/self/maps").read_text()))


def test_after_many_swaps_only_the_served_version_is_mapped(bench: Bench) -> None:
    declared = {"voyager": ComponentDefinition.of("vector_index", "tracks")}
    bench.settings = bench.settings.model_copy(update={"components": declared})
    versions = [_version(bench, seed) for seed in (1, 2)]
    reader = bench.reader()
    for number in range(1, SWAPS + 1):
        version = versions[number % 2]
        bench.store.commit_release(
            Release(
                number=number,
                components={"voyager": version},
                created_at=MOMENT,
                reason="a test",
                previous=number - 1,
            )
        )
        assert reader.step()
        manifest = bench.store.version("voyager", version)
        own = {ref.digest for ref in manifest.files.values()}
        mapped = _mapped()
        assert mapped
        assert mapped <= own, f"swap {number} left an old version mapped"
        with reader.acquire() as snapshot:
            assert len(snapshot["voyager"].search(np.ones(16, dtype=np.float32), k=3)) == 3
    reader.stop()
    assert _mapped() == set()
