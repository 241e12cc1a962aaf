"""The audit log over the admin API."""

from indexrelay.storage.audit import AuditAction, AuditLog
from tests.admin.desk import Desk


def test_the_audit_log_is_read_page_by_page_backwards(scheduled_desk: Desk) -> None:
    log = AuditLog.of(scheduled_desk.pipeline.settings, clock=scheduled_desk.pipeline.clock)
    for number in range(5):
        log.record(
            AuditAction.RELEASED, who="rebuilder/r\x1b", subject="<i>map</i>", release=number
        )
    page = scheduled_desk.get("audit", limit=3)
    assert [each["fields"]["release"] for each in page["entries"]] == [4, 3, 2]
    assert page["entries"][0]["who"] == "rebuilder/r\\x1b"
    rest = scheduled_desk.get("audit", limit=3, before=page["next"])
    assert [each["fields"]["release"] for each in rest["entries"]] == [1, 0]
    assert rest["next"] is None
    assert len({each["id"] for each in page["entries"] + rest["entries"]}) == 5
    assert "before" in scheduled_desk.get("audit", status=422, before="../../etc/passwd")["detail"]
