"""When the versions of two components are at one state."""

from datetime import UTC, datetime

import pytest

from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import (
    VersionManifest,
    agree,
    disagreements,
    groups_of,
    have_common_roots,
    mates_of,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DEFINITIONS = {
    "main_map": ComponentDefinition.of("projection", "tracks", group="maps"),
    "map_cache": ComponentDefinition.of("json_cache", "main_map", group="maps"),
    "titles": ComponentDefinition.of("text_index", "songs", group="maps"),
    "alone": ComponentDefinition.of("vector_index", "tracks", group="lonely"),
    "voyager": ComponentDefinition.of("vector_index", "tracks"),
}


def version(
    name: str, *, parents: dict[str, str] | None = None, epoch: str = "e1", **covers: int
) -> VersionManifest:
    return VersionManifest(
        component=name,
        kind=DEFINITIONS[name].kind,
        definition=DEFINITIONS[name].digest,
        covers=covers,
        epochs=dict.fromkeys(covers, epoch),
        parents=parents or {},
        files={},
        entries=1,
        created_at=NOW,
    )


MAIN = version("main_map", tracks=2)
OLD = {"main_map": "0" * 64}
NEW = {"main_map": MAIN.id}


def test_a_group_has_two_members_or_more() -> None:
    assert groups_of(DEFINITIONS) == {"maps": ("main_map", "map_cache", "titles")}
    assert mates_of("main_map", DEFINITIONS) == ("map_cache", "titles")
    assert mates_of("voyager", DEFINITIONS) == mates_of("alone", DEFINITIONS) == ()


def test_components_have_roots_in_common_through_whatever_they_are_made_from() -> None:
    assert have_common_roots("voyager", "map_cache", DEFINITIONS)
    assert not have_common_roots("titles", "map_cache", DEFINITIONS)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (version("map_cache", parents=NEW, tracks=2), None),
        (version("titles", songs=9), None),
        (
            version("map_cache", parents=NEW, tracks=1),
            "main_map covers tracks up to 2, map_cache up to 1",
        ),
        (
            version("map_cache", parents=OLD, tracks=2),
            "map_cache was made from another version of main_map than the one beside it",
        ),
        (
            version("map_cache", parents=NEW, epoch="e0", tracks=2),
            "main_map and map_cache cover tracks of before and after it was created again",
        ),
    ],
    ids=["same", "nothing in common", "generation", "parent", "epoch"],
)
def test_versions_are_at_one_state_when_they_cover_the_same_of_what_they_share(
    other: VersionManifest, why: str | None
) -> None:
    versions = {"main_map": MAIN, other.component: other}
    found = disagreements(versions, {name: each.id for name, each in versions.items()})
    assert found == (() if why is None else (why,))
    pair = [(name, each.id, each) for name, each in versions.items()]
    assert agree(pair[0], pair[1]) is agree(pair[1], pair[0]) is (why is None)


def test_two_children_of_one_parent_name_the_same_version_of_it() -> None:
    one = version("titles", parents={"voyager": "1" * 64}, tracks=2)
    other = version("alone", parents={"voyager": "2" * 64}, tracks=2)
    [why] = disagreements({"titles": one, "alone": other}, {})
    assert why == "alone and titles were made from different versions of voyager"
