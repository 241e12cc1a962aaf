from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import in_order, root_collections, with_descendants

DEFINITIONS = {
    "cache": ComponentDefinition.of("x", "map", "songs"),
    "map": ComponentDefinition.of("x", "index"),
    "index": ComponentDefinition.of("x", "songs"),
    "artists": ComponentDefinition.of("x", "people"),
}


def test_parents_come_before_children() -> None:
    order = in_order(DEFINITIONS)
    assert order.index("index") < order.index("map") < order.index("cache")


def test_descendants_include_those_of_children() -> None:
    assert with_descendants(["index"], DEFINITIONS) == {"index", "map", "cache"}
    assert with_descendants([], DEFINITIONS) == set()


def test_roots_are_found_through_other_components() -> None:
    assert root_collections("cache", DEFINITIONS) == {"songs"}
    assert root_collections("artists", DEFINITIONS) == {"people"}
