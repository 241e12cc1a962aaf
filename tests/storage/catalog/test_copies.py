"""A copy of a catalog is of one moment, and goes into an empty catalog of either database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog, Commit, copies
from indexrelay.storage.catalog.schema import metadata
from indexrelay.storage.errors import CatalogCopyError, CatalogNotEmptyError
from indexrelay.testing import FakeClock
from tests.storage.rows import entries, flat, ids_of, values_of


@pytest.fixture
def filled(tracks: Catalog, clock: FakeClock) -> Catalog:
    """Something in most of the tables, of every type of column."""
    tracks.collections.declare("unused", dimension=3, metric=Metric.COSINE)
    tracks.entries.commit("tracks", "one", upserts=[entries("a", "b", "ü\U0001f600")], deletes=[])
    tracks.entries.commit("tracks", "two", upserts=[entries("c", value=2.5)], deletes=["b"])
    tracks.attempts.failed(
        "map", error="no disk", inputs="f" * 64, targets={"tracks": 2}, transient=True
    )
    tracks.attempts.pause("map", "for now")
    tracks.release_record.note(41)
    return tracks


@pytest.fixture
def empty(tmp_path: Path, clock: FakeClock) -> Iterator[Catalog]:
    """Another catalog, in SQLite, to which nothing was committed."""
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'other' / 'catalog.db'}", clock=clock)
    yield catalog
    catalog.close()


def rows_of(catalog: Catalog) -> dict[str, Any]:
    """All rows of all tables, but what `go_on_above` changes."""
    found: dict[str, Any] = {}
    with catalog._database.read() as connection:
        for table in metadata.sorted_tables:
            columns = [
                each
                for each in table.columns
                if not (
                    table.name == "indexrelay_collections"
                    and each.name in ("generation", "floor", "restored")
                )
            ]
            rows = {tuple(map(str, row)) for row in connection.execute(select(*columns))}
            found[table.name] = {row for row in rows if "restored-" not in str(row)}
    return found


def written(catalog: Catalog, tmp_path: Path) -> Path:
    copy = tmp_path / "copy.db"
    catalog.write_copy(copy)
    return copy


def test_a_copy_brings_every_row_into_an_empty_catalog(
    filled: Catalog, empty: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    copy = written(filled, tmp_path)
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]
    assert copies.generations_in(copy) == {"tracks": 2, "unused": 0}
    # What a rebuilder declares when it starts does not count.
    empty.collections.declare("tracks", dimension=9, metric=Metric.COSINE)
    with empty.importing(copy, copied_at=clock.now()) as imported:
        pass
    assert imported.release == 41
    assert imported.generations == {"tracks": 3, "unused": 1}
    assert rows_of(empty) == rows_of(filled)
    with empty.entries.snapshot("tracks") as snapshot:
        assert values_of(snapshot.chunks()) == {"a": 1.0, "c": 2.5, "ü\U0001f600": 1.0}
    # The same batch is known, and another one gets the next number.
    again = empty.entries.commit("tracks", "two", upserts=[entries("c", value=2.5)], deletes=["b"])
    assert (again.repeated, again.generation) == (True, 2)
    new = empty.entries.commit("tracks", "new", upserts=[entries("d")], deletes=[])
    assert (new.repeated, new.generation) == (False, 4)


def test_who_tells_people_is_whoever_runs_and_not_who_did_when_the_copy_was_made(
    filled: Catalog, empty: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    filled.notices.take("then", seen=None)
    running = empty.notices.take("now", seen=None)
    with empty.importing(written(filled, tmp_path), copied_at=clock.now()):
        pass
    assert empty.notices.read() == running


def test_a_copy_goes_into_either_database_and_its_keys_go_on(
    catalog: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    source = Catalog.open(f"sqlite:///{tmp_path / 'source' / 'catalog.db'}", clock=clock)
    with closing(source):
        for name in ("tracks", "albums"):
            source.collections.declare(name, dimension=4, metric=Metric.L2)
            source.entries.commit(name, "one", upserts=[entries("a", "b")], deletes=[])
        source.entries.commit("tracks", "two", upserts=[], deletes=["b"])
        copy = written(source, tmp_path)
        with catalog.importing(copy, copied_at=clock.now()):
            pass
        assert rows_of(catalog) == rows_of(source)
    # A key of a collection is never used twice: its entries would be another's.
    catalog.collections.declare("third", dimension=4, metric=Metric.L2)
    catalog.entries.commit("third", "one", upserts=[entries("x")], deletes=[])
    for name, ids in {"tracks": ["a"], "albums": ["a", "b"], "third": ["x"]}.items():
        with catalog.entries.snapshot(name) as snapshot:
            assert ids_of(snapshot.chunks()) == ids


def test_what_is_committed_while_a_copy_is_written_is_not_in_it(
    filled: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_PAGES", 1)
    committed: list[Commit] = []

    def meanwhile(*_: object) -> None:
        number = len(committed)
        more = entries(*(f"more-{number}-{each}" for each in range(40)))
        committed.append(
            filled.entries.commit("tracks", f"more-{number}", upserts=[more], deletes=["a"])
        )

    copy_table = copies._copy_table

    def copied(source: Any, target: Any, table: Any) -> None:
        meanwhile()
        copy_table(source, target, table)

    monkeypatch.setattr(copies, "_nothing", meanwhile)
    monkeypatch.setattr(copies, "_copy_table", copied)
    copy = written(filled, tmp_path)
    assert len(committed) > 5
    with closing(sqlite3.connect(copy)) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = found.execute("SELECT id, generation, deleted FROM indexrelay_entries").fetchall()
        batches = found.execute("SELECT batch_id FROM indexrelay_batches").fetchall()
    assert {row[0] for row in rows} == {"a", "b", "c", "ü\U0001f600"}
    assert max(row[1] for row in rows) == copies.generations_in(copy)["tracks"] == 2
    assert [id_ for id_, _, deleted in rows if deleted] == ["b"]
    assert set(batches) == {("one",), ("two",)}


def test_tables_of_others_are_not_in_a_copy(
    filled: Catalog, empty: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    with filled._database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE salaries (name TEXT, amount INTEGER)")
        connection.exec_driver_sql("INSERT INTO salaries VALUES ('somebody in particular', 1)")
    copy = written(filled, tmp_path)
    assert b"somebody in particular" not in copy.read_bytes()
    with empty.importing(copy, copied_at=clock.now()):
        pass
    assert rows_of(empty) == rows_of(filled)


def test_what_was_committed_since_the_copy_never_gets_its_number_again(
    filled: Catalog, empty: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    copied_at = clock.now()
    copy = written(filled, tmp_path)
    clock.advance(3.5)
    with empty.importing(copy, copied_at=copied_at) as imported:
        pass
    assert imported.generations == {"tracks": 400_003, "unused": 400_001}
    log = empty.collections.log("tracks", [2, 3])
    assert (log.restored, log.generation) == (400_003, 400_003)
    assert not log.lost(400_002, "the stamp of what is lost")
    assert log.batch_ids[2] == "two"
    with empty.entries.snapshot("tracks") as snapshot:
        assert snapshot.changes(2) is None  # what went since then is not known: a full build
    # A copy from the future, by a clock that was wrong, goes on above what ten years can take.
    later = Catalog.open(f"sqlite:///{tmp_path / 'later' / 'catalog.db'}", clock=clock)
    with closing(later), later.importing(copy, copied_at=clock.now() + timedelta(days=9)) as found:
        assert found.generations["tracks"] > 10 * 365 * 86_400 * 100_000


def test_a_catalog_with_commits_is_not_replaced(
    catalog: Catalog, clock: FakeClock, empty: Catalog, tmp_path: Path
) -> None:
    copy = written(empty, tmp_path)
    catalog.check_empty()
    catalog.collections.declare("tracks", dimension=4, metric=Metric.L2)
    catalog.entries.commit("tracks", "one", upserts=[entries("a")], deletes=[])
    before = rows_of(catalog)
    with pytest.raises(CatalogNotEmptyError, match="holds tracks already"):
        catalog.check_empty()
    with pytest.raises(CatalogNotEmptyError), catalog.importing(copy, copied_at=clock.now()):
        pytest.fail("nothing is to be done")
    assert rows_of(catalog) == before


def test_an_import_that_is_not_finished_leaves_nothing(
    catalog: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    source = Catalog.open(f"sqlite:///{tmp_path / 'source' / 'catalog.db'}", clock=clock)
    with closing(source):
        source.collections.declare("tracks", dimension=4, metric=Metric.L2)
        source.entries.commit("tracks", "one", upserts=[entries("a")], deletes=[])
        copy = written(source, tmp_path)
    before = rows_of(catalog)
    with pytest.raises(KeyboardInterrupt), catalog.importing(copy, copied_at=clock.now()):
        raise KeyboardInterrupt
    assert rows_of(catalog) == before


@pytest.mark.parametrize(
    "damage", ["no database", "cut short", "altered", "a trigger", "a view", "another", "later"]
)
def test_a_file_that_is_no_sound_copy_is_refused_and_nothing_of_it_is_run(
    empty: Catalog, clock: FakeClock, tmp_path: Path, damage: str
) -> None:
    source = Catalog.open(f"sqlite:///{tmp_path / 'source' / 'catalog.db'}", clock=clock)
    with closing(source):
        source.collections.declare("tracks", dimension=4, metric=Metric.L2)
        for number in range(20):
            ids = [f"{number}-{each}" for each in range(50)]
            source.entries.commit("tracks", f"{number}", upserts=[entries(*ids)], deletes=[])
        copy = written(source, tmp_path)
    whole = copy.read_bytes()
    statements = {
        "a trigger": "CREATE TRIGGER t AFTER UPDATE ON indexrelay_collections BEGIN "
        "DELETE FROM indexrelay_entries; END",
        "a view": "CREATE VIEW more AS SELECT * FROM indexrelay_entries",
        "another": "DROP TABLE indexrelay_schema",
        "later": "UPDATE indexrelay_schema SET version = 99",
    }
    if damage in statements:
        with closing(sqlite3.connect(copy)) as changed, changed:
            changed.execute(statements[damage])
    elif damage == "no database":
        copy.write_bytes(b"no database " * 1000)
    elif damage == "cut short":
        copy.write_bytes(whole[: len(whole) // 2])
    else:
        middle = len(whole) // 2
        copy.write_bytes(whole[:middle] + b"\xff" * 9000 + whole[middle + 9000 :])
    with pytest.raises(CatalogCopyError, match="is no copy of a catalog"):  # noqa: SIM117
        with empty.importing(copy, copied_at=clock.now()):
            pytest.fail("nothing is to be done")
    assert empty.collections.all() == []


def test_a_copy_of_an_earlier_release_gets_the_columns_that_came_since(
    empty: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    source = Catalog.open(f"sqlite:///{tmp_path / 'source' / 'catalog.db'}", clock=clock)
    with closing(source):
        source.collections.declare("tracks", dimension=4, metric=Metric.L2)
        source.entries.commit("tracks", "one", upserts=[entries("a")], deletes=[])
        copy = written(source, tmp_path)
    with closing(sqlite3.connect(copy)) as changed, changed:
        changed.execute("ALTER TABLE indexrelay_batches DROP COLUMN digest")
        changed.execute("DROP TABLE indexrelay_answers")
    with empty.importing(copy, copied_at=clock.now()):
        pass
    with empty.entries.snapshot("tracks") as snapshot:
        changes = snapshot.changes(1)
        assert changes is None
        assert flat([ids_of(snapshot.chunks())]) == ["a"]
