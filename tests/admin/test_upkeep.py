"""Dead letters, schedules, alerts and the audit log over the admin API."""

from collections.abc import Iterator

import pytest

from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.catalog.dead_letters import Unreadable
from indexrelay.testing import MakePipeline
from tests.admin.desk import Desk, desk_of

POISON = b"\x1b]0;owned\x07<script>\xff\x00" + b"x" * 100_000


@pytest.fixture
def desk(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    cache = {"kind": "embedding_cache", "from": "tracks"}
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3}},
        components={"cache": cache, "other": cache},
        schedules={"nightly": {"cron": "0 2 * * *", "components": ["ca*"], "full": True}},
    )
    with desk_of(pipeline) as desk:
        yield desk


def add_letter(desk: Desk, raw: bytes, *, reason: str = "not JSON") -> int:
    letters = desk.pipeline.catalog.dead_letters
    return letters.add(stream="events", entry_id=f"{letters.count()}-0", raw=raw, reason=reason)


def readable(desk: Desk, event_id: str) -> bytes:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="first", generation=1)
    now = desk.pipeline.clock.now()
    return Event.of(data, source="test", time=now, id=event_id).to_bytes()


def test_letters_are_listed_page_by_page_as_text_that_is_cut(desk: Desk) -> None:
    ids = [add_letter(desk, POISON, reason="odd\x1b[31m: no") for _ in range(3)]
    more = [Unreadable(entry_id=f"{number}-1", raw=b"x", reason="odd") for number in range(2)]
    desk.pipeline.catalog.dead_letters.add_some(more, stream="events", most=1)
    page = desk.get("dead-letters", limit=2)
    assert ([each["id"] for each in page["letters"]], page["next"]) == ([ids[2], ids[1]], ids[1])
    assert (page["total"], page["not_kept"]) == (3, 2)
    letter = page["letters"][0]
    assert (letter["bytes"], letter["reason"]) == (len(POISON), "odd\\x1b[31m: no")
    assert letter["preview"].startswith("\\x1b]0;owned\\x07<script>\\xff\\x00xxx")
    assert len(letter["preview"]) <= 600
    rest = desk.get("dead-letters", limit=2, before=page["next"])
    assert ([each["id"] for each in rest["letters"]], rest["next"]) == ([ids[0]], None)
    assert desk.get("dead-letters", limit=3)["next"] is None


def test_a_letter_that_can_be_read_now_is_an_event_again_and_another_is_dropped(
    desk: Desk,
) -> None:
    good, bad = add_letter(desk, readable(desk, "one")), add_letter(desk, POISON)
    assert desk.post(f"dead-letters/{good}/retry", status=200)["outcome"] == "received"
    assert "one" in [row.event_id for row in desk.pipeline.catalog.inbox.open()]
    still = desk.post(f"dead-letters/{bad}/retry", status=200)
    assert (still["outcome"], bool(still["reason"])) == ("unreadable", True)
    assert desk.post(f"dead-letters/{bad}/drop", status=200)["outcome"] == "dropped"
    assert desk.post(f"dead-letters/{bad}/drop", status=200)["outcome"] == "gone"
    assert desk.post(f"dead-letters/{bad}/retry", status=200)["outcome"] == "gone"
    assert [(action, subject) for action, _, subject in desk.audited()] == [
        ("retried", f"dead letter {good}"),
        ("retried", f"dead letter {bad}"),
        ("deleted", f"dead letter {bad}"),
    ]
    desk.post("dead-letters/0/drop", status=422)


def test_a_schedule_is_shown_and_asked_for_now_but_for_what_is_left_alone(desk: Desk) -> None:
    desk.pipeline.catalog.attempts.pause("cache", "for <b>now</b>\x07")
    (nightly,) = desk.get("schedules")["schedules"]
    assert (nightly["name"], nightly["cron"], nightly["components"]) == (
        "nightly",
        "0 2 * * *",
        ["cache"],
    )
    assert (len(nightly["next"]), nightly["watched"]) == (3, False)
    assert "\\x07" in nightly["left_alone"]["cache"]
    asked = desk.post("schedules/nightly/run", status=202)
    assert asked["left_alone"].keys() == {"cache"}
    forced = desk.post("schedules/nightly/run", status=202, force=True, reason="now\x1b")
    assert forced["left_alone"] == {}
    one, other = desk.pipeline.catalog.inbox.open_requests()
    assert (one.request_id, one.full, one.force) == (asked["request_id"], True, False)
    assert (one.requested_by, one.failure_cooldown_seconds) == ("admin/anyone", 86400.0)
    assert (other.force, other.failure_cooldown_seconds) == (True, None)
    assert other.reason == "now\\x1b"
    assert desk.audited()[0] == ("rebuild_requested", "admin/anyone", "cache")
    assert "nightly" in desk.post("schedules/nightli/run", status=404)["detail"]
    desk.post("schedules/nightly/run", status=422, forced=True)


def test_alerts_are_those_of_the_last_look_with_what_to_do(desk: Desk) -> None:
    desk.get("alerts", status=503)
    with desk.pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1.0, 2.0, 3.0]])
    desk.pipeline.fail_build("cache", error="<b>no</b>\x1b[1m")
    desk.pipeline.settle()
    desk.look()
    found = desk.get("alerts")
    rules = {each["name"]: each["holds"] for each in found["rules"]}
    assert {each["name"] for each in found["alerts"]} == {name for name, on in rules.items() if on}
    assert any(rules.values())
    assert not all(rules.values())
    assert all(each["sentence"] and each["advice"] for each in found["alerts"])
    assert "\x1b" not in str(found)


def test_the_audit_log_is_read_page_by_page_backwards(desk: Desk) -> None:
    log = AuditLog.of(desk.pipeline.settings, clock=desk.pipeline.clock)
    for number in range(5):
        log.record(
            AuditAction.RELEASED, who="rebuilder/r\x1b", subject="<i>map</i>", release=number
        )
    page = desk.get("audit", limit=3)
    assert [each["fields"]["release"] for each in page["entries"]] == [4, 3, 2]
    assert page["entries"][0]["who"] == "rebuilder/r\\x1b"
    rest = desk.get("audit", limit=3, before=page["next"])
    assert [each["fields"]["release"] for each in rest["entries"]] == [1, 0]
    assert rest["next"] is None
    assert len({each["id"] for each in page["entries"] + rest["entries"]}) == 5
    assert "before" in desk.get("audit", status=422, before="../../etc/passwd")["detail"]
