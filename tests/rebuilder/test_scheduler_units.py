"""What of a pass is built together, from the same snapshots."""

from dataclasses import replace
from typing import Any

import pytest

from indexrelay.health.facts import Facts
from indexrelay.rebuilder.scheduler import find_units, in_turn, parents_first
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from tests.health.test_due_groups import facts


def given(
    groups: dict[str, str], collections: dict[str, Any] | None = None, **inputs: str
) -> Facts:
    """Facts about components; ``inputs``: of each, separated by blanks."""
    definitions = {
        name: ComponentDefinition.of(
            "json_cache", *sources.split(), group=groups.get(name), function="a:b"
        )
        for name, sources in inputs.items()
    }
    sources = {
        name: CollectionSettings.model_validate({"dimension": 2, "metric": "l2", **source})
        for name, source in (collections or {}).items()
    }
    return replace(facts(definitions), collections=sources)


def together(found: Facts, *, workers: int = 2, disagreeing: tuple[str, ...] = ()) -> set[str]:
    """The units, each as its components in the order of their names."""
    due = set(found.definitions)
    units = find_units(due, found, workers=workers, disagreeing=set(disagreeing))
    return {" ".join(sorted(unit)) for unit in units}


PAIR = {"a": "maps", "b": "maps"}


def test_members_are_built_side_by_side_where_each_has_a_worker() -> None:
    pair = given(PAIR, a="tracks", b="tracks", alone="tracks")
    assert together(pair, workers=2) == set()
    assert together(pair, workers=1) == {"a b"}


def test_members_that_disagreed_are_built_together() -> None:
    pair = given(PAIR, a="tracks", b="tracks")
    assert together(pair, disagreeing=("maps",)) == {"a b"}
    assert together(pair, disagreeing=("others",)) == set()


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "folder", "path": "songs"},
        {"kind": "table", "url": "sqlite:///songs.db", "table": "songs"},
    ],
)
def test_what_is_read_from_outside_is_always_read_together(source: dict[str, Any]) -> None:
    """Two of its snapshots may differ and have one generation."""
    assert together(given(PAIR, {"tracks": {"source": source}}, a="tracks", b="tracks")) == {"a b"}
    assert together(given({}, {"tracks": {"source": source}}, a="tracks", b="tracks")) == set()


def test_members_that_share_no_collection_need_not_be_built_together() -> None:
    assert together(given(PAIR, a="tracks", b="songs"), workers=1) == set()
    assert together(given(PAIR, a="tracks", b="a"), workers=1) == set()


def test_a_child_that_reads_what_its_parent_reads_is_built_with_it() -> None:
    """It begins when that has ended, whatever workers there are."""
    assert together(given(PAIR, a="tracks", b="a tracks"), workers=9) == {"a b"}


def test_a_parent_outside_of_the_group_is_built_with_its_members() -> None:
    grown = given({"grown": "maps", "index": "maps"}, seed="tracks", grown="seed", index="tracks")
    assert together(grown, workers=1) == {"index seed"}


def test_groups_that_share_a_parent_are_built_together() -> None:
    groups = {"one": "x", "two": "x", "three": "y", "four": "y"}
    shared = given(groups, p="tracks", one="p", two="tracks", three="p", four="tracks")
    assert together(shared, workers=1) == {"four p two"}


def test_what_lies_between_belongs_to_it_in_the_order_of_dependencies() -> None:
    groups = {"first": "maps", "last": "maps"}
    between = given(groups, first="tracks", middle="first", last="middle tracks")
    assert together(between) == {"first last middle"}
    order = parents_first(set(between.definitions), between)
    turn = in_turn(frozenset(order), order, last=set())
    assert turn == ("first", "middle", "last")


def test_units_that_would_wait_for_each_other_become_one() -> None:
    groups = {"a": "x", "d": "x", "b": "y", "c": "y"}
    crossed = given(groups, a="tracks", b="a songs", c="songs", d="c tracks")
    assert together(crossed) == {"a b c d"}


def test_what_may_kill_the_process_is_built_last_unless_others_wait_for_it() -> None:
    free: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    assert in_turn(frozenset(free), free, last={"a"}) == ("b", "c", "a")
    bound = {**free, "b": {"a"}}
    assert in_turn(frozenset(bound), bound, last={"a"}) == ("c", "a", "b")
