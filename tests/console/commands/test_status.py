"""Every command reports a source as `status` does, in the same words, and exits 3."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexrelay.console.commands.status import builds_of
from indexrelay.console.installation import Installation
from indexrelay.producers import Producer
from indexrelay.schemas.messages import RebuilderState
from indexrelay.schemas.progress import BuildProgress, BuildStep
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import EmbeddedServer
from tests.console.conftest import Run, build, commit
from tests.fixtures.postgresql import WITH_PASSWORD

pytestmark = pytest.mark.server

CONFIG = """
[collections.tracks]
dimension = 3

[collections.songs]
dimension = 3
source = {{ kind = "folder", path = "songs" }}

[collections.books]
dimension = 2
source = {{ kind = "table", url = "sqlite:///{books}", table = "books", text_column = "title" }}

[components.of_tracks]
kind = "embedding_cache"
from = "tracks"

[components.of_songs]
kind = "embedding_cache"
from = "songs"

[components.of_books]
kind = "embedding_cache"
from = "books"
"""
VECTOR = np.array([1, 2], np.float32).tobytes()


def fill(folder: Path) -> None:
    """Sources as they should be."""
    songs, books = folder / "songs", folder / "books.db"
    shutil.rmtree(songs, ignore_errors=True)
    songs.mkdir()
    vectors = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    np.save(songs / "some.npy", vectors)
    ids = np.array([f"n{number}" for number in range(50)])
    np.savez(songs / "named.npz", vectors=vectors, ids=ids)
    books.unlink(missing_ok=True)
    ask(folder, "CREATE TABLE books (id TEXT PRIMARY KEY, vector BLOB, title TEXT)")
    with closing(sqlite3.connect(books)) as database, database:
        database.executemany(
            "INSERT INTO books VALUES (?, ?, ?)", [(str(n), VECTOR, f"t{n}") for n in range(5)]
        )


def ask(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "books.db")) as database, database:
        database.execute(statement)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installation with three kinds of sources, all of it built."""
    folder = tmp_path_factory.mktemp("doors")
    config = folder / "indexrelay.toml"
    config.write_text(CONFIG.format(books=folder / "books.db"))
    fill(folder)
    with EmbeddedServer(folder / "indexrelay-data"):
        commit(config, "first", 20)
        with Installation.at(config) as installation:
            installation.catalog.collections.declare(
                "books", dimension=2, metric=installation.settings.collections["books"].metric
            )
            installation.producer.batch_completed("books")
        build(config)
        yield config


def truncated(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])


def moved(folder: Path) -> None:
    (folder / "songs").rename(folder / "elsewhere")
    shutil.rmtree(folder / "elsewhere")


def a_file(folder: Path) -> None:
    shutil.rmtree(folder / "songs")
    (folder / "songs").write_text("no folder")


def emptied(folder: Path) -> None:
    for file in (folder / "songs").iterdir():
        file.unlink()


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "folder moved": (moved, "songs", "cannot be read: No such file or directory"),
    "folder became a file": (a_file, "songs", "cannot be read: Not a directory"),
    "folder emptied": (emptied, "songs", "is empty now, and of_songs still serve(s)"),
    ".npy cut short": (
        lambda folder: truncated(folder / "songs/some.npy"),
        "songs",
        "some.npy: cannot be read",
    ),
    ".npz cut short": (
        lambda folder: truncated(folder / "songs/named.npz"),
        "songs",
        "named.npz: cannot be read",
    ),
    "another dimension": (
        lambda folder: np.save(folder / "songs/some.npy", np.ones((3, 4), np.float32)),
        "songs",
        "some.npy: vectors have shape (3, 4), they must have (rows, 3)",
    ),
    "table dropped": (
        lambda folder: ask(folder, "DROP TABLE books"),
        "books",
        "table 'books' of collection 'books' cannot be read: no such table: books",
    ),
    "table emptied": (
        lambda folder: ask(folder, "DELETE FROM books"),
        "books",
        "is empty now, and of_books still serve(s)",
    ),
    "column renamed": (
        lambda folder: ask(folder, "ALTER TABLE books RENAME COLUMN title TO name"),
        "books",
        "no such column: books.title",
    ),
    "column dropped": (
        lambda folder: ask(folder, "ALTER TABLE books DROP COLUMN vector"),
        "books",
        "no such column: books.vector",
    ),
    "database gone": (
        lambda folder: (folder / "books.db").unlink(),
        "books",
        "there is no SQLite database",
    ),
    "no database": (
        lambda folder: (folder / "books.db").write_bytes(b"?" * 4096),
        "books",
        "file is not a database",
    ),
}


def told_by_every_door(
    run: Run, config: Path, collection: str, *, rebuilds: bool, hidden: str | None = None
) -> str:
    """The one sentence that every door has of a collection that cannot be read."""
    sentences = set()
    doors: list[tuple[str, ...]] = [("status",), ("reconcile",), ("check",)]
    if rebuilds:  # it starts a rebuilder
        doors.append(("rebuild", "--here"))
    for door in doors:
        told = run(*door, "--json", "--config", str(config))
        assert told.out.startswith("{"), (door, told)
        document = json.loads(told.out)
        found = [each for each in document["problems"] if each["subject"] == collection]
        assert found, (door, document["problems"])
        assert told.code == 3, door
        assert not document["well"]
        assert hidden is None or hidden not in told.out + told.err, door
        # A command says it once: a line of the log beside its answer would be the same again.
        assert door[0] == "rebuild" or told.err == "", door
        sentences.add(found[0]["what"])
    [sentence] = sentences
    page = run("check", "--config", str(config))
    assert " ".join(sentence.split()) in " ".join(page.out.split())  # it may be wrapped there
    assert page.code == 3
    return str(sentence)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_that_cannot_be_read_is_reported_by_every_command_in_the_same_words(
    run: Run, installed: Path, fault: str
) -> None:
    break_it, collection, said = FAULTS[fault]
    folder = installed.parent
    break_it(folder)
    try:
        rebuilds = fault in {"folder moved", "table dropped"}
        assert said in told_by_every_door(run, installed, collection, rebuilds=rebuilds)
        if rebuilds:
            listed = run("collections", "--config", str(installed)).out.splitlines()
            [row] = (line for line in listed if line.strip().startswith(collection))
            assert row.rstrip().endswith("cannot be read")
    finally:
        if (folder / "songs").is_file():
            (folder / "songs").unlink()
        fill(folder)


SECRET = "hidden-5e2"
BOOKS = """
[collections.books]
dimension = 2
source = {{ kind = "table", url = "{url}", table = "books", text_column = "title" }}

[components.of_books]
kind = "embedding_cache"
from = "books"
"""


@dataclass(frozen=True)
class Books:
    """An installation whose one source is a table of PostgreSQL, read by a user of little."""

    config: Path
    owner: sa.Engine
    socket: Path

    def ask(self, *statements: str) -> None:
        with self.owner.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, postgresql_server: sa.URL) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("books")
    url = postgresql_server.set(username=WITH_PASSWORD, password=SECRET)
    books = Books(
        config=folder / "indexrelay.toml",
        owner=sa.create_engine(
            postgresql_server.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
        ),
        socket=Path(str(postgresql_server.query["host"]), ".s.PGSQL.5432"),
    )
    books.config.write_text(BOOKS.format(url=url.render_as_string(hide_password=False)))
    books.ask(
        'CREATE TABLE books (id text COLLATE "C" PRIMARY KEY, vector bytea, title text)',
        "INSERT INTO books VALUES ('a', '\\x0000803f00000040', 'one')",
        f"CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD '{SECRET}'",
        f"GRANT SELECT ON books TO {WITH_PASSWORD}",
    )
    try:
        with (
            EmbeddedServer(folder / "indexrelay-data"),
            Producer.open(load_settings(books.config, environ={})) as producer,
        ):
            producer.batch_completed("books")
            build(books.config)
            yield books
    finally:
        books.ask("DROP TABLE books", f"DROP ROLE {WITH_PASSWORD}")


def away(books: Books) -> None:
    books.socket.rename(books.socket.with_name("elsewhere"))


def back(books: Books) -> None:
    books.socket.with_name("elsewhere").rename(books.socket)


def asked(*statements: str) -> Callable[[Books], None]:
    return lambda books: books.ask(*(each.format(user=WITH_PASSWORD) for each in statements))


ON_POSTGRESQL: dict[str, tuple[Callable[[Books], None], Callable[[Books], None], str]] = {
    "wrong password": (
        asked("ALTER ROLE {user} PASSWORD 'other'"),
        asked(f"ALTER ROLE {{user}} PASSWORD '{SECRET}'"),
        f'password authentication failed for user "{WITH_PASSWORD}"',
    ),
    "no log-in": (
        asked("ALTER ROLE {user} NOLOGIN"),
        asked("ALTER ROLE {user} LOGIN"),
        f'role "{WITH_PASSWORD}" is not permitted to log in',
    ),
    "no permission": (
        asked("REVOKE SELECT ON books FROM {user}"),
        asked("GRANT SELECT ON books TO {user}"),
        "permission denied for table books",
    ),
    "no permission on a column": (
        asked(
            "REVOKE SELECT ON books FROM {user}",
            "GRANT SELECT (id, vector) ON books TO {user}",
        ),
        asked("GRANT SELECT ON books TO {user}"),
        "permission denied for table books",
    ),
    "missing table": (
        asked("ALTER TABLE books RENAME TO gone"),
        asked("ALTER TABLE gone RENAME TO books"),
        'relation "books" does not exist',
    ),
    "missing column": (
        asked("ALTER TABLE books RENAME COLUMN title TO name"),
        asked("ALTER TABLE books RENAME COLUMN name TO title"),
        "column books.title does not exist",
    ),
    "server away": (away, back, "No such file or directory"),
}


@pytest.mark.postgresql
@pytest.mark.parametrize("fault", ON_POSTGRESQL)
def test_a_table_of_postgresql_is_reported_without_its_password(
    run: Run, books: Books, fault: str
) -> None:
    break_it, mend_it, said = ON_POSTGRESQL[fault]
    break_it(books)
    try:
        rebuilds = fault == "wrong password"
        sentence = told_by_every_door(run, books.config, "books", rebuilds=rebuilds, hidden=SECRET)
    finally:
        mend_it(books)
    assert "table 'books' of collection 'books' cannot be read" in sentence
    assert said in sentence
    well = run("check", "--config", str(books.config))
    assert (well.code, "each source can be read: books" in well.out) == (0, True)


def test_a_check_makes_nothing_and_reports_that_each_source_can_be_read(
    run: Run, tmp_path: Path
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG.format(books=tmp_path / "books.db"))
    fill(tmp_path)
    said = run("check", "--config", str(config))
    assert said.code == 0
    assert "each source can be read: books, songs" in said.out
    assert not (tmp_path / "indexrelay-data").exists()
    moved(tmp_path)
    assert run("check", "--config", str(config)).code == 3
    assert not (tmp_path / "indexrelay-data").exists()


def test_a_rebuilder_s_builds_are_shown_with_how_far_they_are() -> None:
    now = datetime.now(UTC)
    state = RebuilderState(
        rebuilder="r",
        host="h",
        pid=1,
        started_at=now,
        updated_at=now,
        release=0,
        building=("index", "map", "texts"),
        progress={
            "index": BuildProgress(step=BuildStep.BUILDING, share=0.4, started_at=now),
            "map": BuildProgress(step=BuildStep.VERIFYING, started_at=now),
        },
    )
    assert list(builds_of(state)) == ["index (building, 40%)", "map (verifying)", "texts"]
