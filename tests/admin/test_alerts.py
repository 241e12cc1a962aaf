"""Alerts over the admin API."""

from tests.admin.desk import Desk


def test_alerts_are_those_of_the_last_look_with_what_to_do(scheduled_desk: Desk) -> None:
    scheduled_desk.get("alerts", status=503)
    with scheduled_desk.pipeline.producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1.0, 2.0, 3.0]])
    scheduled_desk.pipeline.fail_build("cache", error="<b>no</b>\x1b[1m")
    scheduled_desk.pipeline.settle()
    scheduled_desk.look()
    found = scheduled_desk.get("alerts")
    rules = {each["name"]: each["holds"] for each in found["rules"]}
    assert {each["name"] for each in found["alerts"]} == {name for name, on in rules.items() if on}
    assert any(rules.values())
    assert not all(rules.values())
    assert all(each["sentence"] and each["advice"] for each in found["alerts"])
    assert "\x1b" not in str(found)
