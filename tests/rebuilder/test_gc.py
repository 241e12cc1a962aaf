"""What is removed when no kept release needs it, and what stays for whom."""

from datetime import UTC, datetime, timedelta

import pytest

from indexrelay.rebuilder import gc
from indexrelay.rebuilder.gc import GarbageCollector
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Presence
from indexrelay.testing import FakeClock
from tests.rebuilder.conftest import Bench, MakeBench, behaving

LATER = timedelta(days=1)


def retire(bench: Bench, *, keep_releases: int = 1) -> None:
    """A day later, when nothing is young any more."""
    limits = {"keep_releases": keep_releases}
    settings = {**bench.settings.model_dump(by_alias=True), "rebuilder": limits}
    GarbageCollector(
        Settings.model_validate(settings),
        catalog=bench.catalog,
        store=bench.store,
        connection=bench.connection,
        keys=bench.keys,
        clock=FakeClock(datetime.now(UTC) + LATER),
    ).collect()


def served_by_a_reader(bench: Bench, version: str, *, member: str = "slow") -> None:
    label, instance = split_member_id(member)
    now = datetime.now(UTC)
    component = ComponentState(outcome=LoadOutcome.APPLIED, version=version)
    state = ReaderState(
        reader=label,
        instance=instance,
        host="h",
        pid=1,
        started_at=now,
        updated_at=now,
        ready=True,
        release=1,
        components={"index": component},
    )
    presence = Presence(bench.connection, bench.keys, "reader")
    presence.publish(member, state.model_dump_json().encode(), ttl_seconds=60)


def rebuilt(bench: Bench, *ids: str, deletes: tuple[str, ...] = ()) -> str:
    """One more batch; the version that was made of it."""
    bench.commit(*ids, deletes=deletes)
    bench.rebuild()
    return bench.release().components["index"]


def test_deletes_are_remembered_for_as_long_as_an_improvement_may_need_them(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index={"kind": "tests.rebuilder.kinds:Improving", "from": ["tracks"]})
    bench.commit("a", "b", "c")
    bench.rebuilder.step(quick=True)
    assert bench.rebuilder.improve()  # at generation 1; it lies in the store
    bench.catalog.attempts.pause("index", "until some were deleted")
    bench.commit("d", deletes=("a",))
    bench.catalog.attempts.resume("index")
    bench.rebuilder._improver._builder.given_up.update(bench.store.newest_versions("index", most=9))
    bench.rebuilder.step(quick=True)
    assert bench.opened("index").manifest.details["quality"] == "quick"
    retire(bench)
    with bench.catalog.entries.snapshot("tracks") as snapshot:
        assert snapshot.changes(1) is not None
    bench.catalog.inbox.request("r1", components=("index",), full=True, reason="")
    bench.rebuild()  # the best there is: nothing needs them any more
    retire(bench)
    with bench.catalog.entries.snapshot("tracks") as snapshot:
        assert snapshot.changes(1) is None


def blobs(bench: Bench) -> int:
    return sum(file.is_file() for file in (bench.store.root / "blobs").rglob("*"))


def test_versions_that_no_kept_release_names_go_with_their_files(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    for number in range(4):
        rebuilt(bench, f"e{number}")
    before = blobs(bench)
    retire(bench, keep_releases=2)
    assert [release.number for release in bench.store.releases()] == [4, 3]
    assert blobs(bench) < before
    assert bench.opened("index").files["count.txt"].read_text() == "index: 4\n"


def test_what_a_reader_serves_stays(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    first = rebuilt(bench, "a")
    second = rebuilt(bench, "b")
    rebuilt(bench, "c")
    served_by_a_reader(bench, first)
    retire(bench)
    assert bench.store.open_version("index", first).files["count.txt"].exists()
    assert second not in bench.store.newest_versions("index", most=10)


def test_a_reader_that_cannot_be_understood_hides_no_other(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    first, _, _ = (rebuilt(bench, name) for name in "abc")
    served_by_a_reader(bench, first)
    Presence(bench.connection, bench.keys, "reader").publish("evil", b"\xff{", ttl_seconds=60)
    retire(bench)
    assert bench.store.open_version("index", first).files["count.txt"].exists()


def test_a_reader_that_claims_to_serve_everything_keeps_nothing(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "MAX_VERSIONS_SERVED", 2)
    bench = make_bench(index=behaving("tracks"))
    versions = [rebuilt(bench, name) for name in "abcde"]
    for number, version in enumerate(versions[:3]):
        served_by_a_reader(bench, version, member=f"evil:0{number}")
    for number, version in enumerate(versions[1:3]):
        served_by_a_reader(bench, version, member=f"web:0{number}")
    retire(bench)
    kept = set(bench.store.newest_versions("index", most=10))
    assert kept == {versions[1], versions[2], versions[4]}


def test_deletes_are_remembered_for_as_long_as_a_kept_version_has_to_learn_of_them(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    rebuilt(bench, "a", "b", "c")
    rebuilt(bench, deletes=("a",))
    rebuilt(bench, deletes=("b",))

    def told_since(generation: int) -> bool:
        with bench.catalog.entries.snapshot("tracks") as snapshot:
            return snapshot.changes(generation) is not None

    retire(bench, keep_releases=2)
    assert (told_since(1), told_since(2), told_since(3)) == (False, True, True)
    retire(bench, keep_releases=1)
    assert (told_since(2), told_since(3)) == (False, True)


def test_nothing_is_forgotten_of_a_collection_that_nothing_is_made_from(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    bench.commit("a")
    bench.commit(deletes=("a",))
    retire(bench)
    with bench.catalog.entries.snapshot("tracks") as snapshot:
        assert snapshot.changes(0) is not None
