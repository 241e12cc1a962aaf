"""Real vector indexes in a store, for tests of what readers do with mapped files."""

from pathlib import Path

from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.entries import Vectors
from tests.components.jobs import make_job, make_manifest, make_snapshot, run


def put_index(store: ArtifactStore, workdir: Path, vectors: Vectors, *, component: str) -> str:
    """Build a flat index over ``vectors`` as the rebuilder does; its version id."""
    job = make_job(workdir, make_snapshot(vectors), component=component)
    done = run(VectorIndex(VectorIndexParameters(index="Flat")), job)
    assert done.failed == []
    manifest = make_manifest(job, done, kind="vector_index")
    files = {name: store.put_blob(path) for name, path in done.files.items()}
    return store.put_version(manifest.model_copy(update={"files": files}))
