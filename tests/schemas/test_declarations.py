"""What a process says of the settings that it was started with, and what it keeps to itself."""

from typing import Any

import pytest

from indexrelay.schemas.declarations import Declaration, declared_to_build, declared_to_serve
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition

TABLE = {"kind": "table", "url": "postgresql://u:secret@db/songs", "table": "songs"}


def component(**keys: Any) -> dict[str, ComponentDefinition]:
    return {"map": ComponentDefinition.of("vector_index", "tracks", **keys)}


def collection(**keys: Any) -> dict[str, CollectionSettings]:
    return {"tracks": CollectionSettings.model_validate({"dimension": 2, **keys})}


def builds(keys: dict[str, Any], source: dict[str, Any] | None = None) -> Declaration:
    return declared_to_build(component(**keys), collection(**(source or {})))


@pytest.mark.parametrize(
    "keys",
    [
        {"index": "Flat"},
        {"group": "maps"},
        {"max_shrink": 1.0},
        {"build_timeout_seconds": 5},
        {"build_memory_bytes": 5},
    ],
)
def test_a_rebuilder_differs_in_whatever_it_builds_by(keys: dict[str, Any]) -> None:
    assert builds(keys).differences(builds({})) == ("map is declared differently there",)


@pytest.mark.parametrize(
    "keys",
    [{"persistence": "manual"}, {"persistence": "periodic"}],
)
def test_a_rebuilder_differs_in_when_it_builds(keys: dict[str, Any]) -> None:
    said = ("collection tracks is declared differently there",)
    assert builds({}, keys).differences(builds({})) == said
    other = {"persistence": "periodic", "save_interval_seconds": 7.0}
    assert builds({}, keys).differences(builds({}, other)) == said
    assert builds({}, {"save_interval_seconds": 7.0}).differences(builds({})) == ()


def test_a_rebuilder_does_not_differ_in_what_is_a_readers_or_has_its_default() -> None:
    assert builds({"required": False}).differences(builds({})) == ()
    assert builds({"max_shrink": 0.5, "group": None}).differences(builds({})) == ()


def test_a_reader_differs_in_kinds_of_users_and_in_what_it_requires_only() -> None:
    def serves(kind: str = "vector_index", **keys: Any) -> Declaration:
        return declared_to_serve({"map": ComponentDefinition.of(kind, "tracks", **keys)})

    nothing = declared_to_serve({})
    for same in (serves(), serves(index="Flat", group="maps"), serves("text_index")):
        assert same.differences(serves()) == ()
        assert nothing.differences(same) == same.differences(nothing) == ()
    for other in (serves(required=False), serves("songs:Songs")):
        assert nothing.differences(other) == ("map is not declared there",)
        assert other.differences(nothing) == ("map is declared there and no longer here",)
    assert serves("songs:Songs").differences(serves("songs:Other")) == (
        "map is declared differently there",
    )


@pytest.mark.parametrize(
    "source",
    [
        {"dimension": 3},
        {"metric": "l2"},
        {"source": TABLE},
        {"source": {"kind": "folder", "path": "/songs"}},
    ],
)
def test_a_collection_differs_in_its_shape_and_in_what_is_read(source: dict[str, Any]) -> None:
    said = ("collection tracks is declared differently there",)
    assert builds({}, source).differences(builds({})) == said


def test_a_name_that_only_one_side_declares_is_a_difference() -> None:
    none = Declaration()
    assert builds({}).differences(none) == (
        "map is declared there and no longer here",
        "collection tracks is declared there and no longer here",
    )
    assert none.differences(builds({})) == (
        "map is not declared there",
        "collection tracks is not declared there",
    )


def test_many_differences_are_counted() -> None:
    many = Declaration(components={f"c{number}": "x" for number in range(6)})
    *first, last = many.differences(Declaration())
    assert (len(first), last) == (4, "and 2 more")


def test_a_place_differs_where_both_look_from_one_host() -> None:
    here = builds({}, {"source": TABLE})
    there = builds({}, {"source": {**TABLE, "url": "postgresql://u:secret@other/songs"}})
    assert there.differences(here) == ()
    assert there.differences(here, same_host=True) == ("collection tracks lies elsewhere",)


def test_a_digest_does_not_depend_on_a_password_or_an_option() -> None:
    """Whoever reads presence could otherwise try passwords until the digest is met."""
    for url in ("postgresql://u:other@db/songs", "postgresql://u@db/songs?password=x"):
        assert builds({}, {"source": {**TABLE, "url": url}}) == builds({}, {"source": TABLE})
