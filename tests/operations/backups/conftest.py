"""A small installation with two components, and its backups."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.operations.backups import Backups
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from indexrelay.testing.pipeline import Pipeline

TABLES: dict[str, Any] = {
    "collections": {"tracks": {"dimension": 4, "metric": "l2"}},
    "components": {
        "similar": {"kind": "vector_index", "from": "tracks"},
        "cache": {"kind": "embedding_cache", "from": "tracks"},
    },
}
VECTORS = np.random.default_rng(7).normal(size=(60, 4)).astype(np.float32)
Install = Callable[..., Pipeline]


def settings_of(**tables: Any) -> Settings:
    return check_settings({**TABLES, **tables}, origin="the test", check_kind=lambda *_: ())


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Open the installation in the test's folder; again, after something was wiped there."""
    opened: list[Pipeline] = []

    def opening(**tables: Any) -> Pipeline:
        for each in opened:
            each.close()
        clock = opened[-1].clock if opened else None
        opened.append(Pipeline(settings_of(**tables), tmp_path / "installation", clock=clock))
        return opened[-1]

    yield opening
    for each in opened:
        each.close()


def commit(pipeline: Pipeline, batch_id: str, ids: range) -> None:
    with pipeline.producer.batch("tracks", batch_id) as batch:
        batch.upsert([f"t{number}" for number in ids], VECTORS[list(ids)])


def backups_of(pipeline: Pipeline) -> Backups:
    return Backups(
        pipeline.settings,
        store=pipeline.store,
        open_catalog=lambda: pipeline.catalog,
        clock=pipeline.clock,
        by="ada@desk",
    )


def answers(pipeline: Pipeline) -> list[tuple[str, float]]:
    """What a reader finds, with the scores."""
    with pipeline.reader("web").acquire() as snapshot:
        return [
            (hit.id, hit.score)
            for query in VECTORS[:5]
            for hit in snapshot["similar"].search(query, k=8)
        ]


def blobs_of(pipeline: Pipeline) -> dict[str, bytes]:
    """Every blob that the newest release names, by its digest."""
    release = pipeline.store.newest_release()
    assert release is not None
    found = {}
    for component, version in release.components.items():
        opened = pipeline.store.open_version(component, version)
        for label, ref in opened.manifest.files.items():
            found[ref.digest] = opened.files[label].read_bytes()
    return found


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, but locks and marks of checks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"lock", "checked", "opened"} & set(path.parts)
    }
