"""Several writers and readers at once: commit order is number order, and nobody loses a row."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import QueuePool

from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import UnknownCollectionError
from tests.storage.catalog.processes import context
from tests.storage.rows import entries, ids_of

_WRITERS = 3
_COMMITS = 12


def _commit_often(url: str, writer: int) -> list[int]:
    """Each commit changes ids that all writers share, in an order of its own."""
    catalog = Catalog.open(url)
    shared = [f"shared {n}" for n in range(20)]
    try:
        return [
            catalog.entries.commit(
                "tracks",
                f"{writer}/{number}",
                upserts=[
                    entries(*shared[:: -1 if writer % 2 else 1], f"own {writer}/{number}"),
                ],
                deletes=[],
            ).generation
            for number in range(_COMMITS)
        ]
    finally:
        catalog.close()


def _follow(url: str, last: int) -> tuple[list[int], list[str], bool]:
    """Follow the changes until generation ``last``, as a reader of deltas would."""
    catalog = Catalog.open(url)
    at, seen = 0, []
    own: set[str] = set()
    whole = True
    try:
        while at < last:
            with catalog.entries.snapshot("tracks") as snapshot:
                for change in snapshot.changes(at) or ():
                    own.update(id_ for id_ in change.upserts.ids if id_.startswith("own"))
                # "Everything" and "the changes so far" are two ways to the same rows.
                live = ids_of(snapshot.chunks(rows=7))
                whole = whole and own == {id_ for id_ in live if id_.startswith("own")}
                whole = whole and len(live) == snapshot.count == len(set(live))
                if snapshot.generation != at:
                    seen.append(snapshot.generation)
                at = snapshot.generation
    finally:
        catalog.close()
    return seen, sorted(own), whole


def test_writers_in_several_processes_take_every_number_once_and_followers_miss_nothing(
    tracks: Catalog, url: str
) -> None:
    last = _WRITERS * _COMMITS
    with ProcessPoolExecutor(_WRITERS + 1, context) as processes:
        following = processes.submit(_follow, url, last)
        taken = list(processes.map(_commit_often, [url] * _WRITERS, range(_WRITERS)))
        seen, own, whole = following.result(timeout=60)

    assert sorted(number for numbers in taken for number in numbers) == list(range(1, last + 1))
    assert all(numbers == sorted(numbers) for numbers in taken)
    assert seen == sorted(seen)
    assert whole
    assert len(own) == last
    assert tracks.collections.get("tracks").count == last + 20


def _commit_the_same(url: str) -> tuple[int, bool]:
    catalog = Catalog.open(url)
    try:
        done = catalog.entries.commit("tracks", "one", upserts=[entries("a", "b")], deletes=[])
        return done.generation, done.repeated
    finally:
        catalog.close()


def test_one_batch_id_from_several_processes_at_once_is_one_commit(
    tracks: Catalog, url: str
) -> None:
    with ProcessPoolExecutor(3, context) as processes:
        done = list(processes.map(_commit_the_same, [url] * 9))

    assert {generation for generation, _ in done} == {1}
    assert [repeated for _, repeated in done].count(False) == 1
    assert tracks.collections.get("tracks").generation == 1


def test_a_number_becomes_visible_only_after_all_numbers_below_it(tracks: Catalog) -> None:
    done = threading.Event()
    gaps = []

    def watch() -> None:
        while not done.is_set():
            with tracks.entries.snapshot("tracks") as snapshot:
                batches = sum(len(change.upserts) for change in snapshot.changes(0) or ())
                if batches != snapshot.generation:
                    gaps.append((batches, snapshot.generation))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as threads:
        list(
            threads.map(
                lambda number: tracks.entries.commit(
                    "tracks", f"b{number}", upserts=[entries(f"{number}")], deletes=[]
                ),
                range(60),
            )
        )
    done.set()
    watcher.join()

    assert gaps == []
    assert tracks.collections.get("tracks").generation == 60


def test_dropping_beside_commits_leaves_no_row_without_a_collection(tracks: Catalog) -> None:
    held = tracks.collections.get("tracks")

    def replace(_: int) -> None:
        with suppress(UnknownCollectionError):  # another one has just dropped it
            tracks.collections.drop("tracks")
        tracks.collections.declare("tracks", dimension=4, metric=held.metric)

    def write(number: int) -> None:
        with suppress(UnknownCollectionError):
            tracks.entries.commit(
                "tracks", f"b{number}", upserts=[entries(f"{number}")], deletes=[]
            )

    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(replace if n % 5 == 4 else write, n) for n in range(60)]
        for job in jobs:
            job.result()

    row = tracks.collections.get("tracks")
    with tracks.entries.snapshot("tracks") as snapshot:
        assert len(ids_of(snapshot.chunks())) == row.count
    assert len(tracks.entries.batch_ids("tracks", after=0, upto=100)) == row.generation
    with tracks._database.read() as connection:
        orphans = connection.exec_driver_sql(
            "SELECT count(*) FROM indexrelay_entries WHERE collection NOT IN "
            "(SELECT key FROM indexrelay_collections)"
        ).scalar()
    assert orphans == 0


def test_a_writer_that_dies_halfway_leaves_nothing(tracks: Catalog, url: str) -> None:
    dying = context.Process(target=_die_halfway, args=(url,))
    dying.start()
    dying.join(30)

    assert dying.exitcode == 7
    after = tracks.entries.commit("tracks", "b1", upserts=[entries("a")], deletes=[])
    assert (after.generation, after.repeated) == (1, False)
    with tracks.entries.snapshot("tracks") as snapshot:
        assert ids_of(snapshot.chunks()) == ["a"]


def _die_halfway(url: str) -> None:
    catalog = Catalog.open(url)
    bulk = catalog._database.bulk
    bulk.delete = lambda *_: os._exit(7)  # type: ignore[method-assign] # after the upserts
    catalog.entries.commit("tracks", "b1", upserts=[entries("x")], deletes=["y"])


def test_a_forked_child_may_go_on_using_the_catalog(tracks: Catalog) -> None:
    tracks.entries.mark("tracks", "before")
    child = multiprocessing.get_context("fork").Process(target=_mark, args=(tracks, "in the child"))
    child.start()
    child.join(30)

    assert child.exitcode == 0
    assert tracks.entries.mark("tracks", "after").generation == 3


def _mark(catalog: Catalog, batch_id: str) -> None:
    # The parent's connections are not the child's to use, nor to close.
    pool = catalog._database._engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 0
    assert catalog.entries.mark("tracks", batch_id).generation == 2
