import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Changes
from indexrelay.storage.errors import SnapshotClosedError
from tests.storage.rows import entries, flat, ids_of, values_of


def write(catalog: Catalog, *ids: str, deletes: Sequence[str] = (), value: float = 1.0) -> int:
    batch_id = f"after {catalog.collections.get('tracks').generation}"
    rows = [entries(*ids, value=value)] if ids else []
    return catalog.entries.commit("tracks", batch_id, upserts=rows, deletes=deletes).generation


def since(catalog: Catalog, after: int) -> tuple[list[str], list[str]] | None:
    with catalog.entries.snapshot("tracks") as snapshot:
        changes = snapshot.changes(after)
        if changes is None:
            return None
        found: list[Changes] = list(changes)
    return ids_of(change.upserts for change in found), flat(change.deletes for change in found)


def test_entries_come_in_the_order_of_their_utf8_bytes(tracks: Catalog) -> None:
    ids = ["b", "a", "B", "A", "ä", "z", "10", "9", "\ufffd", "🎵", " ", "a b", "ab"]
    ids += ["\u00e9", "e\u0301"]  # one letter for a person, two ids here
    write(tracks, *ids)

    with tracks.entries.snapshot("tracks") as snapshot:
        chunks = list(snapshot.chunks(rows=4))

    assert ids_of(chunks) == sorted(ids, key=str.encode)
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3]


def test_a_snapshot_does_not_move_while_others_write(tracks: Catalog) -> None:
    write(tracks, "a", "b", "c", "d")

    with tracks.entries.snapshot("tracks") as snapshot:
        chunks = snapshot.chunks(rows=2)
        first = next(chunks)
        write(tracks, "c", "e", value=2, deletes=["d"])
        seen = values_of([first, *chunks])
        assert values_of(snapshot.chunks()) == seen == dict.fromkeys("abcd", 1.0)
        assert [ids_of([change.upserts]) for change in snapshot.changes(0) or ()] == [list("abcd")]
        assert (snapshot.generation, snapshot.count) == (1, 4)


def test_changes_are_what_is_younger_each_id_once_with_its_last_state(tracks: Catalog) -> None:
    write(tracks, "a", "b", "c")
    write(tracks, "b", "d")
    write(tracks, "e", deletes=["a", "d"])
    write(tracks, "a")

    assert since(tracks, 0) == (["a", "b", "c", "e"], ["d"])
    assert since(tracks, 1) == (["a", "b", "e"], ["d"])
    assert since(tracks, 2) == (["a", "e"], ["d"])
    assert since(tracks, 3) == (["a"], [])
    assert since(tracks, 4) == ([], [])


def test_changes_come_in_chunks_of_at_most_so_many_rows(tracks: Catalog) -> None:
    write(tracks, "a", "b", "c", "d", "e")
    write(tracks, deletes=["b", "d"])

    with tracks.entries.snapshot("tracks") as snapshot:
        found = list(snapshot.changes(0, rows=2) or ())

    assert [(change.upserts.ids, change.deletes) for change in found] == [
        (["a"], ["b"]),
        (["c"], ["d"]),
        (["e"], []),
    ]
    assert found[0].upserts.vectors.shape == (1, 4)


def test_changes_since_the_future_or_before_time_cannot_be_known(tracks: Catalog) -> None:
    write(tracks, "a")

    assert since(tracks, 2) is None
    assert since(tracks, -1) is None


def test_forgotten_deletes_raise_the_floor(tracks: Catalog) -> None:
    write(tracks, "a", "b", "c")
    write(tracks, deletes=["a"])
    write(tracks, deletes=["b"])

    assert tracks.entries.forget_deletes("tracks", below=2) == 1

    assert since(tracks, 1) is None
    assert since(tracks, 2) == ([], ["b"])
    assert tracks.collections.get("tracks").count == 1


def test_forgetting_looks_only_at_what_changed_since_the_floor(tmp_path: Path) -> None:
    """It holds the lock that every job waits for, and most rows of a collection are old."""
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.collections.declare("tracks", dimension=4, metric=Metric.L2)
    write(catalog, *(f"old{row}" for row in range(5000)))
    write(catalog, deletes=["old1"])
    assert catalog.entries.forget_deletes("tracks", below=2) == 1
    write(catalog, deletes=["old2"])
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return 0

    def listen(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(look, 100)

    event.listen(Pool, "checkout", listen)
    try:
        assert catalog.entries.forget_deletes("tracks", below=3) == 1
    finally:
        event.remove(Pool, "checkout", listen)
        catalog.close()
    assert looks < 50, "hundreds of steps of the database, and not some for each of 5,000 rows"


def test_the_floor_never_falls_and_never_passes_the_generation(tracks: Catalog) -> None:
    write(tracks, "a")
    write(tracks, deletes=["a"])

    assert tracks.entries.forget_deletes("tracks", below=99) == 1
    assert tracks.entries.forget_deletes("tracks", below=1) == 0

    assert since(tracks, 1) is None
    assert since(tracks, 2) == ([], [])
    write(tracks, "b")
    write(tracks, deletes=["b"])
    assert since(tracks, 3) == ([], ["b"])


def test_a_closed_snapshot_says_so_instead_of_reading_on(tracks: Catalog) -> None:
    write(tracks, "a", "b")
    with tracks.entries.snapshot("tracks") as snapshot:
        begun = snapshot.chunks(rows=1)
        changed = snapshot.changes(0, rows=1)
        assert changed is not None
        next(begun)
        next(changed)

    for reading in (begun, changed, snapshot.chunks()):
        with pytest.raises(SnapshotClosedError, match="'tracks' is closed"):
            next(iter(reading))


def test_an_abandoned_reading_does_not_hold_up_the_next_writer(tracks: Catalog) -> None:
    write(tracks, *"abc")
    with tracks.entries.snapshot("tracks") as snapshot:
        next(snapshot.chunks(rows=1))

    assert write(tracks, "d") == 2


def test_collections_do_not_see_each_others_entries(tracks: Catalog) -> None:
    held = tracks.collections.get("tracks")
    tracks.collections.declare("albums", dimension=4, metric=held.metric)
    write(tracks, "a", "b")
    tracks.entries.commit("albums", "b1", upserts=[entries("a", value=9)], deletes=["b"])

    with tracks.entries.snapshot("tracks") as snapshot:
        assert values_of(snapshot.chunks()) == {"a": 1.0, "b": 1.0}
    with tracks.entries.snapshot("albums") as snapshot:
        assert values_of(snapshot.chunks()) == {"a": 9.0}
