"""A lock that somebody holds for ever is told of, and stops nobody for ever."""

import errno
import fcntl
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexrelay.health.redis import member_problems
from indexrelay.health.status import Code
from indexrelay.rebuilder.scheduler import Leases
from indexrelay.schemas.files import LockWaits, holder_of, wait_for_lock
from indexrelay.schemas.messages import RebuilderState
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.storage.artifacts import ArtifactStore, StoreAccessError, StoreBusyError
from indexrelay.storage.artifacts.files import COLLECTION_SECONDS, WRITING_SECONDS
from indexrelay.storage.catalog import Catalog, database
from indexrelay.storage.errors import is_transient
from indexrelay.storage.urls import driver_url
from indexrelay.streams import EmbeddedServer, Identity, members_of
from indexrelay.streams.errors import ServerStartError
from tests.fixtures.logs import capture_logs
from tests.health.healthy_facts import healthy, rebuilder, redis
from tests.rebuilder.conftest import MakeBench, behaving
from tests.security.strangers import a_place_for_all, as_stranger
from tests.storage.artifacts.samples import MovedClock, make_file, make_release, make_version


@contextmanager
def held(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Somebody has the lock, and does not let go."""
    with path.open("rb") as file:
        fcntl.flock(file, how)
        yield


@contextmanager
def disposing(engine: sa.Engine) -> Iterator[None]:
    yield
    engine.dispose()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def store(tmp_path: Path, clock: MovedClock) -> ArtifactStore:
    """Its pauses move the clock, and take no time."""
    store = ArtifactStore(tmp_path / "store", clock=clock, pause=clock.advance)
    make_release(store, voyager=make_version(store, "voyager", b"1"))
    return store


@pytest.mark.parametrize("group_reads", [False, True])
def test_who_may_only_read_the_store_can_lock_nothing_in_it(group_reads: bool) -> None:
    with a_place_for_all() as folder:
        store = ArtifactStore(folder / "store", group_reads=group_reads)
        version = make_version(store, "voyager", b"1")
        make_release(store, voyager=version)
        with store.scrubbing():
            pass
        release = store.root / "releases" / "00000001.json"
        locks = [store.root / "lock", *store.root.glob("checked/*.lock")]
        assert len(locks) == 2

        def lock(path: Path) -> str:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "locked"

        group = os.getegid()
        said = [as_stranger(partial(lock, path), group=group) for path in (release, *locks)]
        others = ["PermissionError", "PermissionError"]
        assert said == ["locked" if group_reads else "PermissionError", *others]


def test_a_lock_file_that_an_earlier_version_left_open_to_all_is_shut(store: ArtifactStore) -> None:
    lock = store.root / "lock"
    lock.chmod(0o666)
    make_version(store, "voyager", b"2")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_link_in_place_of_a_lock_file_is_not_followed(
    store: ArtifactStore, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    lock = store.root / "lock"
    lock.unlink()
    lock.symlink_to(target)
    with pytest.raises(StoreAccessError, match="cannot lock") as refused:
        make_version(store, "voyager", b"2")
    assert refused.value.errno == errno.ELOOP
    assert not target.exists()


def test_a_writer_waits_for_a_lock_within_a_limit_and_may_try_again(
    store: ArtifactStore, clock: MovedClock
) -> None:
    with held(store.root / "lock"), capture_logs() as lines:
        with pytest.raises(
            StoreBusyError, match="has held it for 60 s; see what that does"
        ) as busy:
            make_version(store, "voyager", b"2")
        waits = store.lock_waits.long
    assert is_transient(busy.value)
    assert WRITING_SECONDS <= clock.ahead < WRITING_SECONDS + 1
    assert [each.lock for each in waits] == [str(store.root / "lock")]
    told = [line["seconds"] for line in lines if line["event"] == "lock.waiting"]
    assert [round(seconds) for seconds in told] == [5, 10, 20, 40]
    make_version(store, "voyager", b"2")
    assert not store.lock_waits.long


def test_a_garbage_collection_leaves_what_is_locked_to_the_next_one(
    store: ArtifactStore, clock: MovedClock
) -> None:
    with held(store.root / "lock", fcntl.LOCK_SH), pytest.raises(StoreBusyError):
        store.collect_garbage(keep_releases=1, used_versions=(), grace_seconds=0.0)
    assert clock.ahead < COLLECTION_SECONDS + 1
    assert store.lock_waits.long
    store.collect_garbage(keep_releases=1, used_versions=(), grace_seconds=0.0)
    assert not store.lock_waits.long


def test_the_process_that_holds_a_lock_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as file:
        assert holder_of(file.fileno()) == ""
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            with path.open("rb") as own:
                fcntl.flock(own, fcntl.LOCK_EX)
                os.write(told, b"x")
                signal.pause()
            os._exit(0)
        os.read(ready, 1)
        try:
            assert holder_of(file.fileno()) == f"process {child}"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_short_wait_is_told_to_nobody(tmp_path: Path, clock: MovedClock) -> None:
    path = tmp_path / "lock"
    path.touch()
    waits = LockWaits(clock)
    with path.open("rb") as ours, path.open("rb") as theirs, capture_logs() as lines:
        fcntl.flock(theirs, fcntl.LOCK_EX)

        def pause(seconds: float) -> None:
            clock.advance(seconds)
            if clock.ahead > 3:
                fcntl.flock(theirs, fcntl.LOCK_UN)

        assert wait_for_lock(
            ours.fileno(), fcntl.LOCK_EX, name="it", waits=waits, clock=clock, most_seconds=9,
            pause=pause,
        )  # fmt: skip
    assert waits.long == ()
    assert lines == []


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 2)
    with closing(Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalog:
        yield catalog


def test_a_catalog_that_somebody_has_locked_is_given_up_after_a_while_and_told_of(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_TURN_SECONDS", 1)
    seen: list[str] = []
    monkeypatch.setattr(LockWaits, "note", lambda _, lock: seen.append(lock))
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(sa.exc.OperationalError, match="database is locked") as error:
            catalog.attempts.pause("voyager", reason="test")
        assert is_transient(error.value)
        assert seen == ["the catalog"]
        stranger.execute("ROLLBACK")
        catalog.attempts.pause("voyager", reason="test")
    assert catalog.lock_waits.long == ()


@pytest.mark.postgresql
def test_so_is_a_row_that_somebody_has_locked_in_postgresql(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 1)
    stranger = sa.create_engine(driver_url(postgresql_url))
    with disposing(stranger), closing(Catalog.open(postgresql_url)) as catalog:
        with stranger.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE indexrelay_pauses IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout") as error:
                catalog.attempts.pause("voyager", reason="test")
            assert is_transient(error.value)
            assert [wait.lock for wait in catalog.lock_waits.long] == ["the catalog"]
        catalog.attempts.pause("voyager", reason="test")
        assert catalog.lock_waits.long == ()


def test_a_lease_that_is_held_for_longer_than_any_build_is_told_of(
    make_bench: MakeBench, clock: MovedClock
) -> None:
    bench = make_bench(index=behaving("tracks"))
    limits = RebuilderSettings(lease_ttl_seconds=60.0, build_timeout_seconds=100.0)
    settings = Settings(namespace=bench.keys.namespace, rebuilder=limits)
    leases = Leases(settings, bench.connection, identity=Identity("us"), clock=clock)
    bench.connection.commands.set(bench.keys.lease("index"), "somebody")
    assert not leases.take("index")
    clock.advance(159.0)
    assert not leases.take("index")
    assert not leases.waits
    clock.advance(2.0)
    with capture_logs() as lines:
        assert not leases.take("index")
    assert [line["lock"] for line in lines] == ["the lease of index"]
    assert [each.lock for each in leases.waits] == ["the lease of index"]
    leases.want([])  # not due any more
    assert not leases.waits


def test_a_rebuilder_says_what_it_waits_for_and_the_judge_names_it(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    clock = MovedClock()
    bench.store = ArtifactStore(bench.store.root, clock=clock, pause=clock.advance)
    other = bench.another("r2")
    bench.commit("b")
    with held(bench.store.root / "lock"):
        other.step()
    found = members_of(bench.connection, bench.keys, RebuilderState).states
    [wait] = [
        wait
        for state in found.values()
        if state is not None and state.label == "r2"
        for wait in state.lock_waits
    ]
    assert wait.lock == str(bench.store.root / "lock")
    seen = healthy(redis=redis(rebuilders={"r2:0a": rebuilder(lock_waits=(wait,))}))
    [problem] = [each for each in member_problems(seen) if each.code is Code.LOCK_WAITS]
    assert f"waits for {wait.lock} since" in problem.what
    assert "end it if it does nothing" in problem.advice
    other.stop()


def test_an_embedded_server_whose_folder_is_locked_is_not_waited_for_for_ever(
    tmp_path: Path, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.schemas.files.sleep", clock.advance)
    server = EmbeddedServer(tmp_path, clock=clock)
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "lock").touch()
    with held(tmp_path / "redis" / "lock"), pytest.raises(ServerStartError, match="holds the lock"):
        server.start()
    assert 20 < clock.ahead < 30


def test_a_stopped_process_among_the_writers_does_not_stop_a_build(
    store: ArtifactStore, tmp_path: Path
) -> None:
    """Writers share the lock: only a garbage collection has to wait for one that was stopped."""
    with held(store.root / "lock", fcntl.LOCK_SH):
        store.put_blob(make_file(tmp_path, b"3"))
        make_release(store, voyager=make_version(store, "voyager", b"3"))
    assert not store.lock_waits.long
