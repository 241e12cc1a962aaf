"""Of several operators one tells people: who that is, when another one takes over, with what."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from indexrelay.operations.alerts import OUTAGE_SECONDS, Evaluator, late_after, rules
from indexrelay.operations.metrics import Sample
from indexrelay.operations.monitor import Monitor
from indexrelay.operations.notice_lease import NoticeLease
from indexrelay.operations.notifications import Notifier
from indexrelay.schemas.monitoring import (
    AlertSettings,
    NotificationSettings,
    NotificationTarget,
)
from indexrelay.storage.catalog.notices import NoticeHolder, NoticeRow
from indexrelay.testing import FakeClock, MakePipeline, Pipeline
from tests.fixtures.logs import capture_logs
from tests.testing.test_pipeline import commit

LEASE_SECONDS = 75.0
CACHE = {"kind": "embedding_cache", "from": "tracks"}


class Row(NoticeRow):
    """The row in memory; it may be away."""

    def __init__(self) -> None:
        self.holder: NoticeHolder | None = None
        self.is_away = False

    def read(self) -> NoticeHolder | None:
        if self.is_away:
            raise OperationalError("SELECT", {}, OSError("away"))
        return self.holder

    def _write(self, new: NoticeHolder, *, seen: NoticeHolder | None) -> bool:
        if self.is_away:
            raise OperationalError("UPDATE", {}, OSError("away"))
        if self.holder != seen:
            return False
        self.holder = new
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def row() -> Row:
    return Row()


class Operator:
    """A lease, and what it was given to go on with."""

    def __init__(self, row: Row, clock: FakeClock) -> None:
        self.lease = NoticeLease(row, clock, lease_seconds=LEASE_SECONDS)
        self.taken: list[dict[str, Any]] = []

    def look(self, **state: Any) -> bool:
        """One look; whether it tells."""
        self.lease.look(self.taken.append)
        self.lease.save(state)
        return self.lease.tells


def test_one_tells_and_another_one_takes_over_once_it_has_said_nothing_for_long(
    row: Row, clock: FakeClock
) -> None:
    one, two = Operator(row, clock), Operator(row, clock)
    for number in range(20):
        assert one.look(number=number)
        assert not two.look()
        clock.advance(15)
    for _ in range(4):  # one is gone
        assert not two.look()
        clock.advance(15)
    assert two.look(more=1)
    assert two.taken == [{"number": 19}]
    with capture_logs() as events:
        assert not one.look()  # it was only cut off
    assert [each["event"] for each in events] == ["notices.lost"]
    assert two.look()
    assert not one.look()


def test_who_stops_gives_it_back_and_the_next_one_has_it_at_once(
    row: Row, clock: FakeClock
) -> None:
    one, two = Operator(row, clock), Operator(row, clock)
    assert one.look()
    assert not two.look()
    one.lease.give_back({"unsent": 1})
    assert two.look()
    assert two.taken == [{"unsent": 1}]
    assert not one.look()  # for good: a look that runs meanwhile takes nothing


def test_while_the_catalog_is_away_the_holder_tells_and_after_a_while_each_does(
    row: Row, clock: FakeClock
) -> None:
    one, two = Operator(row, clock), Operator(row, clock)
    assert one.look(number=1)
    assert not two.look()
    row.is_away = True
    for _ in range(5):
        assert one.look(number=2)
        assert not two.look()
        clock.advance(15)
    assert two.look()
    assert two.taken == [{"number": 1}]
    row.is_away = False
    assert one.look(number=3)
    assert not two.look()
    assert row.holder is not None
    assert row.holder.state == {"number": 3}


def test_a_renewal_whose_answer_was_lost_is_its_own(row: Row, clock: FakeClock) -> None:
    one, two = Operator(row, clock), Operator(row, clock)
    assert one.look(number=1)
    assert not two.look()
    assert row.holder is not None
    row.holder = NoticeHolder(
        owner=row.holder.owner, beat=row.holder.beat + 1, state={"number": 2}
    )  # written, and nobody heard of it
    with capture_logs() as events:
        assert one.look(number=3)
    assert events == []
    assert row.holder.state == {"number": 3}
    assert not two.look()


BEHIND = Sample("indexrelay_readers", (("namespace", "shop"), ("state", "behind")), 1.0)


def fires(evaluator: Evaluator, at: float) -> list[str]:
    return [each.rule.name for each in evaluator.evaluate([BEHIND], at).began]


@pytest.mark.parametrize(("outage", "waits_on"), [(60, True), (OUTAGE_SECONDS + 60, False)])
def test_an_alert_waits_on_where_it_was_unless_nobody_looked_for_long(
    outage: float, waits_on: bool
) -> None:
    decided = rules(AlertSettings())
    first, second = Evaluator(decided), Evaluator(decided)
    assert fires(first, 0) == []
    assert fires(first, 250) == []
    second.restore(first.kept(250), 250 + outage)
    assert fires(second, 250 + outage) == []
    assert fires(second, 300 + outage) == (["ReaderBehind"] if waits_on else [])


@pytest.mark.parametrize("ahead", [-7200.0, -1800.0, 1800.0, 7200.0])
def test_an_alert_waits_as_long_as_it_had_to_whatever_time_the_host_had_before(
    ahead: float,
) -> None:
    decided = rules(AlertSettings())
    first, second = Evaluator(decided), Evaluator(decided)
    assert fires(first, 10_000 + ahead) == []
    assert fires(first, 10_250 + ahead) == []
    second.restore(first.kept(10_250 + ahead), 10_260)
    left = 50 if ahead >= -OUTAGE_SECONDS else 300  # as if nobody had looked for so long
    assert fires(second, 10_260) == []
    assert fires(second, 10_260 + left - 1) == []
    assert fires(second, 10_260 + left) == ["ReaderBehind"]


def test_a_clock_that_is_set_back_makes_no_alert_wait_for_more_than_its_time() -> None:
    evaluator = Evaluator(rules(AlertSettings()))
    assert fires(evaluator, 10_000) == []
    assert fires(evaluator, 2_000) == []
    assert fires(evaluator, 2_300) == ["ReaderBehind"]


def test_an_alert_that_was_told_of_is_not_told_again_and_its_end_is() -> None:
    decided = rules(AlertSettings())
    first, second = Evaluator(decided), Evaluator(decided)
    for at in (0, 300):
        fires(first, at)
    second.restore(first.kept(300), 90_000)
    assert fires(second, 90_000) == []
    [still] = second.evaluate([BEHIND], 90_015).firing
    assert still.since == 0
    well = Sample("indexrelay_readers", BEHIND.labels, 0.0)
    assert [each.rule.name for each in second.evaluate([well], 90_030).ended] == ["ReaderBehind"]


def test_an_alert_whose_rule_is_gone_is_forgotten() -> None:
    first = Evaluator(rules(AlertSettings()))
    for at in (0, 300):
        fires(first, at)
    second = Evaluator(rules(AlertSettings(off=["ReaderBehind"])))
    second.restore(first.kept(300), 300)
    found = second.evaluate([BEHIND], 315)
    assert (found.active, found.ended) == ((), ())


Make = Callable[[], tuple[Monitor, Notifier]]


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE},
        rebuilder={"max_consecutive_failures": 2},
    )


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def make(pipeline: Pipeline, sent: list[str]) -> Iterator[Make]:
    """An operator's monitor, and its notifier, whose target is a list."""

    def send(_title: str, body: str) -> bool:
        sent.extend(line for line in body.splitlines() if not line.startswith("    "))
        return True

    with ExitStack() as stack:

        def made() -> tuple[Monitor, Notifier]:
            targets = {"team": NotificationTarget.model_validate({"url": "log://"})}
            notifier = Notifier(
                NotificationSettings(targets=targets, group_seconds=0, interval_seconds=0.001),
                namespace="shop",
                clock=pipeline.clock,
                opener=lambda _name, _target: send,
            )
            notifier.start = lambda: None  # type: ignore[method-assign] # the test lets it send
            monitor = Monitor(
                pipeline.settings,
                catalog=pipeline.catalog,
                store=pipeline.store,
                connection=lambda: pipeline.connection,
                clock=pipeline.clock,
                role="operator",
                notifier=notifier,
            )
            stack.callback(monitor.stop)
            return monitor, notifier

        yield made


def turn(*operators: tuple[Monitor, Notifier], sending: bool = True) -> None:
    for monitor, notifier in operators:
        monitor.turn()
        if sending:
            for queue in notifier._queues:
                queue._clock.advance(0.01)  # type: ignore[attr-defined]
                queue.turn()


def released(pipeline: Pipeline) -> None:
    pipeline.reader("a")
    commit(pipeline, "one")
    pipeline.settle()


def test_of_two_operators_one_sends_each_notice(
    pipeline: Pipeline, make: Make, sent: list[str]
) -> None:
    one, two = make(), make()
    released(pipeline)
    turn(one, two)
    pipeline.fail_build("cache", error="no such model")
    commit(pipeline, "two")
    pipeline.settle()
    turn(one, two)
    assert len(sent) == 1
    assert "no such model" in sent[0]


def test_who_takes_over_tells_of_what_happened_meanwhile_and_of_nothing_else(
    pipeline: Pipeline, make: Make, sent: list[str]
) -> None:
    one, two = make(), make()
    released(pipeline)
    turn(one, two)
    pipeline.catalog.attempts.pause("cache", "costs too much")
    turn(one)
    turn(one)
    turn(two)
    assert sent == ["[warning] cache is paused, and is not built: costs too much"]
    sent.clear()
    pipeline.store.hold("cache", reason="until it is known")  # one is killed here
    pipeline.store.rollback(1, reason="bad hits")
    turn(two)
    assert sent == []
    assert len(two[0]._untold) == 2  # the pause, and the rollback
    seconds = late_after(pipeline.settings.monitoring.look_seconds)
    pipeline.clock.advance(seconds)
    turn(two)
    assert [line for line in sent if "rolled back" in line] == [
        "[critical] release 3: rolled back cache to release 1: bad hits"
    ]
    assert not [line for line in sent if "is paused, and is not built" in line]


def test_what_the_one_that_tells_has_seen_for_sure_is_not_kept_by_another(
    pipeline: Pipeline, make: Make, sent: list[str]
) -> None:
    one, two = make(), make()
    released(pipeline)
    turn(one, two)
    pipeline.catalog.attempts.pause("cache", "costs too much")
    turn(two)
    kept = []
    for _ in range(3):
        turn(one, two)
        kept.append(len(two[0]._untold))
    assert kept == [1, 0, 0]
    assert len(sent) == 1


def test_what_was_not_sent_when_an_operator_stopped_is_sent_by_the_next_one(
    pipeline: Pipeline, make: Make, sent: list[str]
) -> None:
    one = make()
    released(pipeline)
    turn(one)
    pipeline.catalog.attempts.pause("cache", "costs too much")
    turn(one, sending=False)
    one[0].stop()
    assert sent == []
    two = make()
    turn(two)
    assert sent == ["[warning] cache is paused, and is not built: costs too much"]
    turn(two)
    two[0].stop()
    sent.clear()
    turn(make())
    assert sent == []
