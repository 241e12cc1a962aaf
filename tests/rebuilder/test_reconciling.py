"""What a comparison of the store, the sources and Redis mends, and what it tells."""

from collections.abc import Mapping

import pytest
from redis.exceptions import ConnectionError as RedisAwayError

from indexrelay.health.backoff import Patience
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.comparing import compare
from indexrelay.rebuilder.findings import Finding, Reconciliation, Standing
from indexrelay.rebuilder.reconciling import Reconciler
from indexrelay.rebuilder.telling import FindingsLog
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.results import (
    ComponentState,
    LoadOutcome,
    ReaderState,
    RebuilderState,
)
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
        store=bench.store,
        connection=bench.connection,
        group=group,
        source="test",
        clock=clock or SystemClock(),
    )


def found(bench: Bench, clock: FakeClock | None = None) -> Mapping[str, Finding]:
    """What one comparison finds, by what it is about."""
    return {each.about: each for each in reconciler(bench, clock).reconcile().findings}


def compared(bench: Bench, *, rebuilders: bool = True) -> list[tuple[str, Standing]]:
    clock = SystemClock()
    facts = Survey(
        bench.settings, catalog=lambda: bench.catalog, store=lambda: bench.store, clock=clock
    ).of_builds()
    patience = Patience.of(bench.settings.rebuilder)
    return [(each.what, each.standing) for each in compare(facts, patience, rebuilders=rebuilders)]


def be_there(bench: Bench, *, pid: int = 7, rebuilder: str = "r1") -> None:
    now = SystemClock().now()
    state = RebuilderState(
        rebuilder=split_member_id(rebuilder)[0],
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
    assert compared(built) == []


def test_an_emptied_redis_is_mended_in_one_look_and_needs_nobody(built: Bench) -> None:
    built.connection.commands.flushall()
    mended = reconciler(built).reconcile()
    assert mended.mended == (
        "release 1 was announced",
        "the group of the rebuilders was missing and was made",
    )
    assert not mended.needs_a_person
    assert built.connection.commands.get(built.keys.release) == b"1"
    assert reconciler(built).reconcile() == Reconciliation()


@pytest.mark.server
def test_a_server_that_forgets_what_does_not_fit_is_told(
    built: Bench, real_connection: Connection
) -> None:
    built.connection = real_connection
    reconciler(built).reconcile()
    assert "redis" not in found(built)
    real_connection.commands.config_set("maxmemory-policy", "volatile-lru")
    try:
        finding = found(built)["redis"]
    finally:
        real_connection.commands.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy volatile-lru" in finding.what
    assert finding.standing is Standing.LEFT
    assert "noeviction" in finding.advice


def test_events_of_a_rebuilder_that_went_away_wait_for_another_one(built: Bench) -> None:
    publish(built.connection, built.keys.events, b"x")
    gone = ConsumerGroup(
        built.connection, built.keys.events, group=REBUILDERS_GROUP, consumer="gone"
    )
    assert gone.read(count=10, block_seconds=0)
    assert "events" not in found(built)  # it may be at work on them
    # The server's clock cannot be moved, so the patience is what is shortened.
    limits = built.settings.rebuilder.model_copy(update={"claim_idle_seconds": -1.0})
    built.settings = built.settings.model_copy(update={"rebuilder": limits})
    built.connection.commands.delete(built.keys.rebuilders)
    nobody = found(built)["events"]
    assert nobody.what.startswith("1 event(s) were taken by rebuilder gone")
    assert (nobody.standing, nobody.advice) == (
        Standing.LEFT,
        "start a rebuilder: indexrelay rebuilder",
    )
    be_there(built)
    assert found(built)["events"].standing is Standing.WAITING


@pytest.mark.parametrize(
    ("owner", "told"),
    [
        ("r1:7:abc", False),  # of schema 1.0, which is present by its label
        ("r1:8:abc", True),
        ("r2:7:abc", True),
        ("stranger", True),
        ("r3:7:0a", False),
        ("r3:7:0b", True),  # another process of the same label, gone
    ],
)
def test_a_lease_is_told_when_the_life_that_took_it_is_over(
    built: Bench, owner: str, told: bool
) -> None:
    be_there(built, rebuilder="r1", pid=7)
    be_there(built, rebuilder="r3:0a", pid=7)
    Lease(built.connection, built.keys.lease("index"), owner=owner, ttl_seconds=9).acquire()
    lease = found(built).get("lease")
    assert (lease is not None) is told
    if lease is not None:
        assert lease.what == "index is leased by a rebuilder that is gone"
        assert lease.standing is Standing.WAITING


def test_a_lease_that_would_never_end_is_given_an_end(built: Bench) -> None:
    key = built.keys.lease("index")
    built.connection.commands.set(key, "somebody")
    assert found(built)["lease"].standing is Standing.MENDED
    assert 0 < built.connection.commands.pttl(key) <= 15_000


def test_a_reader_is_behind_once_it_had_its_time(built: Bench) -> None:
    serve(built, release=0, components={})
    clock = FakeClock(built.release().created_at)
    clock.advance(14.0)
    assert "reader" not in found(built, clock)
    clock.advance(2.0)
    behind = found(built, clock)["reader"]
    assert behind.what == "reader web (h:1) is at release 0, 1 is the newest"
    assert behind.standing is Standing.LEFT


def test_a_reader_that_could_not_load_or_is_not_understood_is_told(built: Bench) -> None:
    failed = ComponentState(outcome=LoadOutcome.FAILED, error="BlobCorruptError: no")
    serve(built, release=1, components={"index": failed})
    assert found(built)["reader"].what == (
        "reader web (h:1) could not load index: BlobCorruptError: no"
    )
    Presence(built.connection, built.keys, "reader").publish("web", b"{}", ttl_seconds=60)
    assert "not understood" in found(built)["reader"].what


def test_a_server_that_is_away_is_one_finding(
    built: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> int:
        raise RedisAwayError("connection refused")

    monkeypatch.setattr("indexrelay.rebuilder.announcing.current_release", away)
    [redis] = reconciler(built).reconcile().findings
    assert (redis.about, redis.standing) == ("redis", Standing.LEFT)
    assert "connection refused" in redis.what


def damage_release(built: Bench, folder: str) -> None:
    [file] = (built.settings.artifacts_dir / folder).glob("*1.json")
    file.chmod(0o600)
    file.write_text("{")


def test_a_damaged_release_file_is_written_anew_from_its_copy(built: Bench) -> None:
    for folder in ("releases", "copies"):
        damage_release(built, folder)
        assert found(built)["store"].standing is Standing.MENDED
        assert found(built) == {}


def test_a_release_whose_files_are_both_damaged_is_told(built: Bench) -> None:
    damage_release(built, "releases")
    damage_release(built, "copies")
    assert "release 1 is damaged" in found(built)["store"].what


def test_sources_are_compared_with_what_is_covered(built: Bench) -> None:
    built.commit("b")
    what = "index is due: tracks is at generation 2, it covers 1"
    assert compared(built) == [(what, Standing.WAITING)]
    assert compared(built, rebuilders=False) == [(what, Standing.LEFT)]


def test_what_a_person_decided_needs_nobody(built: Bench) -> None:
    built.catalog.attempts.pause("index", "too loud")
    assert compared(built) == [("index is paused", Standing.DECIDED)]
    built.catalog.attempts.resume("index")
    built.store.hold("index", reason="good so")
    assert compared(built) == [("index is held: good so", Standing.DECIDED)]


def test_a_component_that_failed_waits_until_it_is_not_tried_any_more(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks", behaviour="raises"))
    bench.commit("a")
    bench.rebuild()
    [(what, standing)] = compared(bench)
    assert what == "index failed 1 time(s) in a row: ValueError: the build raised"
    assert standing is Standing.WAITING
    for request in ("r1", "r2"):
        bench.catalog.inbox.request(request, components=("index",), force=False, reason="")
        bench.rebuild()
    [(what, standing)] = compared(bench)
    assert what.startswith("index failed 3 time(s)")
    assert standing is Standing.LEFT


def test_a_source_that_cannot_be_read_is_told(built: Bench) -> None:
    source = {"kind": "folder", "path": str(built.settings.data_dir / "nowhere")}
    tracks = {"dimension": 2, "metric": "l2", "source": source}
    built.settings = type(built.settings).model_validate(
        {**built.settings.model_dump(by_alias=True), "collections": {"tracks": tracks}}
    )
    [(what, standing)] = compared(built)
    assert what.startswith("tracks cannot be read")
    assert standing is Standing.LEFT


def test_what_is_left_is_logged_when_it_is_new_and_what_is_mended_always() -> None:
    left = Finding(about="reader", what="web is behind", standing=Standing.LEFT)
    mended = Finding(about="release", what="announced", standing=Standing.MENDED)
    log = FindingsLog()
    with capture_logs() as events:
        for findings in ((left, mended), (left, mended), (), (left,)):
            log.tell(Reconciliation(findings=findings))
    assert [(event["event"], event["what"]) for event in events] == [
        ("reconcile.left", "web is behind"),
        ("reconcile.repaired", "announced"),
        ("reconcile.repaired", "announced"),
        ("reconcile.left", "web is behind"),
    ]
