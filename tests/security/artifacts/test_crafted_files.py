"""Files that were crafted for what one kind of program does with them."""

import sqlite3
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.mapped_array import mapped_array, read_small
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.text_index import search as text_search
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from tests.components.jobs import clustered, make_job, make_snapshot, run

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def kind() -> TextIndex:
    return TextIndex(TextIndexParameters())


@pytest.fixture
def texts(kind: TextIndex, tmp_path: Path) -> Path:
    source = make_snapshot(clustered(30, 2), texts=[f"song {row}" for row in range(30)])
    [file] = run(kind, make_job(tmp_path / "work", source)).files.values()
    return file


def change(file: Path, statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.executescript(statements)


SCHEMA = "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') WHERE name = 'entries'"
STATEMENTS = {
    "an endless view in place of a table": f"""
        ALTER TABLE facts RENAME TO f;
        CREATE VIEW facts AS SELECT f.*, ({ENDLESS}) AS more FROM f""",  # noqa: S608 - on purpose
    "a view that nobody asks": f"CREATE VIEW unused AS {ENDLESS}",
    "a trigger": f"CREATE TRIGGER later AFTER UPDATE ON facts BEGIN {ENDLESS}; END",
    "a table": "CREATE TABLE more (x)",
    "an index over an expression": "CREATE INDEX by_expression ON entries (abs(row))",
    "a table named as FTS5 does": "CREATE TABLE terms_more (x DEFAULT (abs(-1)))",
    "another virtual table": "CREATE VIRTUAL TABLE terms_more USING fts5 (x)",
    "a check": SCHEMA.format("payload TEXT", "payload TEXT CHECK (1)"),
    "a generated column": SCHEMA.format("payload TEXT", "payload AS (id || id)"),
}


@pytest.mark.parametrize("statements", STATEMENTS.values(), ids=STATEMENTS)
def test_a_text_index_with_anything_but_its_tables_is_corrupt(
    kind: TextIndex, texts: Path, statements: str
) -> None:
    change(texts, statements)
    began = time.monotonic()
    with pytest.raises(CorruptFileError):
        kind.load({texts.name: texts})
    assert time.monotonic() - began < 5


def test_a_question_that_does_not_end_is_ended(
    kind: TextIndex, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_search, "QUERY_SECONDS", 0.2)
    with closing(kind.load({texts.name: texts})) as index:
        monkeypatch.setattr(text_search, "_SEARCH", f"SELECT ?, ({ENDLESS}), ?")
        with pytest.raises(CorruptFileError, match="does not end"):
            index.search("song")
        monkeypatch.undo()
        assert index.search("song", k=3)


def test_a_sample_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / SAMPLE
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.npy", b"0" * 50_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(CorruptFileError, match="more than it has"):
        QuerySample.load(path, rows=10, dimension=2)
    path.write_bytes(b"no archive")
    with pytest.raises(CorruptFileError):
        QuerySample.load(path, rows=10, dimension=2)


Craft = Callable[[Path], None]


def _saved(array: np.ndarray) -> Craft:
    return lambda path: np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize(
    "craft",
    [
        _saved(np.array([{"a": 1}], dtype=object)),
        _saved(np.zeros((3, 2), dtype=">f4")),
        _saved(np.asfortranarray(np.zeros((3, 2), dtype=np.float32))),
        _saved(np.zeros((3, 2, 1), dtype=np.float32)),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 60_000),
    ],
)
def test_an_array_that_is_not_the_one_expected_is_corrupt(tmp_path: Path, craft: Craft) -> None:
    path = tmp_path / "x.npy"
    craft(path)
    with pytest.raises(CorruptFileError):
        mapped_array(path, (None, 2), np.float32)


@pytest.mark.parametrize("count", [0, 3])
def test_the_one_expected_is_mapped_read_only(tmp_path: Path, count: int) -> None:
    path = tmp_path / "x.npy"
    array = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    np.save(path, array)
    mapped = mapped_array(path, (None, 2), np.float32)
    assert np.array_equal(mapped, array)
    assert not mapped.flags.writeable


def test_a_small_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    assert read_small(path, 4) == b"1234"
    with pytest.raises(CorruptFileError, match="more than 3 bytes"):
        read_small(path, 3)
