"""What a version says of its index: read only where it can be."""

from pathlib import Path

import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.vector_index.spec import IndexFacts
from indexrelay.schemas.names import canonical_json

FACTS = {
    "factory": "IVF16,Flat",
    "metric": "l2",
    "dimension": 4,
    "count": 100,
    "base_bytes": 1000,
    "effort": {},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [("factory", "Flau"), ("factory", ""), ("metric", "l3"), ("dimension", 0), ("count", -1)],
)
def test_facts_that_cannot_be_are_corruption(key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_bytes(canonical_json(FACTS))
    assert IndexFacts.load(file).factory == "IVF16,Flat"
    file.write_bytes(canonical_json({**FACTS, key: value}))
    with pytest.raises(CorruptFileError, match=r"1 value\(s\) that cannot be"):
        IndexFacts.load(file)
