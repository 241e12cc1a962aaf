"""What a factory string says about itself."""

import pytest

from indexrelay.components.vector_index.spec import parse_factory


@pytest.mark.parametrize(
    ("text", "lists", "needed", "graph", "refined"),
    [
        ("Flat", 0, 0, "", False),
        ("IVF64,Flat", 64, 2496, "", False),
        ("IVF64_HNSW32,SQ8", 64, 2496, "", False),
        ("IVF64,PQ8", 64, 9984, "", False),
        ("IVF1024,PQ8x4fsr,RFlat", 1024, 39936, "", True),
        ("OPQ16_64,IVF64,PQ16x4", 64, 2496, "", False),
        ("OPQ16,PQ16", 0, 9984, "", False),
        ("PCA16,IVF16,Flat", 16, 1000, "", False),
        ("PCAR16,Flat", 0, 1000, "", False),
        ("HNSW32", 0, 0, "HNSW", False),
        ("HNSW32,SQ8", 0, 0, "HNSW", False),
        ("HNSW32,PQ16", 0, 9984, "HNSW", False),
        ("NSG32", 0, 1000, "NSG", False),
        ("RQ4x6", 0, 2496, "", False),
        ("IVF64,SQ4,Refine(SQ8)", 64, 2496, "", True),
    ],
)
def test_a_factory_string_is_taken_apart(
    text: str, lists: int, needed: int, graph: str, refined: bool
) -> None:
    factory = parse_factory(text)
    assert (factory.lists, factory.needed_rows) == (lists, needed)
    assert (factory.graph, factory.refined) == (graph, refined)
