"""What somebody wrote under a reader's key is repaired within seconds, and reported for an hour."""

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Problem
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.presence import ForeignWriteLog
from indexrelay.schemas.clock import SystemClock
from indexrelay.streams import Presence
from tests.rebuilder.conftest import Bench, MakeBench, behaving
from tests.storage.artifacts.samples import MovedClock


def told(bench: Bench) -> list[Problem]:
    survey = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    )
    problems = judge(survey.whole()).problems
    return [each for each in problems if each.code is Code.FOREIGN_WRITES]


def test_whose_key_was_written_is_reported_after_it_was_repaired(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.rebuilder.step()
    assert told(bench) == []
    rebuilder = bench.rebuilder
    key = bench.keys.reader("web:0a")
    for _ in range(3):
        bench.connection.commands.set(key, "{}")  # without an end
        rebuilder._check_readers()
    assert 0 < bench.connection.commands.ttl(key) <= 15
    rebuilder._publish_presence()
    [problem] = told(bench)
    assert problem.subject == "web"
    assert "somebody wrote as reader web what no reader writes, 3 times since" in problem.what
    assert "a value without a TTL" in problem.what


def test_a_state_in_the_name_of_another_is_reported_by_the_label_of_its_key(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.rebuilder.step()
    [raw] = Presence(bench.connection, bench.keys, "rebuilder").all().values()
    said = raw.replace(b'"rebuilder":', b'"reader":').replace(
        b'"release"', b'"ready":true,"release"'
    )
    Presence(bench.connection, bench.keys, "reader").publish("evil:0b", said, ttl_seconds=60)
    bench.rebuilder._check_readers()
    bench.rebuilder._publish_presence()
    [problem] = told(bench)
    assert problem.subject == "evil"
    assert "its state says that it is" in problem.what


def test_a_wrong_value_elsewhere_has_no_label(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.rebuilder.step()
    bench.connection.commands.set(bench.keys.release, "theirs")
    bench.rebuilder.step()
    assert told(bench) == []


def test_it_is_forgotten_after_an_hour_and_of_many_the_latest_are_kept() -> None:
    clock = MovedClock()
    log = ForeignWriteLog(clock)
    for number in range(30):
        log.note(f"web-{number}", "x")
    log.note("web-15", "y")
    assert [each.label for each in log.recent] == [
        *(f"web-{number}" for number in range(10, 30) if number != 15),
        "web-15",
    ]
    assert (log.recent[-1].times, log.recent[-1].last) == (2, "y")
    clock.advance(59 * 60)
    log.note("web-15", "z")
    clock.advance(2 * 60)
    assert [(each.label, each.times) for each in log.recent] == [("web-15", 3)]
