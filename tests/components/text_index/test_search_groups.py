"""A text search in which each group has so many places."""

from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.text_index import TextIndex, TextIndexParameters, TextSearch
from indexrelay.schemas.filters import InvalidFilterError
from tests.components.jobs import make_job, make_snapshot, run

COUNT = 400


@pytest.fixture
def texts(tmp_path: Path) -> TextSearch:
    rng = np.random.default_rng(5)
    words = ["sea", "blue", "song", "moon"]
    kind = TextIndex(TextIndexParameters.model_validate({"filterable": {"shelf": "keyword"}}))
    snapshot = make_snapshot(
        np.ones((COUNT, 2), dtype=np.float32),
        texts=[" ".join(rng.choice(words, size=rng.integers(1, 6))) for _ in range(COUNT)],
        # Most stand on one shelf, so that a few candidates are not enough.
        payloads=[f'{{"shelf": "s{row % 40 if row % 10 == 0 else 1}"}}' for row in range(COUNT)],
    )
    done = run(kind, make_job(tmp_path, snapshot))
    assert done.failed == []
    return kind.load(done.files)


@pytest.mark.parametrize("per_group", [1, 3])
def test_hits_are_the_first_of_their_groups_among_all(texts: TextSearch, per_group: int) -> None:
    hits = texts.search("sea blue", k=12, group_by="shelf", per_group=per_group)
    expected, seen = [], dict.fromkeys((f"s{shelf}" for shelf in range(40)), 0)
    for hit in texts.search("sea blue", k=COUNT):
        seen[hit.payload["shelf"]] += 1
        if seen[hit.payload["shelf"]] <= per_group:
            expected.append(hit.id)
    assert [hit.id for hit in hits] == expected[:12]
    texts.close()


def test_a_field_that_is_not_declared_is_refused(texts: TextSearch) -> None:
    with pytest.raises(InvalidFilterError, match="'row' is no filterable field; there are shelf"):
        texts.search("sea", group_by="row")
    with pytest.raises(InvalidQueryError, match="per_group goes with group_by"):
        texts.search("sea", per_group=2)
    texts.close()
