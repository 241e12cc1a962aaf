"""Whatever happens to a collection, its index answers as an exact search over what is there.

Any sequence of upserts, deletes, rebuilds, compactions and reloads: an exact index gives the
scores of a brute-force model at every k. Run it for long with ``INDEXRELAY_EXAMPLES=2000``.
"""

import json
import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import precondition, rule

from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.schemas.settings import Metric
from tests.components.changing_collection import DIMENSION, POOL, ChangingCollection
from tests.components.jobs import MemorySnapshot, Run

_EXAMPLES = int(os.environ.get("INDEXRELAY_EXAMPLES", "30"))


def true_scores(source: MemorySnapshot, query: Any) -> Any:
    """The score of every entry, the nearest first, by the textbook."""
    matrix, asked = source.matrix.astype(np.float64), np.asarray(query, dtype=np.float64)
    match source.metric:
        case Metric.L2:
            return np.sort(np.linalg.norm(matrix - asked, axis=1))
        case Metric.INNER_PRODUCT:
            return -np.sort(-(matrix @ asked))
        case Metric.COSINE:
            lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(asked)
            return -np.sort(-(matrix @ asked / lengths))


class _Machine(ChangingCollection):
    """A reader beside the builds, which loads each version in turn."""

    kind = VectorIndex(VectorIndexParameters(min_recall=1.0, max_delta=0.6, max_tombstones=0.5))

    def __init__(self) -> None:
        self.reader: VectorSearch | None = None
        super().__init__()

    def compare(self, done: Run) -> None:
        before = self.reader
        if before is None:
            self.reader = self.kind.load(done.files)
        else:
            self.reader = self.kind.reload(done.files, before)
            before.close()
        self.check()

    def teardown(self) -> None:
        if self.reader is not None:
            self.reader.close()
        super().teardown()

    @precondition(lambda self: self.reader is not None)
    @rule()
    def a_new_reader_comes(self) -> None:
        assert self.reader is not None
        assert self.done is not None
        self.reader.close()
        self.reader = self.kind.load(self.done.files)

    def check(self) -> None:
        """The reader holds what the collection holds, and answers like a search over all of it."""
        reader, source = self.reader, self.snapshot
        assert reader is not None
        assert list(reader.ids) == source.ids
        assert len(reader) == source.count
        for name in POOL[::7]:
            assert (name in reader) == (name in source.rows)
            if name in source.rows:
                payload = source.rows[name].payload
                assert reader.payload(name) == (payload and json.loads(payload))
        query = self.rng.standard_normal(DIMENSION).astype(np.float32)
        true = true_scores(source, query)
        for k in {1, 10, max(source.count, 1), source.count + 5}:
            hits = reader.search(query, k=k)
            assert len({hit.id for hit in hits}) == len(hits) == min(k, source.count)
            np.testing.assert_allclose(
                [hit.score for hit in hits], true[: len(hits)], rtol=1e-4, atol=1e-4
            )
        for hit in reader.search(query, k=3):
            own = true_scores(_only(source, hit.id), query)
            np.testing.assert_allclose(hit.score, own[0], rtol=1e-4, atol=1e-4)


def _only(source: MemorySnapshot, name: str) -> MemorySnapshot:
    return MemorySnapshot(
        {name: source.rows[name]}, dimension=source.dimension, metric=source.metric
    )


class _Cosine(_Machine):
    metric = Metric.COSINE


class _InnerProduct(_Machine):
    metric = Metric.INNER_PRODUCT


_settings = settings(
    max_examples=_EXAMPLES,
    stateful_step_count=15,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
_Machine.TestCase.settings = _Cosine.TestCase.settings = _InnerProduct.TestCase.settings = _settings

test_any_sequence_answers_as_a_search_over_everything_under_l2 = _Machine.TestCase
test_any_sequence_answers_as_a_search_over_everything_under_cosine = _Cosine.TestCase
test_any_sequence_answers_as_a_search_over_everything_under_inner_product = _InnerProduct.TestCase
