"""What a comparison of the store, the sources and Redis repairs, and what it reports."""

from collections.abc import Mapping

import pytest
from redis.exceptions import ConnectionError as RedisAwayError

from indexrelay.health.facts import Facts
from indexrelay.health.judge import judge
from indexrelay.health.status import BUILDS, Actor, Code, Problem, Verdict
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.reconciler import (
    Finding,
    FindingsLog,
    Reconciler,
    Reconciliation,
    RepairOutcome,
)
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState, RebuilderState
from indexrelay.schemas.names import split_member_id
from indexrelay.streams import Connection, ConsumerGroup, Lease, Presence, publish
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.testing.clock import FakeClock
from tests.fixtures.logs import capture_logs
from tests.rebuilder.conftest import Bench, MakeBench, behaving


def reconciler(bench: Bench, clock: FakeClock | None = None) -> Reconciler:
    group = ConsumerGroup(
        bench.connection, bench.keys.events, group=REBUILDERS_GROUP, consumer="hand"
    )
    return Reconciler(
        bench.settings,
        catalog=bench.catalog,
        store=bench.store,
        connection=bench.connection,
        group=group,
        source="test",
        clock=clock or SystemClock(),
    )


def found(bench: Bench, clock: FakeClock | None = None) -> Mapping[str, Finding]:
    """What one comparison finds, by what it is about."""
    return {each.about: each for each in reconciler(bench, clock).reconcile().findings}


def judged(bench: Bench, clock: FakeClock | None = None) -> Verdict:
    return judge(looked_at(bench, clock))


def looked_at(bench: Bench, clock: FakeClock | None = None) -> Facts:
    return Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=clock or SystemClock(),
    ).whole()


def told(bench: Bench, code: Code, clock: FakeClock | None = None) -> Problem | None:
    """The problem of that kind, if there is one."""
    problems = judged(bench, clock).problems
    return next((problem for problem in problems if problem.code is code), None)


def be_there(bench: Bench, *, pid: int = 7, rebuilder: str = "r1") -> None:
    now = SystemClock().now()
    label, instance = split_member_id(rebuilder)
    state = RebuilderState(
        rebuilder=label,
        instance=instance,
        host="h",
        pid=pid,
        started_at=now,
        updated_at=now,
        release=0,
    )
    Presence(bench.connection, bench.keys, "rebuilder").publish(
        rebuilder, state.model_dump_json().encode(), ttl_seconds=60
    )


def serve(bench: Bench, *, release: int, components: dict[str, ComponentState]) -> None:
    now = bench.release().created_at
    state = ReaderState(
        reader="web",
        host="h",
        pid=1,
        started_at=now,
        updated_at=now,
        ready=True,
        release=release,
        components=components,
    )
    Presence(bench.connection, bench.keys, "reader").publish(
        "web", state.model_dump_json().encode(), ttl_seconds=60
    )


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    return bench


def test_where_all_is_well_nothing_is_found(built: Bench) -> None:
    assert reconciler(built).reconcile() == Reconciliation()
    assert judged(built).within(BUILDS).problems == ()


def test_an_emptied_redis_is_repaired_in_one_comparison_without_a_person(built: Bench) -> None:
    built.connection.commands.flushall()
    found = reconciler(built).reconcile()
    assert found.repaired == (
        "release 1 was announced",
        "the group of the rebuilders was missing and was made",
    )
    assert built.connection.commands.get(built.keys.release) == b"1"
    assert reconciler(built).reconcile() == Reconciliation()


@pytest.mark.server
def test_a_server_that_evicts_keys_is_reported(built: Bench, real_connection: Connection) -> None:
    built.connection = real_connection
    assert told(built, Code.REDIS_EVICTS) is None
    real_connection.commands.config_set("maxmemory-policy", "volatile-lru")
    try:
        problem = told(built, Code.REDIS_EVICTS)
    finally:
        real_connection.commands.config_set("maxmemory-policy", "noeviction")
    assert problem is not None
    assert "maxmemory-policy volatile-lru" in problem.what
    assert problem.acts is Actor.PERSON
    assert "noeviction" in problem.advice


def test_events_of_a_rebuilder_that_went_away_wait_for_another_one(built: Bench) -> None:
    publish(built.connection, built.keys.events, b"x")
    gone = ConsumerGroup(
        built.connection, built.keys.events, group=REBUILDERS_GROUP, consumer="gone"
    )
    assert gone.read(count=10, block_seconds=0)
    assert told(built, Code.EVENTS_UNTAKEN) is None  # it may be at work on them
    # The server's clock cannot be moved, so the patience is what is shortened.
    limits = built.settings.rebuilder.model_copy(update={"claim_idle_seconds": -1.0})
    built.settings = built.settings.model_copy(update={"rebuilder": limits})
    for member in Presence(built.connection, built.keys, "rebuilder").all():
        Presence(built.connection, built.keys, "rebuilder").remove(member)
    nobody = told(built, Code.EVENTS_UNTAKEN)
    assert nobody is not None
    assert nobody.what.startswith("1 event(s) were taken by rebuilder gone")
    assert (nobody.acts, nobody.advice) == (
        Actor.PERSON,
        "start a rebuilder: indexrelay rebuilder",
    )
    be_there(built)
    somebody = told(built, Code.EVENTS_UNTAKEN)
    assert somebody is not None
    assert somebody.acts is Actor.PROCESS


@pytest.mark.parametrize(
    ("owner", "is_told"),
    [
        ("r1:7:abc", False),  # of schema 1.0, which is present by its label
        ("r1:8:abc", True),
        ("r2:7:abc", True),
        ("stranger", True),
        ("r3:7:0a", False),
        ("r3:7:0b", True),  # another process of the same label, gone
    ],
)
def test_a_lease_is_reported_when_the_process_that_took_it_has_ended(
    built: Bench, owner: str, is_told: bool
) -> None:
    be_there(built, rebuilder="r1", pid=7)
    be_there(built, rebuilder="r3:0a", pid=7)
    Lease(built.connection, built.keys.lease("index"), owner=owner, ttl_seconds=9).acquire()
    lease = told(built, Code.LEASE_ORPHANED)
    assert (lease is not None) is is_told
    if lease is not None:
        assert lease.what == "index is leased by a rebuilder that is gone"
        assert lease.acts is Actor.NOBODY


@pytest.mark.parametrize("milliseconds", [None, 151_000])
def test_a_lease_that_would_not_end_in_time_is_given_an_end(
    built: Bench, milliseconds: int | None
) -> None:
    key = built.keys.lease("index")
    built.connection.commands.set(key, "somebody", px=milliseconds)
    assert told(built, Code.LEASE_ENDLESS) is not None
    assert found(built)["lease"].outcome is RepairOutcome.REPAIRED
    assert 0 < built.connection.commands.pttl(key) <= 15_000
    assert told(built, Code.LEASE_ENDLESS) is None


def test_a_reader_is_behind_once_it_had_its_time(built: Bench) -> None:
    serve(built, release=0, components={})
    clock = FakeClock(built.release().created_at)
    clock.advance(14.0)
    on_its_way = told(built, Code.READER_BEHIND, clock)
    assert on_its_way is not None
    assert on_its_way.acts is Actor.PROCESS
    clock.advance(2.0)
    behind = told(built, Code.READER_BEHIND, clock)
    assert behind is not None
    assert behind.what == "reader web (h:1) is at release 0, 1 is the newest"
    assert behind.acts is Actor.PERSON


def test_a_reader_that_could_not_load_or_is_not_understood_is_reported(built: Bench) -> None:
    failed = ComponentState(outcome=LoadOutcome.FAILED, error="BlobCorruptError: no")
    serve(built, release=1, components={"index": failed})
    problem = told(built, Code.READER_LOAD_FAILED)
    assert problem is not None
    assert problem.what == (
        "reader web (h:1) could not load index, it serves none: BlobCorruptError: no"
    )
    Presence(built.connection, built.keys, "reader").publish("web", b"{}", ttl_seconds=60)
    assert told(built, Code.READER_UNREADABLE) is not None


def test_a_server_that_is_away_is_one_finding(
    built: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> int:
        raise RedisAwayError("connection refused")

    monkeypatch.setattr("indexrelay.rebuilder.reconciler.current_release", away)
    [redis] = reconciler(built).reconcile().findings
    assert (redis.about, redis.outcome) == ("redis", RepairOutcome.LEFT)
    assert "connection refused" in redis.what


def corrupt_release(built: Bench, folder: str) -> None:
    [file] = (built.settings.artifacts_dir / folder).glob("*1.json")
    file.chmod(0o600)
    file.write_text("{")


def test_a_corrupt_release_file_is_written_again_from_its_copy(built: Bench) -> None:
    for folder in ("releases", "copies"):
        corrupt_release(built, folder)
        assert found(built)["store"].outcome is RepairOutcome.REPAIRED
        assert found(built) == {}


def test_a_release_whose_files_are_both_corrupt_is_reported(built: Bench) -> None:
    corrupt_release(built, "releases")
    corrupt_release(built, "copies")
    problem = told(built, Code.RELEASE_CORRUPT)
    assert problem is not None
    assert "release 1 is corrupt" in problem.what


def test_a_source_that_cannot_be_read_is_reported(built: Bench) -> None:
    source = {"kind": "folder", "path": str(built.settings.data_dir / "nowhere")}
    tracks = {"dimension": 2, "metric": "l2", "source": source}
    built.settings = type(built.settings).model_validate(
        {**built.settings.model_dump(by_alias=True), "collections": {"tracks": tracks}}
    )
    problem = told(built, Code.SOURCE_UNREADABLE)
    assert problem is not None
    assert problem.what.startswith("collection tracks cannot be read")
    assert problem.acts is Actor.PERSON


def test_one_comparison_logs_no_more_than_a_few_new_lines(built: Bench) -> None:
    log, verdict = FindingsLog(SystemClock()), judged(built)
    for round_ in range(2):  # in other words each time
        problems = tuple(
            Problem(
                code=Code.READER_LOAD_FAILED,
                what=f"reader {number} says {round_}",
                advice="see its log",
                acts=Actor.PERSON,
            )
            for number in range(25)
        )
        with capture_logs() as events:
            log.left(verdict.model_copy(update={"problems": problems, "well": False}))
        assert [event["event"] for event in events] == ["reconcile.left"] * 20 + [
            "reconcile.left_more"
        ]
        assert events[-1]["problems"] == 5


def test_what_is_left_is_logged_when_it_is_new_and_what_is_repaired_always(built: Bench) -> None:
    repaired = Reconciliation(
        findings=(Finding(about="release", what="announced", outcome=RepairOutcome.REPAIRED),)
    )
    well, log = judged(built), FindingsLog(SystemClock())
    built.catalog.attempts.pause("index", "cost")
    paused = judged(built)
    with capture_logs() as events:
        for findings, verdict in (
            (repaired, paused),
            (repaired, paused),
            (None, well),
            (None, paused),
        ):
            if findings is not None:
                log.repaired(findings)
            log.left(verdict)
    said = "as asked: index is paused since"
    assert [(event["event"], event["what"][: len(said)]) for event in events] == [
        ("reconcile.repaired", "announced"),
        ("reconcile.left", said),
        ("reconcile.repaired", "announced"),
        ("reconcile.left", said),
    ]


def test_a_repair_that_fails_again_and_again_is_logged_after_waits_that_grow() -> None:
    clock = FakeClock()
    log = FindingsLog(clock)
    away = Finding(about="store", what="it is away", outcome=RepairOutcome.LEFT, advice="mount it")
    told: list[int] = []
    with capture_logs() as events:
        for minute in range(180):
            log.repaired(Reconciliation(findings=(away,)))
            if len(events) > len(told):
                told.append(minute)
            clock.advance(60)
        log.repaired(Reconciliation())  # it was there
        log.repaired(Reconciliation(findings=(away,)))
    assert told == [0, 5, 15, 35, 75, 135]
    assert len(events) == len(told) + 1
