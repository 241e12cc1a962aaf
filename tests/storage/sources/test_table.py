from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from indexrelay.schemas.settings import Metric
from indexrelay.schemas.urls import sqlite_url
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import SourceError
from indexrelay.storage.sources.table import TableQueries
from tests.storage.rows import ids_of
from tests.storage.sources.conftest import OpenSource


class UserTable:
    """A user's database with one table whose names all need quoting."""

    def __init__(self, url: str) -> None:
        self.url = url
        driver = url.replace("postgresql:", "postgresql+psycopg:")
        self._engine = sa.create_engine(driver, poolclass=sa.NullPool)
        if url.startswith("sqlite"):  # in its other modes no writer gets in beside a reader
            self.run("PRAGMA journal_mode = WAL")
        self._binary = "BYTEA" if url.startswith("postgresql") else "BLOB"
        self.run(
            f'CREATE TABLE "Select" ("Order" TEXT, "Group" {self._binary}, "From" TEXT,'
            " payload TEXT, updated_at INTEGER)"
        )

    def run(self, statement: str, **parameters: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement), parameters)

    def add(self, id_: Any, vector: Any = None, **columns: Any) -> None:
        if vector is None:
            vector = np.full(4, 1.0, np.float32).tobytes()
        row = {"text": None, "payload": None, "at": 1, **columns}
        self.run(
            'INSERT INTO "Select" VALUES (:id, :vector, :text, :payload, :at)',
            id=id_,
            vector=vector,
            **row,
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "kind": "table",
            "url": self.url,
            "table": "Select",
            "id_column": "Order",
            "vector_column": "Group",
            "text_column": "From",
            "payload_column": "payload",
            "updated_at_column": "updated_at",
            **more,
        }


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> UserTable:
    if request.param == "sqlite":
        return UserTable(f"sqlite:///{tmp_path / 'user.db'}")
    return UserTable(request.getfixturevalue("postgresql_url"))


def _read(source: Any, rows: int = 10) -> Iterator[Any]:
    with source.snapshot() as snapshot:
        yield from snapshot.chunks(rows)


def test_rows_come_in_byte_order_with_all_their_columns(
    opened: OpenSource, table: UserTable
) -> None:
    table.add("b", text="text", payload='{"a":1}')
    for id_ in ("ä", "A", "a", "B", "🎵", "\ufffd"):
        table.add(id_)

    source = opened(**table.settings())
    chunks = list(_read(source, rows=3))

    ids = ids_of(chunks)
    assert ids == ["A", "B", "a", "b", "ä", "\ufffd", "🎵"] == sorted(ids, key=str.encode)
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert chunks[1].texts == ["text", None, None]
    assert chunks[1].payloads == ['{"a":1}', None, None]
    assert chunks[0].vectors.tolist() == [[1.0] * 4] * 3
    with source.snapshot() as snapshot:
        assert snapshot.count == 7
        assert snapshot.changes(0) is None


def test_ids_of_another_type_become_text_in_the_order_of_that_text(
    opened: OpenSource, table: UserTable
) -> None:
    table.run(f"CREATE TABLE numbered (id INTEGER, vector {table._binary})")
    for number in (2, 10, 1):
        table.run(
            "INSERT INTO numbered VALUES (:id, :vector)",
            id=number,
            vector=np.ones(4, np.float32).tobytes(),
        )

    chunks = list(_read(opened(kind="table", url=table.url, table="numbered")))

    assert ids_of(chunks) == ["1", "10", "2"]
    assert chunks[0].texts == chunks[0].payloads == [None] * 3


def test_vectors_may_be_json_text(opened: OpenSource, table: UserTable) -> None:
    table.run("CREATE TABLE written (id TEXT, vector TEXT)")
    table.run("INSERT INTO written VALUES ('a', '[1, 2.5, -3, 4e-1]')")

    (chunk,) = _read(opened(kind="table", url=table.url, table="written"))

    assert chunk.vectors.tolist() == [[1.0, 2.5, -3.0, np.float32(0.4)]]


@pytest.mark.postgresql
def test_vectors_and_payloads_may_be_what_a_driver_decoded(
    opened: OpenSource, postgresql_url: str
) -> None:
    table = UserTable(postgresql_url)
    table.run("CREATE TABLE typed (id UUID, vector REAL[], payload JSONB)")
    table.run(
        "INSERT INTO typed VALUES ('00000000-0000-0000-0000-00000000000A', '{1,2,3,4}', '[1]')"
    )

    (chunk,) = _read(opened(kind="table", url=table.url, table="typed", payload_column="payload"))

    assert chunk.ids == ["00000000-0000-0000-0000-00000000000a"]
    assert chunk.vectors.tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert chunk.payloads == ["[1]"]


def test_the_table_is_numbered_when_its_newest_change_or_its_count_differs(
    opened: OpenSource, table: UserTable
) -> None:
    source = opened(**table.settings())
    assert source.observe() == 1
    table.add("a", at=5)
    assert [source.observe(), source.observe()] == [2, 2]
    table.run('UPDATE "Select" SET updated_at = 6')
    assert source.observe() == 3
    table.add("b", at=1)
    with source.snapshot() as snapshot:
        assert (snapshot.generation, snapshot.count) == (4, 2)


def test_without_an_updated_at_column_only_a_mark_says_that_there_is_something_new(
    opened: OpenSource, table: UserTable, catalog: Catalog
) -> None:
    source = opened(**table.settings(updated_at_column=None))
    assert source.observe() == 0
    table.add("a")
    assert source.observe() == 0
    catalog.entries.mark("tracks", "b1")
    assert source.observe() == 1


def test_a_snapshot_sees_one_moment_and_does_not_cover_what_came_later(
    opened: OpenSource, table: UserTable
) -> None:
    for id_ in "abc":
        table.add(id_)
    source = opened(**table.settings())

    with source.snapshot() as snapshot:
        chunks = snapshot.chunks(rows=2)
        first = next(chunks)
        table.add("d", at=9)
        assert [*first.ids, *ids_of(chunks)] == ["a", "b", "c"]
        assert ids_of(snapshot.chunks()) == ["a", "b", "c"]
        assert snapshot.generation == 1
    assert source.observe() == 2


@pytest.mark.parametrize(
    ("id_", "row", "problem"),
    [
        (
            "short",
            {"vector": b"abc"},
            r"of 3 bytes, not of 4 float32 values .*: id 'short'",
        ),
        ("nan", {"vector": np.full(4, np.nan, np.float32).tobytes()}, "NaN.*: id 'nan'"),
        ("p", {"payload": "{"}, "payload that is no JSON value .*: id 'p'"),
        ("", {}, "id that is empty: id ''"),
        (None, {}, "id that is missing: id None"),
        ("zero", {"vector": bytes(16)}, "zero vector.*: id 'zero'"),
        ("good", {}, "given more than once: id 'good'"),
    ],
)
def test_bad_rows_are_named_by_id(
    opened: OpenSource, table: UserTable, id_: Any, row: dict[str, Any], problem: str
) -> None:
    table.add("good")
    table.add(id_, **row)
    source = opened(Metric.COSINE, **table.settings())

    for rows in (1, 10):
        with pytest.raises(SourceError, match=f"table 'Select' of collection 'tracks'.*{problem}"):
            list(_read(source, rows))


@pytest.mark.parametrize("text", ["[1, 2", '{"a": 1}', "7", '["x", 1, 2, 3]', "[1, 2]", "[[1], 2]"])
def test_a_vector_that_is_no_json_array_of_numbers_is_refused(
    opened: OpenSource, table: UserTable, text: str
) -> None:
    table.run("CREATE TABLE written (id TEXT, vector TEXT)")
    table.run("INSERT INTO written VALUES ('good', '[1,2,3,4]'), ('odd', :text)", text=text)

    with pytest.raises(SourceError, match="id 'odd'"):
        list(_read(opened(kind="table", url=table.url, table="written")))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (r'{"title": "half \ud83c"}', r"\$\.title: 'half \\ud83c' holds half a character"),
        ('{"n": NaN}', "NaN has no place in JSON; give null"),
        ('{"n": [1e999]}', r"\$\.n\[0\]: inf has no place in JSON"),
        ('{"n": 1, "n": 2}', "the key 'n' is given twice"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ("9" * 5000, "digits"),
    ],
    ids=["half", "nan", "infinity", "twice", "deep", "digits"],
)
def test_a_payload_that_a_batch_would_refuse_is_refused_by_its_row(
    opened: OpenSource, table: UserTable, payload: str, said: str
) -> None:
    table.add("good", payload='{"n": 1}')
    table.add("odd", payload=payload)
    with pytest.raises(SourceError, match=rf"payload that is no JSON value .*{said}.*: id 'odd'"):
        list(_read(opened(**table.settings())))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize(("value", "said"), [(1e19, "longer"), (1e-30, "shorter")])
def test_a_vector_whose_square_leaves_float32_is_refused_by_its_row(
    opened: OpenSource, table: UserTable, metric: Metric, value: float, said: str
) -> None:
    table.add("good")
    table.add("odd", np.full(4, value, np.float32).tobytes())
    with pytest.raises(SourceError, match=f"vector {said} than .*: id 'odd'"):
        list(_read(opened(metric, **table.settings())))


def test_a_row_without_a_vector_is_left_out_counted_and_comes_when_it_has_one(
    opened: OpenSource, table: UserTable
) -> None:
    table.add("a")
    table.run(
        "INSERT INTO \"Select\" VALUES ('b', NULL, 'words', '{}', 1), ('c', NULL, NULL, '{', 1)"
    )
    source = opened(**table.settings())
    assert source.left_out() == {"without_vector": 2}
    with source.snapshot() as snapshot:
        assert (snapshot.count, snapshot.left_out) == (1, {"without_vector": 2})
        assert ids_of(snapshot.chunks()) == ["a"]
    generation = source.observe()
    vector = np.full(4, 2.0, np.float32).tobytes()
    table.run(
        'UPDATE "Select" SET "Group" = :v, payload = NULL, updated_at = 2 WHERE "Order" != :a',
        v=vector,
        a="a",
    )
    assert source.observe() == generation + 1
    with source.snapshot() as snapshot:
        assert (snapshot.count, snapshot.left_out) == (3, {})
        assert ids_of(snapshot.chunks()) == ["a", "b", "c"]
    assert source.left_out() == {}


def test_a_row_without_a_vector_is_named_where_each_must_have_one(
    opened: OpenSource, table: UserTable
) -> None:
    table.add("a")
    table.run("INSERT INTO \"Select\" VALUES ('b', NULL, NULL, NULL, 1)")
    source = opened(**table.settings(on_missing_vector="fail"))
    assert source.left_out() == {}
    with pytest.raises(SourceError, match=r'no vector \(NULL\).* = "skip".*: id \'b\''):
        list(_read(source))


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (b"", r"vector of 0 bytes, .* has NULL"),
        (bytes(12), "vector of 12 bytes, not of 4 float32 values"),
        (np.ones(4).tobytes(), "vector of 32 bytes.*are these float64 values"),
        ("", "vector text that is no JSON array"),
        ("null", "JSON, but null and no array; .* NULL"),
        ("3.5", "JSON, but a number and no array"),
        ('{"0": 1}', "JSON, but an object and no array"),
        ("[1, 2, 3]", "vector of 3 numbers, not of 4"),
        ("[1, null, 3, 4]", r"has null in place of a number \(at 1\)"),
        ('[1, 2, "x", 4]', r"has a text in place of a number \(at 2\)"),
        ("[1, 2, 3, true]", r"has true or false in place of a number \(at 3\)"),
        ("[1, 2, 3, [4]]", r"has an array in place of a number \(at 3\)"),
        ("[1, 2, 3, NaN]", "NaN or infinity"),
        ("[1, 2, 3, 1e39]", "longer than"),
        (7, "vector of type int, neither bytes nor a JSON array"),
    ],
    ids=str,
)
def test_a_vector_that_is_wrong_is_called_what_it_is(
    opened: OpenSource, tmp_path: Path, vector: object, said: str
) -> None:
    table = UserTable(f"sqlite:///{tmp_path / 'user.db'}")  # whose columns take values of any type
    table.add("good")
    table.add("odd", vector)
    with pytest.raises(SourceError, match=f"{said}.*: id 'odd'$"):
        list(_read(opened(**table.settings())))


def test_a_table_or_column_that_is_not_there_is_a_source_error(
    opened: OpenSource, table: UserTable
) -> None:
    table.add("a")
    with pytest.raises(SourceError, match="'gone' of collection 'tracks' cannot be read"):
        opened(**table.settings(table="gone")).observe()
    with pytest.raises(SourceError, match="cannot be read"):
        list(_read(opened(**table.settings(vector_column="gone"))))


@pytest.mark.parametrize("name", ["a?b", "a%41", "a#b;c", "ünï"])
def test_a_table_is_read_whatever_the_folder_of_its_database_is_called(
    opened: OpenSource, tmp_path: Path, name: str
) -> None:
    for number, folder in enumerate((name, "aA", "a")):
        (tmp_path / folder).mkdir()
        table = UserTable(sqlite_url(tmp_path / folder / "user.db"))
        table.add(f"in folder {number}")
    url = sqlite_url(tmp_path / name / "user.db")
    source = opened(**{**table.settings(), "url": url})
    assert ids_of(_read(source)) == ["in folder 0"]


def test_a_missing_sqlite_file_is_not_made(opened: OpenSource, tmp_path: Path) -> None:
    source = opened(kind="table", url=f"sqlite:///{tmp_path / 'gone.db'}", table="t")
    with pytest.raises(SourceError, match="no SQLite database"):
        source.observe()
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    "url", ["nosuch://host/db", "mysql+nosuch://me:secret@host/db", "mysql://me:x@y:secret@host/db"]
)
def test_an_unusable_url_is_refused_without_repeating_it(opened: OpenSource, url: str) -> None:
    with pytest.raises(SourceError, match=r"source\.url cannot be used") as refused:
        opened(kind="table", url=url, table="t", updated_at_column="u").observe()
    assert "secret" not in str(refused.value)


def test_a_database_that_sorts_otherwise_is_noticed(
    opened: OpenSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = UserTable(f"sqlite:///{tmp_path / 'user.db'}")
    table.run("CREATE TABLE folded (id TEXT COLLATE NOCASE, vector BLOB)")
    for id_ in ("a", "B"):
        table.run("INSERT INTO folded VALUES (:id, :v)", id=id_, v=np.ones(4, np.float32).tobytes())
    source = opened(kind="table", url=table.url, table="folded")
    assert ids_of(_read(source)) == ["B", "a"]

    # As for a dialect of which we do not know how to ask for the order of bytes.
    init = TableQueries.__init__
    monkeypatch.setattr(TableQueries, "__init__", lambda self, s, _: init(self, s, "other"))
    with pytest.raises(SourceError, match="sorts 'a' before 'B', not by bytes"):
        list(_read(opened(kind="table", url=table.url, table="folded")))
