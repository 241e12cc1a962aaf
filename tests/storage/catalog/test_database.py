import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import BatchContentError, CatalogUrlError, CatalogVersionError
from indexrelay.storage.urls import connect_arguments, driver_url
from tests.storage.rows import entries, ids_of


def test_what_was_written_is_there_when_it_is_opened_again(tracks: Catalog, url: str) -> None:
    tracks.entries.commit("tracks", "b1", upserts=[entries("a")], deletes=[])
    tracks.close()
    tracks.close()

    again = Catalog.open(url)
    with again.entries.snapshot("tracks") as snapshot:
        assert ids_of(snapshot.chunks()) == ["a"]
    again.close()


def test_a_backup_that_is_moved_into_its_place_is_what_an_open_catalog_reads_and_writes(
    tmp_path: Path,
) -> None:
    file, backup = tmp_path / "catalog.db", tmp_path / "backup.db"
    with closing(Catalog.open(f"sqlite:///{file}")) as catalog:
        catalog.collections.declare("tracks", dimension=4, metric=Metric.L2)
        with sqlite3.connect(file) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        source.close()
        target.close()
        catalog.entries.commit("tracks", "lost", upserts=[entries("a")], deletes=[])
        for name in ("catalog.db-wal", "catalog.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        backup.replace(file)
        assert catalog.collections.get("tracks").generation == 0
        catalog.entries.commit("tracks", "kept", upserts=[entries("b")], deletes=[])
    with (
        closing(Catalog.open(f"sqlite:///{file}")) as again,
        again.entries.snapshot("tracks") as snapshot,
    ):
        assert ids_of(snapshot.chunks()) == ["b"]


def test_opening_does_not_wait_for_a_writer(tracks: Catalog, url: str) -> None:
    with tracks._database.write() as connection:
        connection.exec_driver_sql("UPDATE indexrelay_collections SET generation = 5")
        other = Catalog.open(url)
        assert other.collections.get("tracks").generation == 0
        other.collections.declare("tracks", dimension=4, metric=other.collections.all()[0].metric)
        other.close()


def test_a_catalog_of_another_version_is_refused(catalog: Catalog, url: str) -> None:
    with catalog._database.write() as connection:
        connection.exec_driver_sql("UPDATE indexrelay_schema SET version = 99")

    with pytest.raises(CatalogVersionError, match=r"version 99.*version 1; upgrade indexrelay"):
        Catalog.open(url)


def test_a_catalog_of_an_earlier_release_gets_the_columns_that_it_lacks(
    tracks: Catalog, url: str
) -> None:
    tracks.entries.commit("tracks", "old", upserts=[entries("a")], deletes=[])
    failed = tracks.attempts.failed("voyager", error="broken", inputs="i", targets={})
    with tracks._database.write() as connection:
        for table, column in (
            ("batches", "digest"),
            ("collections", "restored"),
            ("attempts", "first_failed_at"),
        ):
            connection.exec_driver_sql(f"ALTER TABLE indexrelay_{table} DROP COLUMN {column}")
    tracks.close()

    again = Catalog.open(url)
    assert set(again.migrated) == {
        "indexrelay_batches.digest",
        "indexrelay_collections.restored",
        "indexrelay_attempts.first_failed_at",
    }
    # What was committed before says nothing of its content: the same id is taken for the same.
    old = again.entries.commit("tracks", "old", upserts=[entries("b")], deletes=[])
    assert (old.generation, old.repeated) == (1, True)
    new = again.entries.commit("tracks", "new", upserts=[entries("b")], deletes=[])
    assert new.generation == 2
    with pytest.raises(BatchContentError):
        again.entries.commit("tracks", "new", upserts=[entries("c")], deletes=[])
    # When it failed first was not noted; the failure that was is what is known.
    assert again.attempts.all() == {"voyager": failed}
    once_more = again.attempts.failed("voyager", error="broken", inputs="i", targets={})
    assert (once_more.failures, once_more.first_failed_at) == (2, failed.failed_at)
    assert again.collections.restore("tracks", above=7) == 8
    again.close()


def test_a_catalog_of_an_earlier_release_gets_the_table_that_it_lacks(
    tracks: Catalog, url: str
) -> None:
    with tracks._database.write() as connection:
        connection.exec_driver_sql("DROP TABLE indexrelay_letters_let_go")
    tracks.close()
    again = Catalog.open(url)
    assert again.migrated == ("indexrelay_letters_let_go",)
    assert tracks.migrated == ()
    assert again.dead_letters.dropped() is None
    assert again.collections.get("tracks").name == "tracks"
    again.close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://me:secret@host/db"]
)
def test_a_url_that_can_hold_no_catalog_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(CatalogUrlError) as refused:
        Catalog.open(url)
    assert "secret" not in str(refused.value)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("indexrelay.storage.urls.find_spec", lambda _: None)

    with pytest.raises(MissingExtraError, match=r"indexrelay\[postgresql\]"):
        Catalog.open("postgresql://host/db")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg_3(scheme: str) -> None:
    assert driver_url(f"{scheme}://me@host/db").drivername == "postgresql+psycopg"


def test_a_server_that_is_away_is_not_waited_for_by_minutes_unless_somebody_says_so() -> None:
    ours = connect_arguments(driver_url("postgresql://host/db"))
    assert ours["connect_timeout"] == 10
    # One that goes away while a connection is open does so after half a minute.
    probes = ours["keepalives_idle"] + ours["keepalives_interval"] * ours["keepalives_count"]
    assert (probes, ours["tcp_user_timeout"]) == (30, 30_000)
    theirs = "&".join(f"{name}=60" for name in ours)
    assert connect_arguments(driver_url(f"postgresql://host/db?{theirs}")) == {}
    assert connect_arguments(driver_url("sqlite:///file.db")) == {}


def test_sqlite_keeps_every_commit_through_a_power_cut(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    with catalog._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    catalog.close()


@pytest.mark.postgresql
def test_postgresql_does_not_try_to_compress_vectors(postgresql_url: str) -> None:
    catalog = Catalog.open(postgresql_url)
    with catalog._database.read() as connection:
        storage = connection.execute(
            sa.text(
                "SELECT attstorage FROM pg_attribute "
                "WHERE attrelid = 'indexrelay_entries'::regclass AND attname = 'vector'"
            )
        ).scalar()
    catalog.close()
    assert storage in ("e", b"e")
