"""Rollback, hold and lift: new releases that do not undo what others release meanwhile."""

import multiprocessing
from pathlib import Path

import pytest

from indexrelay.schemas.versions import Canary, Release
from indexrelay.storage.artifacts import (
    ArtifactStore,
    ComponentNotReleasedError,
    GroupTornError,
    NothingReleasedError,
    ReleaseExistsError,
    ReleaseNotWholeError,
    ReleaseUnreadableError,
)
from indexrelay.storage.artifacts.releases import Releases
from tests.storage.artifacts.samples import MOMENT, make_release, make_version


@pytest.fixture
def versions(store: ArtifactStore) -> list[str]:
    return [make_version(store, "voyager", b"%d" % i) for i in range(3)]


def test_a_rollback_names_the_old_versions_and_holds_them(
    store: ArtifactStore, versions: list[str]
) -> None:
    clap = make_version(store, "clap", b"clap")
    make_release(store, voyager=versions[0])
    make_release(store, voyager=versions[1], clap=clap)
    release = store.rollback(1, reason="bad songs")
    assert release == store.newest_release()
    assert (release.number, release.previous) == (3, 2)
    assert release.reason == "rolled back voyager to release 1: bad songs"
    # What release 1 did not have yet stays as it is.
    assert release.components == {"voyager": versions[0], "clap": clap}
    assert set(release.holds) == {"voyager"}
    assert release.holds["voyager"].reason == "bad songs"


def test_a_rollback_of_one_component_leaves_the_others(
    store: ArtifactStore, versions: list[str]
) -> None:
    claps = [make_version(store, "clap", b"clap%d" % i) for i in range(2)]
    make_release(store, voyager=versions[0], clap=claps[0])
    make_release(store, voyager=versions[1], clap=claps[1])
    release = store.rollback(1, reason="bad songs", components=["voyager"])
    assert release.components == {"voyager": versions[0], "clap": claps[1]}
    assert set(release.holds) == {"voyager"}


def test_a_rollback_brings_back_the_groups(store: ArtifactStore, versions: list[str]) -> None:
    first = make_release(store, voyager=versions[0])
    store.commit_release(
        first.model_copy(update={"number": 2, "previous": 1, "groups": {"voyager": "songs"}})
    )
    make_release(store, voyager=versions[1])
    assert store.rollback(2, reason="back").groups == {"voyager": "songs"}


def grouped(store: ArtifactStore, generation: int, *names: str) -> Release:
    """A release of these as one group, beside what is released."""
    newest = store.newest_release()
    components = {} if newest is None else newest.components
    made = {name: make_version(store, name, b"1", generation=generation) for name in names}
    return store.commit_release(
        Release(
            number=store.next_number(),
            components=components | made,
            groups=dict.fromkeys(names, "songs"),
            created_at=MOMENT,
            reason="a test",
            previous=0 if newest is None else newest.number,
        )
    )


def test_a_rollback_of_one_member_takes_its_group_along(store: ArtifactStore) -> None:
    first = grouped(store, 1, "voyager", "map")
    grouped(store, 2, "voyager", "map")
    release = store.rollback(1, reason="bad songs", components=["map"])
    assert release.components == first.components
    assert set(release.holds) == {"voyager", "map"}


@pytest.mark.parametrize("components", [None, ["map"]], ids=["all", "one"])
def test_a_rollback_that_would_tear_a_group_is_refused(
    store: ArtifactStore, components: list[str] | None
) -> None:
    grouped(store, 1, "voyager", "map")
    newest = grouped(store, 2, "voyager", "map", "clap")
    with pytest.raises(GroupTornError, match="clap covers tracks up to 2, map up to 1") as caught:
        store.rollback(1, reason="bad songs", components=components)
    assert caught.value.group == "songs"
    assert store.newest_release() == newest


def test_a_rollback_to_what_is_gone_releases_nothing(
    store: ArtifactStore, versions: list[str]
) -> None:
    make_release(store, voyager=versions[0])
    newest = make_release(store, voyager=versions[1])
    (path,) = store.open_version("voyager", versions[0]).files.values()
    path.unlink()
    said = f"{path} is missing; restore the file, or name another"
    with pytest.raises(ReleaseNotWholeError, match=said):
        store.rollback(1, reason="back")
    path.write_bytes(b"other bytes")
    with pytest.raises(ReleaseNotWholeError, match=f"{path} is corrupt"):
        store.rollback(1, reason="back")
    store.root.joinpath("versions", "voyager", f"{versions[0]}.json").unlink()
    with pytest.raises(ReleaseNotWholeError, match=r"version .* of voyager"):
        store.rollback(1, reason="back")
    with pytest.raises(ReleaseUnreadableError):
        store.rollback(7, reason="back")
    assert store.newest_release() == newest


def test_a_hold_stays_until_it_is_lifted(store: ArtifactStore, versions: list[str]) -> None:
    make_release(store, voyager=versions[0])
    held = store.hold("voyager", reason="a demo today")
    assert held.components == {"voyager": versions[0]}
    assert held.holds["voyager"].reason == "a demo today"
    lifted = store.lift("voyager", reason="the demo is over")
    assert (lifted.number, lifted.holds) == (3, {})
    assert held.reason == "held voyager: a demo today"
    assert lifted.reason == "lifted voyager: the demo is over"
    assert store.lift("voyager", reason="again") == lifted


def test_a_component_that_was_dropped_while_it_was_held_can_be_lifted(
    store: ArtifactStore, versions: list[str]
) -> None:
    make_release(store, voyager=versions[0])
    held = store.hold("voyager", reason="a demo today")
    store.commit_release(held.model_copy(update={"number": 3, "previous": 2, "components": {}}))
    assert store.lift("voyager", reason="gone").holds == {}


def test_a_hold_of_what_is_not_released_is_refused(
    store: ArtifactStore, versions: list[str]
) -> None:
    with pytest.raises(NothingReleasedError):
        store.hold("voyager", reason="early")
    make_release(store, voyager=versions[0])
    with pytest.raises(ComponentNotReleasedError, match="voyager"):
        store.hold("voyger", reason="misspelt")
    with pytest.raises(ComponentNotReleasedError):
        store.lift("clap", reason="misspelt")
    with pytest.raises(ComponentNotReleasedError):
        store.rollback(1, reason="misspelt", components=["clap"])
    assert store.next_number() == 2


def test_a_hold_does_not_undo_what_was_released_between_its_reading_and_its_writing(
    store: ArtifactStore, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release(store, voyager=versions[0])
    commit = Releases.commit

    def overtaken(releases: Releases, release: Release, *, lost: int = 0) -> Release:
        monkeypatch.undo()
        make_release(store, voyager=versions[1])
        return commit(releases, release, lost=lost)

    monkeypatch.setattr(Releases, "commit", overtaken)
    held = store.hold("voyager", reason="a demo today")
    assert (held.number, held.previous) == (3, 2)
    assert held.components == {"voyager": versions[1]}


def _hold_and_lift(root: Path, component: str) -> None:
    store = ArtifactStore(root)
    for _ in range(10):
        store.hold(component, reason="on")
        store.lift(component, reason="off")
    store.hold(component, reason="on")


def test_people_who_hold_different_components_at_once_all_get_their_way(
    store: ArtifactStore,
) -> None:
    names = ["voyager", "clap", "mulan"]
    make_release(store, **{name: make_version(store, name, name.encode()) for name in names})
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_hold_and_lift, args=(store.root, name)) for name in names]
    for child in children:
        child.start()
    for child in children:
        child.join()
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 1 + 3 * 21
    assert set(newest.holds) == set(names)


def test_a_release_from_elsewhere_is_for_everyone_whoever_tried_it_there(
    store: ArtifactStore, versions: list[str]
) -> None:
    tried = Release(
        number=7,
        components={"voyager": versions[1]},
        created_at=MOMENT,
        reason="rebuilt voyager",
        previous=6,
        canary=Canary(readers=("web-1",), since=MOMENT, components={"voyager": versions[0]}),
    ).sealed()
    first = store.restore(tried, hold=True, reason="from a backup")
    # Above its own number, as the first one here, and so not held.
    assert (first.number, first.previous, first.canary, first.holds) == (8, 0, None, {})
    assert first.components == {"voyager": versions[1]}
    clap = make_version(store, "clap", b"clap")
    make_release(store, voyager=versions[2], clap=clap)
    store.hold("clap", reason="as it is")
    held = store.restore(tried, hold=True, reason="back to that")
    assert held.components == {"voyager": versions[1], "clap": clap}
    assert set(held.holds) == {"clap", "voyager"}
    free = store.restore(tried, hold=False, reason="back to that", lost=40)
    assert (free.number, free.reason, set(free.holds)) == (41, "back to that", {"clap"})
    with pytest.raises(ReleaseNotWholeError):
        store.restore(
            tried.model_copy(update={"components": {"voyager": "f" * 64}}),
            hold=False,
            reason="of which nothing is here",
        )


def test_a_preview_says_what_the_rollback_then_does_and_commits_nothing(
    store: ArtifactStore, versions: list[str]
) -> None:
    with pytest.raises(ReleaseUnreadableError):
        store.preview_rollback(1, reason="none yet")
    make_release(store, voyager=versions[0])
    make_release(store, voyager=versions[1])
    newest, previewed = store.preview_rollback(1, reason="bad songs")
    assert (newest.number, store.release_numbers()) == (2, [2, 1])
    done = store.rollback(1, reason="bad songs")
    told = ("number", "previous", "components", "groups", "reason", "canary")
    assert {key: getattr(previewed, key) for key in told} == {
        key: getattr(done, key) for key in told
    }
    assert previewed.holds.keys() == done.holds.keys() == {"voyager"}
    make_release(store, voyager=versions[2])
    (blob,) = store.version("voyager", versions[0]).files.values()
    store.blob(blob).unlink()
    with pytest.raises(ReleaseNotWholeError):
        store.preview_rollback(1, reason="its file is gone")


def test_a_rollback_that_follows_from_an_older_release_is_refused(
    store: ArtifactStore, versions: list[str]
) -> None:
    for version in versions:
        make_release(store, voyager=version)
    with pytest.raises(ReleaseExistsError):
        store.rollback(1, reason="as release 2 was", decided_on=2)
    assert store.release_numbers() == [3, 2, 1]
    assert store.rollback(1, reason="as release 3 was", decided_on=3).number == 4
