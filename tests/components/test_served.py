"""What served objects can do is declared, and the installed ones do what they declare."""

from pathlib import Path

import numpy as np
import pytest

from indexrelay.components import (
    Served,
    ServedDocument,
    ServedEmbeddings,
    TextSearchable,
    VectorSearchable,
    kind_of,
)
from indexrelay.schemas.settings import ComponentDefinition
from tests.components.jobs import clustered, make_job, make_snapshot, run

PROTOCOLS = (VectorSearchable, TextSearchable, ServedDocument, ServedEmbeddings)


def document(inputs: object) -> list[int]:
    return [1, 2]


@pytest.mark.parametrize(
    ("keys", "protocols"),
    [
        # Its search takes a vector: whoever asks looks for that protocol first.
        ({"kind": "vector_index"}, {VectorSearchable, TextSearchable}),
        ({"kind": "text_index"}, {TextSearchable}),
        ({"kind": "search"}, {VectorSearchable, TextSearchable}),
        ({"kind": "embedding_cache"}, {ServedEmbeddings}),
        ({"kind": "projection"}, set()),
        ({"kind": "json_cache", "function": f"{__name__}:document"}, {ServedDocument}),
        ({"kind": "examples.kinds.signs:SignIndex"}, {VectorSearchable, TextSearchable}),
        ({"kind": "examples.kinds.middle:MiddleKind"}, set()),
    ],
    ids=lambda value: str(value.get("kind")) if isinstance(value, dict) else "",
)
def test_a_served_object_has_the_methods_of_its_protocols(
    tmp_path: Path, keys: dict[str, str], protocols: set[type]
) -> None:
    source = make_snapshot(clustered(40, 8), texts=["word"] * 40)
    kind = kind_of(ComponentDefinition.model_validate({**keys, "from": "tracks"}))
    served = kind.load(run(kind, make_job(tmp_path, source)).files)
    assert isinstance(served, Served)
    assert {one for one in PROTOCOLS if isinstance(served, one)} == protocols
    if isinstance(served, VectorSearchable):
        assert len(served.search(np.ones(8, np.float32), k=3)) == 3
        assert "e000001" not in {hit.id for hit in served.search_by_id("e000001", k=3)}
    elif isinstance(served, TextSearchable):
        assert len(served.search("word", k=3)) == 3
    if isinstance(served, ServedEmbeddings):
        assert served.get_many(served.ids[:2]).shape == (2, served.dimension)
    served.close()
