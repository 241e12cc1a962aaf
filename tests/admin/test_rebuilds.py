"""Rebuilds from the admin API: what is taken, what is refused, and how each is followed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from indexrelay.storage.audit import AuditLog
from indexrelay.testing import Pipeline
from tests.admin.conftest import MakeService, operator_of, state_of
from tests.admin.desk import Desk
from tests.testing.test_pipeline import commit


def asked(desk: Desk, **order: Any) -> Any:
    return desk.post("rebuilds", status=202, **order)


def test_of_fifty_simultaneous_requests_to_two_services_one_is_taken(
    pipeline: Pipeline, make_service: MakeService
) -> None:
    services = [make_service(), make_service()]
    for service in services:
        service.start()
    with operator_of(services[0]) as first, operator_of(services[1]) as second:
        with ThreadPoolExecutor(50) as pool:
            answers = list(
                pool.map(
                    lambda number: (first, second)[number % 2].post(
                        "rebuilds", json={"components": ["cache"]}
                    ),
                    range(50),
                )
            )
        statuses = [each.status_code for each in answers]
        others = {each.text for each in answers if each.status_code not in (202, 409)}
        assert (statuses.count(202), statuses.count(409)) == (1, 49), others
        taken = next(each for each in answers if each.status_code == 202)
        refused = next(each for each in answers if each.status_code == 409)
        assert refused.json()["rebuild_id"] == taken.json()["id"]
        assert refused.headers["location"] == taken.headers["location"]
        assert [each.request_id for each in pipeline.catalog.inbox.open_requests()] == [
            taken.json()["id"]
        ]
        lines = AuditLog.of(pipeline.settings).newest(100)
    assert [(each["who"], each["subject"]) for each in lines] == [("admin/anyone", "cache")]


def test_what_an_open_one_does_not_cover_is_taken(desk: Desk) -> None:
    asked(desk, components=["cache"])
    asked(desk, components=["cache"], full=True)
    asked(desk, components=["cache", "other"])
    asked(desk)
    desk.post("rebuilds", status=409, components=["other"])
    desk.post("rebuilds", status=409)
    asked(desk, components=["other"], force=True)


def test_a_rebuild_is_followed_from_the_request_to_its_release(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    order = {"components": ["cache"], "reason": "a trial"}
    taken = desk.client.post("/api/admin/rebuilds", json=order)
    order, place = taken.json(), taken.headers["location"]
    assert place == f"/api/admin/rebuilds/{order['id']}"
    assert (order["state"], order["requested_by"]) == ("running", "admin/anyone")
    assert order["components"]["cache"]["state"] == "waiting"
    assert state_of(desk)["rebuild"]["state"] == "running"
    pipeline.settle()
    done = desk.get(f"rebuilds/{order['id']}")
    assert (done["state"], done["status"], done["reason"]) == ("complete", "SUCCESS", "a trial")
    assert done["components"]["cache"]["state"] == "released"
    assert done["components"]["cache"]["entries"] == 1
    assert done["release"] == 1
    state = state_of(desk)
    assert (state["rebuild"]["state"], state["rebuild"]["entries_at_rebuild"]) == ("complete", 1)
    nothing = asked(desk)
    pipeline.settle()
    idle = desk.get(f"rebuilds/{nothing['id']}")
    assert (idle["state"], idle["message"]) == ("complete", "Nothing was due")


def test_only_a_successful_rebuild_changes_when_a_component_was_rebuilt_last(
    pipeline: Pipeline, desk: Desk
) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    before = component(state_of(desk), "cache")
    assert before["entries_at_rebuild"] == 1
    pipeline.clock.advance(60)
    pipeline.fail_build("cache", times=1, error="it <b>hurts</b>")
    order = asked(desk, components=["cache"])
    pipeline.settle()
    failed = desk.get(f"rebuilds/{order['id']}")
    assert (failed["state"], failed["components"]["cache"]["state"]) == ("failed", "failed")
    assert "it <b>hurts</b>" in failed["error"]
    state = state_of(desk)
    after = component(state, "cache")
    assert state["rebuild"]["state"] == "failed"
    assert "it <b>hurts</b>" in state["rebuild"]["error"]
    assert after["failing_since"] is not None
    for what in ("last_rebuild_at", "entries_at_rebuild", "version"):
        assert after[what] == before[what]
    pipeline.clock.advance(60)
    asked(desk, components=["cache"])
    pipeline.settle()
    third = component(state_of(desk), "cache")
    assert third["last_rebuild_at"] > before["last_rebuild_at"]
    pipeline.store.rollback(1, reason="go back")
    state = state_of(desk)
    back = component(state, "cache")
    assert back["version"] == before["version"]
    assert back["last_rebuild_at"] == third["last_rebuild_at"]


def component(state: Any, name: str) -> Any:
    return next(each for each in state["components"] if each["name"] == name)


@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"components": ["none"]}, "components.0"),
        ({"components": ["cache", "a b"]}, "components.1"),
        ({"components": "cache"}, "components"),
        ({"all": True, "components": ["cache"]}, ""),
        ({"reason": "x" * 1001}, "reason"),
        ({"full": True, "fuller": True}, "fuller"),
    ],
)
def test_a_wrong_order_is_refused_with_its_field(
    pipeline: Pipeline, desk: Desk, order: dict[str, Any], field: str
) -> None:
    refused = desk.post("rebuilds", status=422, **order)
    assert [each["field"] for each in refused["errors"]] == [field]
    assert pipeline.catalog.inbox.open_requests() == []


def test_all_leaves_out_what_somebody_decided_about(pipeline: Pipeline, desk: Desk) -> None:
    pipeline.catalog.attempts.pause("cache", "too loud")
    assert asked(desk, all=True)["requested"] == ["other"]
    pipeline.catalog.attempts.pause("other", "that, too")
    assert "too loud" in desk.post("rebuilds", status=409, all=True)["detail"]


def test_rebuilds_are_listed_in_pages_the_newest_first(desk: Desk) -> None:
    ids = [
        asked(desk, components=["cache"])["id"],
        asked(desk, components=["other"])["id"],
        asked(desk)["id"],
    ]
    first = desk.get("rebuilds", limit=2)
    assert [each["id"] for each in first["rebuilds"]] == ids[:0:-1]
    rest = desk.get("rebuilds", before=first["next"])
    assert ([each["id"] for each in rest["rebuilds"]], rest["next"]) == (ids[:1], None)
    desk.get("rebuilds/none", status=404)
    desk.get("rebuilds/%00", status=422)
    desk.get("rebuilds", status=422, limit=0)
