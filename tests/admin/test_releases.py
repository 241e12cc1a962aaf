"""Releases over the admin API: lists, differences, previews, rollbacks, holds and pauses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexrelay.storage.catalog import inbox
from indexrelay.testing import MakePipeline, Pipeline
from tests.admin.desk import Desk, desk_of

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e" + "x" * 5000


def commit(pipeline: Pipeline, *ids: str) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(list(ids), [[1.0, 2.0, float(number)] for number in range(len(ids))])
    pipeline.advance(60)


@pytest.fixture
def desk(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    """Two releases of two components, and one reader."""
    cache = {"kind": "embedding_cache", "from": "tracks"}
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": cache, "other": {**cache, "max_shrink": 1.0}},
    )
    pipeline.reader("web")
    commit(pipeline, "a")
    commit(pipeline, "b", "c")
    with desk_of(pipeline) as desk:
        desk.look()
        yield desk


def test_releases_are_listed_page_by_page_with_what_each_changed(desk: Desk) -> None:
    for number in range(3):
        desk.pipeline.store.hold("cache", reason=f"hold {number}")
    page = desk.get("releases", limit=2)
    assert [each["number"] for each in page["releases"]] == [5, 4]
    assert (page["next"], page["total"]) == (4, 5)
    page = desk.get("releases", limit=10, before=4)
    assert [each["number"] for each in page["releases"]] == [3, 2, 1]
    assert page["next"] is None
    held, second, first = page["releases"]
    assert (first["added"], second["changed"]) == (["cache", "other"], ["cache", "other"])
    assert (held["holds"], held["changed"], held["unreadable"]) == (["cache"], [], False)
    assert first["by"] == "rebuilder/rebuilder"
    desk.get("releases", status=422, limit=1_000_000)


def test_one_release_and_the_difference_of_two_say_what_is_in_them(desk: Desk) -> None:
    release = desk.get("releases/2")
    assert (release["newest"], release["previous"]) == (True, 1)
    cache = release["components"]["cache"]
    assert (cache["entries"], cache["covers"], cache["checks_failed"]) == (3, {"tracks": 2}, 0)
    diff = desk.get("releases/1/diff/2")
    assert diff["components"]["cache"]["change"] == "changed"
    assert diff["components"]["cache"]["before"]["entries"] == 1
    assert diff["components"]["cache"]["after"]["entries"] == 3
    assert not diff["components"]["cache"]["back"]
    assert diff["readers"] == 1
    assert desk.get("releases/2/diff/1")["components"]["cache"]["back"]
    assert "those from 1 to 2" in desk.get("releases/9", status=404)["detail"]


def test_a_rollback_does_what_its_preview_says_and_is_kept_under_a_name(desk: Desk) -> None:
    told = desk.post("releases/1/rollback", status=200, dry_run=True, reason="bad songs")
    assert (told["before"], told["after"], told["rolled_back_to"]) == (2, 3, 1)
    assert {name: each["back"] for name, each in told["components"].items()} == {
        "cache": True,
        "other": True,
    }
    assert (sorted(told["held"]), told["readers"]) == (["cache", "other"], 1)
    assert desk.pipeline.store.release_numbers() == [2, 1]

    done = desk.post("releases/1/rollback", status=201, newest=2, reason="bad songs")
    assert (done["release"], done["held"]) == (3, ["cache", "other"])
    assert done["changed"] == ["cache", "other"]
    seen = desk.get("releases/2/diff/3")
    same = ("components", "held", "lifted", "same", "regrouped")
    assert {key: set(seen[key]) for key in same} == {key: set(told[key]) for key in same}
    release = desk.pipeline.store.newest_release()
    assert release is not None
    assert release.by == "admin/anyone"
    assert desk.audited()[-1] == ("rolled_back", "admin/anyone", "release 1")
    desk.pipeline.settle()
    with desk.pipeline.reader("web").acquire() as snapshot:
        assert snapshot.release == 3


def test_a_rollback_of_one_component_leaves_the_others(desk: Desk) -> None:
    done = desk.post("releases/1/rollback", status=201, components=["cache"])
    assert (done["held"], done["changed"]) == (["cache"], ["cache"])


def test_a_rollback_is_refused_with_a_reason_and_changes_nothing(desk: Desk) -> None:
    store = desk.pipeline.store
    assert "no release 9" in desk.post("releases/9/rollback", status=404)["detail"]
    desk.post("releases/1/rollback", status=404, components=["cashe"])
    desk.post("releases/1/rollback", status=422, components=["../etc"])
    desk.post("releases/1/rollback", status=422, components=[])
    desk.post("releases/1/rollback", status=422, reason="x" * 1001)
    desk.post("releases/1/rollback", status=422, dryrun=True)
    store.hold("cache", reason="meanwhile")
    answer = desk.post("releases/1/rollback", status=409, newest=2)
    assert "release 3 was made meanwhile" in answer["detail"]
    desk.post("releases/1/rollback", status=409, newest=2, dry_run=True)
    assert store.release_numbers() == [3, 2, 1]
    assert desk.audited() == []


def test_of_many_who_roll_back_from_one_release_at_once_one_does(desk: Desk) -> None:
    def roll_back(_: int) -> int:
        body = {"newest": 2, "reason": "all at once"}
        return desk.client.post("/api/admin/releases/1/rollback", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        answers = sorted(threads.map(roll_back, range(8)))
    assert answers == [201, *[409] * 7]
    assert desk.pipeline.store.release_numbers() == [3, 2, 1]
    assert [action for action, *_ in desk.audited()] == ["rolled_back"]


def test_what_is_held_or_paused_moves_on_when_somebody_says_so(desk: Desk) -> None:
    pipeline = desk.pipeline
    held = desk.post("components/cache/hold", status=200, reason="good enough")
    assert held == {"component": "cache", "changed": True, "release": 3}
    desk.post("components/other/pause", status=200, reason="for now")
    commit(pipeline, "d")
    assert pipeline.store.newest_release().number == 3, "neither is built"  # type: ignore[union-attr]
    assert desk.post("components/cache/lift", status=200)["changed"]
    assert not desk.post("components/cache/lift", status=200)["changed"]
    assert desk.post("components/other/resume", status=200)["changed"]
    pipeline.settle()
    release = pipeline.store.newest_release()
    assert release is not None
    assert all(
        pipeline.store.version(name, version).covers == {"tracks": 3}
        for name, version in release.components.items()
    )
    assert [action for action, *_ in desk.audited()] == ["held", "paused", "lifted", "resumed"]
    near = desk.post("components/cach/hold", status=404)["detail"]
    assert "cache" in near
    desk.post("components/cache/explode", status=404)


def test_what_is_held_or_paused_already_is_not_changed_by_being_so_again(desk: Desk) -> None:
    for verb in ("hold", "pause"):
        done = [
            desk.post(f"components/cache/{verb}", status=200, reason=reason)["changed"]
            for reason in ("good", "good", "better", "better")
        ]
        assert done == [True, False, True, False], verb
    assert desk.pipeline.store.release_numbers() == [4, 3, 2, 1], "one for each reason"
    release = desk.pipeline.store.newest_release()
    assert release is not None
    assert release.holds["cache"].reason == "better"


def test_a_resume_and_a_lift_are_done_although_no_rebuild_can_be_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.post("components/cache/hold", status=200)
    desk.post("components/cache/pause", status=200)
    monkeypatch.setattr(inbox, "MAX_OPEN_REQUESTS", 0)
    assert desk.post("components/cache/resume", status=200)["changed"]
    assert desk.post("components/cache/lift", status=200)["changed"]


def test_several_holds_are_lifted_in_one_release_under_a_name(desk: Desk) -> None:
    desk.post("releases/1/rollback", status=201)
    done = desk.post("lift", status=200, components=["cache", "other", "cache"], reason="mended")
    assert done == {"release": 4, "lifted": ["cache", "other"]}
    release = desk.pipeline.store.newest_release()
    assert release is not None
    assert (release.number, release.by, dict(release.holds)) == (4, "admin/anyone", {})
    lines = [("lifted", "admin/anyone", name) for name in ("cache", "other")]
    assert desk.audited()[-2:] == lines
    assert "cashe" in desk.post("lift", status=404, components=["cache", "cashe"])["detail"]
    desk.post("lift", status=422, components=[])
    assert desk.pipeline.store.release_numbers()[0] == 4


def test_reasons_that_are_hostile_are_cut_and_their_control_characters_shown(desk: Desk) -> None:
    desk.pipeline.store.hold("cache", reason=HOSTILE)
    shown = desk.get("releases")["releases"][0]["reason"]
    assert len(shown) <= 3000
    assert "\\x1b[31m\\u202e" in shown
    assert all(each.isprintable() for each in shown)
