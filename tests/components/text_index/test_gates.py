"""The gates of a text index fail on what they are there for, and on nothing else."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.text_index import DATABASE, TextIndex, TextIndexParameters
from tests.components.jobs import MemorySnapshot, make_job, make_snapshot, run
from tests.components.text_index.songs import KIND, next_of, row, songs

TEXTS = [
    "Read a CSV file row by row.",
    "Split a path into folder and name.",
    "Caf\u00e9 au lait, and a na\u00efve question.",
    None,
    "Read a file, line by line; reading files is what this reads.",
    "",
]


def snapshot() -> MemorySnapshot:
    return make_snapshot(np.ones((len(TEXTS), 2), dtype=np.float32), texts=TEXTS)


CHANGES = {
    "count": "DELETE FROM entries WHERE row = 128",
    "ids_unique": "UPDATE entries SET id = 'e000000' WHERE row = 128",
    "entries_match_source": "UPDATE entries SET payload = '{}' WHERE row = 128",
    "found_as_asked": "DELETE FROM terms_data WHERE id > 10",
    "frequencies": "UPDATE frequencies SET texts = 7 WHERE term = 'csv'",
    "has_texts": "UPDATE facts SET findable = 0",
    "integrity": "UPDATE terms_data SET block = x'00' WHERE id > 10",
}


@pytest.mark.parametrize("gate", CHANGES)
def test_each_gate_fails_on_what_it_is_there_for(tmp_path: Path, gate: str) -> None:
    kind = TextIndex(TextIndexParameters())
    job = make_job(tmp_path, snapshot())
    built = kind.build(job)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute(CHANGES[gate])
    checks = kind.verify(job, built, {DATABASE: tmp_path / DATABASE})
    assert gate in [check.name for check in checks if not check.passed]


def test_swapped_ids_fail(tmp_path: Path) -> None:
    kind = TextIndex(TextIndexParameters())
    job = make_job(tmp_path, snapshot())
    built = kind.build(job)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("UPDATE entries SET id = printf('e%06d', 2 - row / 64) WHERE row <= 128")
    failed = [
        c.name for c in kind.verify(job, built, {DATABASE: tmp_path / DATABASE}) if not c.passed
    ]
    assert failed == ["entries_match_source"]


def spoil(*statements: str) -> Callable[[sqlite3.Connection], None]:
    def run_them(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return run_them


@pytest.mark.parametrize(
    ("corrupt", "gates"),
    [
        (spoil("UPDATE entries SET payload = '1' WHERE id = 'e000007'"), {"entries_match_source"}),
        (
            spoil(
                "INSERT INTO entries SELECT row + 1, id, NULL, NULL "
                "FROM entries WHERE id GLOB '*-b'"
            ),
            {"count", "ids_unique", "rows_in_order"},
        ),
        (
            # As if FTS5 had never been told of the new text.
            spoil("INSERT INTO terms (terms, rowid, text) VALUES ('delete', 544, 'lighthouse')"),
            {"count", "found_as_asked", "frequencies"},
        ),
        (
            # The text is another one, and FTS5 does not know.
            spoil("UPDATE entries SET text = 'other' WHERE row = 512"),
            {
                "entries_match_source",
                "found_as_asked",
                "lost_terms_lead_nowhere",
            },
        ),
        (spoil("UPDATE frequencies SET texts = 9 WHERE term = 'lighthouse'"), {"frequencies"}),
        (
            spoil("UPDATE entries SET row = 7000 WHERE id = 'e000007-b'"),
            {"found_as_asked", "rows_in_order"},
        ),
        (spoil("UPDATE entries SET payload = '1' WHERE id = 'e000050'"), {"unchanged_kept"}),
        (spoil("UPDATE facts SET entries = 7"), {"count"}),
        (
            spoil("INSERT INTO entries VALUES (1, 'e000009', NULL, NULL)"),
            {"count", "entries_match_source", "rows_in_order"},
        ),
    ],
)
def test_each_gate_of_a_changed_file_fails_on_what_it_is_there_for(
    tmp_path: Path, corrupt: Callable[[sqlite3.Connection], None], gates: set[str]
) -> None:
    source = songs()
    job = make_job(tmp_path / "1", source)
    after = source.commit({"e000007": row("on seas"), "e000007-b": row("lighthouse")}, ["e000009"])
    following, done = next_of(tmp_path / "2", job, run(KIND, job), after)
    assert done.failed == []
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        corrupt(connection)
    checks = list(KIND.verify(following, done.built, done.files))
    assert {check.name for check in checks if not check.passed} == gates, checks


def test_words_that_an_entry_lost_are_missed_when_they_still_lead_to_it(tmp_path: Path) -> None:
    source = songs()
    job = make_job(tmp_path / "1", source)
    after = source.commit({"e000007": row("on seas")}, ["e000009"])
    following, done = next_of(tmp_path / "2", job, run(KIND, job), after)
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        # As if FTS5 had never been told that the old text went.
        connection.execute(
            "INSERT INTO terms (terms, rowid, text) VALUES ('delete', 512, 'on seas')"
        )
        connection.execute("INSERT INTO terms (rowid, text) VALUES (512, 'on seas number')")
    failed = [c.name for c in KIND.verify(following, done.built, done.files) if not c.passed]
    assert failed == ["frequencies", "lost_terms_lead_nowhere"]


def test_pages_that_are_corrupt_are_found(tmp_path: Path) -> None:
    source = songs(2000)
    job = make_job(tmp_path / "1", source)
    following, done = next_of(tmp_path / "2", job, run(KIND, job), source.commit({"n": row("n")}))
    raw = bytearray(done.files[DATABASE].read_bytes())
    with closing(sqlite3.connect(done.files[DATABASE])) as connection:
        (page,) = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = 'terms_docsize' AND pagetype = 'leaf' LIMIT 1"
        ).fetchone()
    raw[(page - 1) * 4096 : page * 4096] = bytes(4096)
    done.files[DATABASE].write_bytes(raw)
    failed = [c.name for c in KIND.verify(following, done.built, done.files) if not c.passed]
    assert "integrity" in failed
