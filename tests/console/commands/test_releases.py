"""``indexrelay releases``: a list, one in detail, and what changed between two."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.commands.releases import numbered
from indexrelay.console.errors import CommandError
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.history import Changed, difference, release_history
from tests.console.conftest import Run

NOW = SystemClock().now()


def manifest(name: str, *, entries: int, covers: int, definition: str = "a") -> VersionManifest:
    return VersionManifest(
        component=name,
        kind="embedding_cache",
        definition=definition * 64,
        covers={"tracks": covers},
        epochs={"tracks": "e"},
        files={},
        entries=entries,
        created_at=NOW,
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Four releases: first, changed and added and regrouped, held, removed and lifted."""
    store = ArtifactStore(tmp_path / "artifacts", by="ada@desk")
    old = store.put_version(manifest("index", entries=1000, covers=1))
    new = store.put_version(manifest("index", entries=1500, covers=4, definition="b"))
    words = store.put_version(manifest("words", entries=3, covers=4))
    maps = store.put_version(manifest("maps", entries=3, covers=4))

    def commit(components: dict[str, str], groups: dict[str, str], **more: Any) -> None:
        newest = store.newest_release()
        store.commit_release(
            Release(
                number=store.next_number(),
                components=components,
                groups=groups,
                created_at=NOW,
                previous=newest.number if newest else 0,
                **more,
            )
        )

    commit({"index": old, "maps": maps}, {}, reason="first", by="rebuilder/r1")
    commit({"index": new, "maps": maps, "words": words}, {"maps": "both"}, reason="rebuilt index")
    store.hold("index", reason="good enough")
    commit({"index": new, "words": words}, {}, reason="maps were dropped")
    return store


def test_each_release_shows_who_made_it_and_what_it_changed(store: ArtifactStore) -> None:
    newest, held, second, first = release_history(store, most=10)
    assert (first.by, first.added, first.reason) == ("rebuilder/r1", ("index", "maps"), "first")
    assert (second.by, second.changed, second.added) == ("ada@desk", ("index",), ("words",))
    assert (held.holds, held.changed, held.reason) == (("index",), (), "held index: good enough")
    assert newest.removed == ("maps",)
    assert [each.number for each in release_history(store, most=2)] == [4, 3]


def test_a_difference_names_components_holds_and_groups(store: ArtifactStore) -> None:
    diff = difference(store, store.release(1), store.release(2))
    index = diff.components["index"]
    assert (index.change, index.redefined) == (Changed.CHANGED, True)
    assert index.before is not None
    assert index.after is not None
    assert (index.before.entries, index.after.entries) == (1000, 1500)
    assert (index.before.covers, index.after.covers) == ({"tracks": 1}, {"tracks": 4})
    assert diff.components["words"].change is Changed.ADDED
    assert (diff.same, diff.regrouped) == (("maps",), {"maps": (None, "both")})
    diff = difference(store, store.release(2), store.release(3))
    assert (diff.components, set(diff.held)) == ({}, {"index"})
    diff = difference(store, store.release(3), store.release(4))
    assert diff.components["maps"].change is Changed.REMOVED
    assert diff.lifted == ("index",)
    backwards = difference(store, store.release(4), store.release(3))
    assert backwards.components["maps"].change is Changed.ADDED


def test_what_is_gone_or_corrupt_is_shown_as_far_as_it_can_be_read(store: ArtifactStore) -> None:
    release = store.release(1)
    (store.root / "versions" / "index" / f"{release.components['index']}.json").unlink()
    before = difference(store, release, store.release(2)).components["index"].before
    assert before is not None
    assert (before.version, before.entries) == (release.components["index"], None)
    for corrupt in store.root.rglob("00000002*"):
        corrupt.chmod(0o600)
        corrupt.write_text("{}")
    found = {each.number: each for each in release_history(store, most=10)}
    assert found[2].made_at is None
    assert "cannot be read" in found[2].reason
    assert found[3].added == ("words",), "compared with the newest one below that can be read"


def test_an_unknown_number_is_answered_with_those_there_are(store: ArtifactStore) -> None:
    with pytest.raises(CommandError, match="no release 9, or not any more; there are 1-4"):
        numbered(store, 9)


@pytest.mark.server
def test_people_see_lists_details_and_differences(run: Run, built: Path) -> None:
    at = ("--config", str(built))
    assert run("hold", "map", "--reason", "for now", *at).code == 0
    listed = json.loads(run("releases", "--json", *at).out)["releases"]
    assert listed == json.loads(run("releases", "list", "--json", *at).out)["releases"]
    newest = listed[0]
    assert (newest["holds"], newest["reason"]) == (["map"], "held map: for now")
    assert newest["by"].startswith(f"{getpass.getuser()}@")
    assert listed[-1]["by"].startswith("rebuilder/")

    page = run("releases", *at).out
    assert "+map +map_cache" in page
    shown = json.loads(run("releases", "show", "1", "--json", *at).out)
    assert shown["number"] == 1
    assert shown["components"]["map"]["entries"] == 20
    assert {check["name"] for check in shown["components"]["map"]["checks"]} >= {"count"}
    page = run("releases", "show", "--checks", *at).out
    assert "map is held since" in page
    assert "indexrelay lift" in page
    assert "bytes of" in page
    diff = json.loads(run("releases", "diff", "--json", *at).out)
    assert (diff["after"], diff["components"]) == (newest["number"], {})
    assert diff["held"]["map"]["reason"] == "for now"
    same = run("releases", "diff", "1", "1", *at)
    assert "nothing is different" in same.out
    alone = run("releases", "diff", "--config", str(built), "9", "99")
    assert (alone.code, "there are 1-" in alone.err) == (1, True)
    assert run("lift", "map", *at).code == 0
