"""Queries on mapped FAISS indexes while releases arrive: none fails, none is answered by another.

TensorFlow Serving measures this with a benchmark; here it is a matter of right and wrong. How fast
it is, `benchmarks` measure.
"""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Release
from tests.components.jobs import clustered
from tests.contracts.serving import SECONDS, Serving
from tests.contracts.together import together
from tests.reloaders.indexes import put_index
from tests.storage.artifacts.samples import MOMENT
from tests.streams.polling import eventually

RELEASES = 20
VERSIONS = 3
DIMENSION = 16


def _release(serving: Serving, number: int, version: str) -> Release:
    return serving.announce(
        serving.bench.store.commit_release(
            Release(
                number=number,
                components={"voyager": version},
                created_at=MOMENT,
                reason="a test",
                previous=number - 1,
            )
        )
    )


@pytest.fixture
def versions(serving: Serving) -> list[str]:
    """Indexes of the same ids over different vectors."""
    declared = {"voyager": ComponentDefinition.of("vector_index", "tracks")}
    settings = serving.bench.settings
    serving.bench.settings = settings.model_copy(update={"components": declared})
    folder = Path(serving.bench.folder)
    return [
        put_index(
            serving.bench.store,
            folder / f"job-{seed}",
            clustered(300, DIMENSION, seed=seed),
            component="voyager",
        )
        for seed in range(VERSIONS)
    ]


@pytest.mark.usefixtures("taking_turns_often")
def test_no_query_fails_while_releases_arrive_and_each_is_answered_by_one_version(
    serving: Serving, versions: list[str]
) -> None:
    """TensorFlow Serving: BM_Work_FrequentUpdates_Reads."""
    probe = np.ones(DIMENSION, dtype=np.float32)
    reader = serving.start()
    expected: dict[str, list[str]] = {}
    for number, version in enumerate(versions, start=1):
        serving.report(_release(serving, number, version))
        with reader.acquire() as snapshot:
            expected[version] = [hit.id for hit in snapshot["voyager"].search(probe, k=10)]
    assert len({tuple(ids) for ids in expected.values()}) == VERSIONS
    ended = threading.Event()
    met: set[int] = set()

    def release_often() -> list[int]:
        try:
            for number in range(VERSIONS + 1, VERSIONS + 1 + RELEASES):
                _release(serving, number, versions[number % VERSIONS])
                eventually(partial(met.__contains__, number), seconds=SECONDS)
        finally:
            ended.set()
        return []

    def query() -> list[int]:
        seen: list[int] = []
        while not ended.is_set():
            with reader.acquire() as snapshot:
                hits = snapshot["voyager"].search(probe, k=10)
                assert [hit.id for hit in hits] == expected[snapshot.versions["voyager"]]
                seen.append(snapshot.release)
                met.add(snapshot.release)
        return seen

    *seen, _ = together([query, query, release_often])
    for releases in seen:
        assert releases == sorted(releases), "no query sees an older release than the one before"
