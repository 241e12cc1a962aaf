"""The state of everything: what it says, when its number grows, and what a patch changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from indexrelay.admin.document import ERROR_CHARACTERS
from indexrelay.admin.drift import DriftWatch
from indexrelay.admin.sightings import GONE_FOR, MOST_GONE, RELEASES, LastRebuilds, Sightings
from indexrelay.admin.state import LATE_SECONDS, RENEW_SECONDS
from indexrelay.operations.metrics import samples_of
from indexrelay.operations.monitor import Look
from indexrelay.schemas.messages import LoadOutcome, RebuilderState
from indexrelay.schemas.progress import BuildProgress, BuildStep
from indexrelay.streams import Keys, Presence
from indexrelay.testing import MakePipeline, Pipeline
from tests.admin.conftest import CACHE, MakeService, operator_of, state_of
from tests.admin.desk import Desk, desk_of
from tests.testing.test_pipeline import commit


def patched(state: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """What a page makes of a patch."""
    assert patch["base"] == state["number"]
    components = {each["name"]: each for each in [*state["components"], *patch["components"]]}
    readers = {each["id"]: each for each in [*state["readers"]["items"], *patch["readers"]]}
    for member, at in patch["last_seen"].items():
        readers[member] = {**readers[member], "last_seen_at": at}
    return {
        **state,
        **patch["set"],
        "number": patch["number"],
        "components": [
            each for name, each in components.items() if name not in patch["components_gone"]
        ],
        "readers": {
            **patch["readers_counts"],
            "items": [
                each for member, each in readers.items() if member not in patch["readers_gone"]
            ],
        },
    }


def test_the_state_has_a_number_that_grows_only_with_a_change(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    number = state_of(desk)["number"]
    pipeline.clock.advance(1)
    assert state_of(desk)["number"] == number
    first = desk.client.get("/api/admin/state")
    known = {"If-None-Match": first.headers["etag"]}
    same = desk.client.get("/api/admin/state", headers=known)
    assert (same.status_code, same.content) == (304, b"")
    commit(pipeline, "two")
    assert state_of(desk)["number"] > number
    again = desk.client.get("/api/admin/state", headers=known)
    assert again.status_code == 200
    assert again.json()["components"][0]["condition"] == "behind"


def test_patches_lead_from_one_state_to_the_next(pipeline: Pipeline, desk: Desk) -> None:
    reader = pipeline.reader("web")
    state = first = state_of(desk)
    for step in range(3):
        pipeline.clock.advance(RENEW_SECONDS)
        commit(pipeline, f"entry {step}")
        if step:
            pipeline.settle()
        desk.look()
    reader.stop()
    desk.look()
    kept = desk.resources.events.after(first["number"])
    assert kept is not None
    for event in kept:
        if event.name == "patch":
            state = patched(state, json.loads(event.text))
    now = desk.get("state")
    assert state.pop("readers") == now.pop("readers")
    assert state == now
    assert {"release", "rebuild"} <= {event.name for event in kept}


def test_status_and_the_state_say_the_same(pipeline: Pipeline, desk: Desk) -> None:
    commit(pipeline, "one")
    pipeline.fail_build("cache", times=5, error="out of luck")
    pipeline.settle()
    state = state_of(desk)
    verdict = desk.resources.state.required().look.seen.verdict
    assert state["sentence"] == verdict.sentence
    assert {each["what"] for each in state["problems"]} == {each.what for each in verdict.problems}
    assert state["status"] == "critical"  # no reader is there
    assert [each["severity"] for each in state["problems"]] == sorted(
        (each["severity"] for each in state["problems"]), key=["critical", "warning", "info"].index
    )
    failed = next(each for each in state["components"] if each["name"] == "cache")
    assert (failed["condition"], failed["error"]) == ("failed", "out of luck")
    assert "out of luck" in failed["sentence"]


def test_since_when_something_is_not_well_is_remembered(pipeline: Pipeline, desk: Desk) -> None:
    began = pipeline.clock.now()
    desk.look()
    pipeline.advance(3600)
    problems = {each["code"]: each["since"] for each in state_of(desk)["problems"]}
    assert problems["no_reader"] == began.isoformat().replace("+00:00", "Z")


def test_what_was_so_at_the_first_look_is_said_to_be_so_at_least_since_then(
    pipeline: Pipeline,
) -> None:
    def at_least(part: str, key: str) -> dict[str, bool]:
        desk.look()
        return {each[key]: each["at_least"] for each in desk.get(part)[part_of[part]]}

    part_of = {"state": "problems", "alerts": "alerts"}
    reader = pipeline.reader("web")
    commit(pipeline, "one")
    pipeline.settle()
    with desk_of(pipeline) as desk:
        assert at_least("state", "code") == {}
        reader.stop()
        assert at_least("state", "code") == {"no_reader": False}
        assert False in at_least("alerts", "name").values()
        pipeline.clock.advance(60)
        desk.post("components/cache/pause", status=200, reason="a test")
        decided = {"component_paused": False}  # the decision says when it was made
        assert at_least("state", "code") == {"no_reader": False, **decided}
    with desk_of(pipeline) as desk:  # a service that is started again
        assert at_least("state", "code") == {"no_reader": True, **decided}
        assert set(at_least("alerts", "name").values()) == {True}
        with pipeline.without_redis():
            assert at_least("state", "code")["redis_unreadable"] is False
        assert at_least("state", "code") == {"no_reader": True, **decided}


@pytest.fixture
def two_kinds(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE, "index": {"kind": "vector_index", "from": "tracks"}},
    )
    with desk_of(pipeline) as desk:
        yield desk


def test_readers_are_serving_behind_refused_and_gone(two_kinds: Desk) -> None:
    desk, pipeline = two_kinds, two_kinds.pipeline
    readers = [pipeline.reader("web"), pipeline.reader("batch")]
    commit(pipeline, "one")
    pipeline.settle()
    readers[0].step()
    for reader in readers:
        reader.step()
    shown = state_of(desk)["readers"]
    assert (shown["live"], shown["converged"]) == (2, 2)
    assert {each["components"]["cache"]["state"] for each in shown["items"]} == {"serving"}
    assert all(each["memory_bytes"] > 1_000_000 for each in shown["items"])
    commit(pipeline, "two")
    pipeline.rebuild()
    assert {each["state"] for each in state_of(desk)["readers"]["items"]} == {"behind"}
    pipeline.settle()
    commit(pipeline, "three")
    pipeline.rebuild()
    pipeline.corrupt("cache")
    for reader in readers:
        reader.step()
    refused = state_of(desk)["readers"]["items"][0]
    assert (refused["state"], refused["components"]["cache"]["state"]) == ("refused", "refused")
    assert refused["components"]["cache"]["error"]
    assert refused["components"]["index"]["state"] == "serving"
    readers[0].stop()
    shown = state_of(desk)["readers"]
    assert [(each["label"], each["state"]) for each in shown["items"]] == [
        ("batch", "refused"),
        ("web", "gone"),
    ]
    assert (shown["live"], shown["items"][1]["components"]["cache"]["state"]) == (1, "gone")
    pipeline.clock.advance(GONE_FOR / timedelta(seconds=1) + 1)
    assert [each["label"] for each in state_of(desk)["readers"]["items"]] == ["batch"]


def test_a_reader_that_is_present_and_answers_nobody_is_gone(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    reader = pipeline.reader("web")
    pipeline.settle()
    assert state_of(desk)["readers"]["converged"] == 1
    presence = Presence(pipeline.connection, Keys(pipeline.settings.namespace), "reader")

    def publish(ttl_seconds: float, **changes: Any) -> None:
        state = reader.state.model_copy(update=changes)
        presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=ttl_seconds)

    for late in (1.0, pipeline.settings.reader.presence_ttl_seconds):
        silent_since = None if late == 1.0 else pipeline.clock.now()
        publish(late, service_silent_since=silent_since)
        shown = state_of(desk)["readers"]
        assert (shown["items"][0]["state"], shown["converged"]) == ("gone", 0)
        publish(pipeline.settings.reader.presence_ttl_seconds)
        assert state_of(desk)["readers"]["items"][0]["state"] == "serving"


def test_the_state_the_history_and_the_metrics_judge_a_reader_alike(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    reader = pipeline.reader("web")
    pipeline.settle()
    presence = Presence(pipeline.connection, Keys(pipeline.settings.namespace), "reader")
    served = reader.state.components
    other = served["cache"].model_copy(update={"version": served["other"].version})
    nothing = served["cache"].model_copy(update={"version": None})

    def judged(**changes: Any) -> tuple[str, int, int]:
        state = reader.state.model_copy(update=changes)
        presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=60)
        pipeline.clock.advance(15)  # a sample of its own
        shown = state_of(desk)["readers"]
        pipeline.clock.advance(15)
        desk.look()
        sample = desk.get("history")["samples"][-1]
        return shown["items"][0]["state"], shown["converged"], sample["converged"]

    assert served["cache"].version != served["other"].version
    assert judged() == ("serving", 1, 1)
    assert judged(components={**served, "cache": other}) == ("behind", 0, 0)
    assert judged(components={**served, "cache": nothing}) == ("behind", 0, 0)
    assert judged(components={"cache": served["cache"]}) == ("serving", 1, 1)  # all it is to serve
    assert judged(components={}) == ("starting", 0, 0)
    assert judged(release=0) == ("starting", 0, 0)
    assert judged(ready=False) == ("starting", 0, 0)
    seen = desk.resources.state.required().look.seen
    assert ("indexrelay_readers", (("state", "not_ready"),), 1) in {
        (each.name, each.labels, each.value) for each in samples_of(seen)
    }


def test_a_build_is_shown_with_its_step_and_its_share(pipeline: Pipeline, desk: Desk) -> None:
    now = pipeline.clock.now()
    state = RebuilderState(
        rebuilder="builder",
        host="host",
        pid=1,
        started_at=now,
        updated_at=now,
        release=0,
        building=("cache", "other"),
        progress={
            "cache": BuildProgress(step=BuildStep.VERIFYING, share=None, started_at=now),
            "other": BuildProgress(step=BuildStep.BUILDING, share=0.25, started_at=now),
        },
    )
    Presence(pipeline.connection, Keys(pipeline.settings.namespace), "rebuilder").publish(
        state.member, state.model_dump_json().encode(), ttl_seconds=60
    )
    order = desk.post("rebuilds", status=202)
    pipeline.clock.advance(2)
    shown = state_of(desk)
    assert (shown["rebuild"]["state"], shown["rebuild"]["id"]) == ("running", order["id"])
    assert [each["building"] for each in shown["components"]] == [
        {
            "step": step,
            "share": share,
            "started_at": now.isoformat().replace("+00:00", "Z"),
            "elapsed_seconds": 2.0,
            "rebuilder": "builder",
        }
        for step, share in (("verifying", None), ("building", 0.25))
    ]
    parts = desk.get(f"rebuilds/{order['id']}")["components"]
    assert {name: (each["state"], each["share"]) for name, each in parts.items()} == {
        "cache": ("verifying", None),
        "other": ("building", 0.25),
    }


def test_what_cannot_be_read_is_a_problem_and_the_state_goes_on(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    before = state_of(desk)
    with pipeline.without_redis():
        away = state_of(desk)
    assert "redis_unreadable" in {each["code"] for each in away["problems"]}
    for what in ("release", "rebuild"):
        assert away[what] == before[what]
    pipeline.connection.commands.flushall()
    wiped = state_of(desk)
    assert wiped["components"] == before["components"]
    assert wiped["rebuild"]["last_rebuild_at"] == before["rebuild"]["last_rebuild_at"]


def test_drift_is_the_share_that_changed_and_how_far_its_centre_moved(two_kinds: Desk) -> None:
    pipeline, state = two_kinds.pipeline, two_kinds.resources.state
    drift = DriftWatch(
        pipeline.settings, catalog=pipeline.catalog, versions=two_kinds.resources.versions
    )

    def figures() -> tuple[int, float, float | None]:
        two_kinds.look()
        drift.of(state.required().look.seen)
        drift.turn()
        found = drift.of(state.required().look.seen)["tracks"]
        return found.changed_entries, found.changed_ratio, found.centroid_shift

    two_kinds.look()
    assert drift.of(state.required().look.seen) == {}  # nothing is released
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]], dtype=np.float32)
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a", "b", "c", "d"], corners)
    pipeline.settle()
    assert figures() == (0, 0.0, 0.0)
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a", "e"], [[1, 1, 3], [1, 1, 1]])
    # Their centre is at (1, 1, 2), 2 from that of the corners, which lie 2 ** 0.5 from theirs.
    changed, ratio, shift = figures()
    assert (changed, ratio) == (2, 0.4)
    assert shift == pytest.approx(2**0.5, abs=1e-4)
    with pipeline.producer.batch("tracks") as batch:
        batch.delete(["a", "e"])
    changed, ratio, shift = figures()
    assert (changed, shift) == (2, None)
    assert ratio == pytest.approx(2 / 3, abs=1e-6)  # three are there
    pipeline.settle()
    assert figures() == (0, 0.0, 0.0)


def test_a_state_that_is_not_looked_at_any_more_says_so_until_it_is(
    pipeline: Pipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(pipeline, "one")
    reader = pipeline.reader("web")
    pipeline.settle()
    watch, before = desk.resources.state, state_of(desk)
    monkeypatch.setattr(watch, "_take", lambda _look: 1 / 0)  # as any error of a look
    with pytest.raises(ZeroDivisionError):
        watch.turn()
    pipeline.clock.advance(LATE_SECONDS)
    watch.watch()
    assert desk.get("state") == before  # it is not late yet
    pipeline.clock.advance(5)
    watch.watch()
    late = desk.get("state")
    assert watch.late
    assert (late["status"], late["at"]) == ("critical", before["at"])
    assert late["sentence"].startswith("nothing was looked at since 2026-01-01 00:0")
    assert [each["name"] for each in late["alerts"]] == ["NotLookedAt"]
    watch.watch()
    assert desk.get("state")["number"] == late["number"]  # it is told once
    monkeypatch.undo()
    reader.step()
    again = state_of(desk)
    assert (again["sentence"], watch.late) == (before["sentence"], False)
    events = desk.resources.events.after(before["number"])
    assert events is not None
    assert [each.name for each in events] == ["state", "state"]


def test_a_slow_look_that_hangs_is_told_of_soon_after_somebody_asked(
    pipeline: Pipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, took = desk.resources.state, 10.0
    look = watch._looker.look

    def slow() -> Look:
        pipeline.clock.advance(took)
        return look()

    pipeline.clock.advance(3600)  # nobody watches
    monkeypatch.setattr(watch._looker, "look", slow)
    assert watch.turn() == pytest.approx(500.0)  # looks take little of the machine
    looked_at = desk.get("state")["at"]  # and as somebody asks, one is wanted at once
    assert desk.get("health") == {"status": "alive", "looked_at": looked_at, "late": False}
    pipeline.clock.advance(took + LATE_SECONDS)
    watch.watch()
    assert not watch.late
    pipeline.clock.advance(1)
    watch.watch()
    assert desk.get("state")["sentence"].startswith("nothing was looked at since")
    assert desk.get("health")["late"]


def test_who_asks_after_a_long_time_gets_what_is_so_now(
    pipeline: Pipeline, make_service: MakeService
) -> None:
    service = make_service()
    service.start()
    with operator_of(service) as client:
        client.get("state")
        pipeline.clock.advance(3600)
        at = client.get("state").json()["at"]
    assert at == pipeline.clock.now().isoformat().replace("+00:00", "Z")


def test_a_rebuild_is_found_in_the_newest_of_many_releases(pipeline: Pipeline) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    for number in range(RELEASES):
        pipeline.store.hold("other", reason=f"release {number}")
    pipeline.clock.advance(60)
    pipeline.producer.request_rebuild(["cache"], full=True)
    pipeline.settle()
    rebuilt = pipeline.store.newest_release()
    assert rebuilt is not None
    last = pipeline.store.version("cache", rebuilt.components["cache"]).created_at
    pipeline.store.rollback(1, reason="as it was")
    newest = pipeline.store.newest_release()
    assert newest is not None
    versions = {
        name: pipeline.store.version(name, version) for name, version in newest.components.items()
    }
    found = LastRebuilds(pipeline.store).of(newest, versions)
    assert found["cache"].at == last


def test_readers_that_went_are_forgotten_whatever_time_they_told(pipeline: Pipeline) -> None:
    reader, now = pipeline.reader("web"), pipeline.clock.now()
    years = timedelta(days=365)
    many = {
        f"r{number:03}": reader.state.model_copy(
            update={"reader": f"r{number:03}", "updated_at": now + years}
        )
        for number in range(MOST_GONE + 50)
    }
    sightings = Sightings(pipeline.store)
    sightings.gone(many, now)
    assert list(sightings.gone({}, now)) == sorted(many)[-MOST_GONE:]
    assert sightings.gone({}, now + GONE_FOR + timedelta(seconds=1)) == {}


def test_what_readers_say_of_themselves_does_not_make_the_state_large(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    reader = pipeline.reader("web")
    pipeline.settle()
    small = len(json.dumps(state_of(desk)))
    served = reader.state.components["cache"]
    hostile = served.model_copy(
        update={"outcome": LoadOutcome.FAILED, "error": "<script>alert(1)</script>\x1b" * 80}
    )
    components = {f"made_up_{number}": hostile for number in range(300)} | {"cache": hostile}
    presence = Presence(pipeline.connection, Keys(pipeline.settings.namespace), "reader")
    for number in range(5):
        state = reader.state.model_copy(
            update={"reader": f"r{number}", "components": components, "live": {}}
        )
        presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=60)
    shown = state_of(desk)
    assert len(json.dumps(shown)) < small + 60_000  # of 5 MB
    views = [each for each in shown["readers"]["items"] if each["label"] != "web"]
    assert [each["state"] for each in views] == ["refused"] * 5
    assert all(set(each["components"]) == {"cache"} for each in views)
    assert all(len(each["components"]["cache"]["error"]) <= ERROR_CHARACTERS for each in views)


def test_a_result_of_a_clock_that_is_ahead_is_not_the_last_one_for_ever(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    ahead = pipeline.results[-1].model_copy(
        update={"finished_at": pipeline.clock.now() + timedelta(days=365)}
    )
    desk.look()
    seen, sightings = desk.resources.state.required().look.seen, Sightings(pipeline.store)
    alone = replace(seen.facts, redis=None)
    first = sightings.last_result(replace(seen, facts=alone, results=(ahead,)))
    assert first is not None
    assert first.finished_at == seen.at
    later = ahead.model_copy(update={"finished_at": seen.at + timedelta(seconds=1), "message": "x"})
    now = replace(alone, now=seen.at + timedelta(seconds=2))
    last = sightings.last_result(replace(seen, facts=now, results=(later,)))
    assert last == later


def test_settings_that_the_page_itself_refuses_are_a_problem_until_they_are_right(
    make_service: MakeService,
) -> None:
    refused: list[str | None] = ["line 2: admin.port = 0"]
    service = make_service(settings_refused=lambda: refused[-1])
    service.state.turn()
    document = service.state.required().document
    assert document.status != "healthy"
    [problem] = [each for each in document.problems if each.code == "settings_refused"]
    assert (problem.subject, "line 2: admin.port = 0" in problem.what) == ("admin", True)
    refused.append(None)
    service.state.turn()
    document = service.state.required().document
    assert "settings_refused" not in {each.code for each in document.problems}
