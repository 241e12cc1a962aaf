"""Dead letters over the admin API."""

from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.storage.catalog.dead_letters import Unreadable
from tests.admin.desk import Desk

POISON = b"\x1b]0;owned\x07<script>\xff\x00" + b"x" * 100_000


def add_letter(desk: Desk, raw: bytes, *, reason: str = "not JSON") -> int:
    letters = desk.pipeline.catalog.dead_letters
    return letters.add(stream="events", entry_id=f"{letters.count()}-0", raw=raw, reason=reason)


def readable(desk: Desk, event_id: str) -> bytes:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="first", generation=1)
    now = desk.pipeline.clock.now()
    return Event.of(data, source="test", time=now, id=event_id).to_bytes()


def test_letters_are_listed_page_by_page_as_text_that_is_cut(scheduled_desk: Desk) -> None:
    ids = [add_letter(scheduled_desk, POISON, reason="odd\x1b[31m: no") for _ in range(3)]
    more = [Unreadable(entry_id=f"{number}-1", raw=b"x", reason="odd") for number in range(2)]
    scheduled_desk.pipeline.catalog.dead_letters.add_some(more, stream="events", most=1)
    page = scheduled_desk.get("dead-letters", limit=2)
    assert ([each["id"] for each in page["letters"]], page["next"]) == ([ids[2], ids[1]], ids[1])
    assert (page["total"], page["not_kept"]) == (3, 2)
    letter = page["letters"][0]
    assert (letter["bytes"], letter["reason"]) == (len(POISON), "odd\\x1b[31m: no")
    assert letter["preview"].startswith("\\x1b]0;owned\\x07<script>\\xff\\x00xxx")
    assert len(letter["preview"]) <= 600
    rest = scheduled_desk.get("dead-letters", limit=2, before=page["next"])
    assert ([each["id"] for each in rest["letters"]], rest["next"]) == ([ids[0]], None)
    assert scheduled_desk.get("dead-letters", limit=3)["next"] is None


def test_a_letter_that_can_be_read_now_is_an_event_again_and_another_is_dropped(
    scheduled_desk: Desk,
) -> None:
    good, bad = (
        add_letter(scheduled_desk, readable(scheduled_desk, "one")),
        add_letter(scheduled_desk, POISON),
    )
    assert scheduled_desk.post(f"dead-letters/{good}/retry", status=200)["outcome"] == "received"
    assert "one" in [row.event_id for row in scheduled_desk.pipeline.catalog.inbox.open()]
    still = scheduled_desk.post(f"dead-letters/{bad}/retry", status=200)
    assert (still["outcome"], bool(still["reason"])) == ("unreadable", True)
    assert scheduled_desk.post(f"dead-letters/{bad}/drop", status=200)["outcome"] == "dropped"
    assert scheduled_desk.post(f"dead-letters/{bad}/drop", status=200)["outcome"] == "gone"
    assert scheduled_desk.post(f"dead-letters/{bad}/retry", status=200)["outcome"] == "gone"
    assert [(action, subject) for action, _, subject in scheduled_desk.audited()] == [
        ("retried", f"dead letter {good}"),
        ("retried", f"dead letter {bad}"),
        ("deleted", f"dead letter {bad}"),
    ]
    scheduled_desk.post("dead-letters/0/drop", status=422)
