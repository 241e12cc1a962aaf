"""Schedules over the admin API."""

from tests.admin.desk import Desk


def test_a_schedule_is_shown_and_asked_for_now_but_for_what_is_left_alone(
    scheduled_desk: Desk,
) -> None:
    scheduled_desk.pipeline.catalog.attempts.pause("cache", "for <b>now</b>\x07")
    (nightly,) = scheduled_desk.get("schedules")["schedules"]
    assert (nightly["name"], nightly["cron"], nightly["components"]) == (
        "nightly",
        "0 2 * * *",
        ["cache"],
    )
    assert (len(nightly["next"]), nightly["watched"]) == (3, False)
    assert "\\x07" in nightly["left_alone"]["cache"]
    asked = scheduled_desk.post("schedules/nightly/run", status=202)
    assert asked["left_alone"].keys() == {"cache"}
    forced = scheduled_desk.post("schedules/nightly/run", status=202, force=True, reason="now\x1b")
    assert forced["left_alone"] == {}
    one, other = scheduled_desk.pipeline.catalog.inbox.open_requests()
    assert (one.request_id, one.full, one.force) == (asked["request_id"], True, False)
    assert (one.requested_by, one.failure_cooldown_seconds) == ("admin/anyone", 86400.0)
    assert (other.force, other.failure_cooldown_seconds) == (True, None)
    assert other.reason == "now\\x1b"
    assert scheduled_desk.audited()[0] == ("rebuild_requested", "admin/anyone", "cache")
    assert "nightly" in scheduled_desk.post("schedules/nightli/run", status=404)["detail"]
    scheduled_desk.post("schedules/nightly/run", status=422, forced=True)
