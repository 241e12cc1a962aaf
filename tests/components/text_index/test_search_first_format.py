"""Versions from before there was an analyser: they are served until they are built again."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.text_index import DATABASE, TextIndex, TextIndexParameters, TextSearch
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    as_previous,
    make_job,
    make_manifest,
    make_snapshot,
    run,
)

TEXTS = ["Read a CSV file", "Split a path", None]


def source() -> MemorySnapshot:
    return make_snapshot(np.ones((len(TEXTS), 2), dtype=np.float32), texts=TEXTS)


def write_first_format(path: Path, texts: Sequence[str | None]) -> None:
    """What the releases before the analyser wrote."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            PRAGMA application_id = 0x69727478;
            PRAGMA user_version = 1;
            CREATE TABLE entries (row INTEGER PRIMARY KEY, id TEXT NOT NULL, payload TEXT);
            CREATE VIRTUAL TABLE texts USING
                fts5 (body, tokenize = 'unicode61 remove_diacritics 2');
            CREATE TABLE facts (entries INTEGER NOT NULL, texts INTEGER NOT NULL);
            CREATE INDEX entries_by_id ON entries (id);
            """
        )
        for place, text in enumerate(texts):
            row = 64 * (place + 1)
            connection.execute("INSERT INTO entries VALUES (?, ?, '[1]')", (row, f"e{place:06d}"))
            if text is not None:
                connection.execute("INSERT INTO texts (rowid, body) VALUES (?, ?)", (row, text))
        connection.execute("INSERT INTO facts VALUES (?, ?)", (len(texts), len(texts) - 1))


def test_a_version_of_the_first_format_is_served_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    write_first_format(path, TEXTS)
    with closing(TextIndex(TextIndexParameters()).load({DATABASE: path})) as index:
        assert (len(index), index.texts, index.findable) == (3, 2, 2)
        assert [hit.id for hit in index.search("file csv", k=3)] == ["e000000"]
        assert index.search("file")[0].payload == [1]
        assert (index.analyser, index.frequency("csv"), index.frequency("x")) == (None, 1, 0)
        assert [hit.id for hit in index.search("file path", without=["e000000"])] == ["e000001"]
        assert [each and each.text for each in index.get(["e000001", "e000002", "x"])] == [
            "Split a path",
            None,
            None,
        ]
        page = index.scroll(after="e000000", limit=1)
        assert [(entry.id, entry.text) for entry in page.entries] == [("e000001", "Split a path")]
        assert page.after == "e000001"
        assert (index.count(), index.fields) == (3, {})
        assert [index.text("e000001"), index.text("e000002")] == ["Split a path", None]
        assert [index.search(text) for text in ("", "...", "\ud800", 'AND "')] == [[], [], [], []]


def test_a_version_of_the_first_format_is_built_from_scratch_when_it_is_due(tmp_path: Path) -> None:
    before = source()
    job = make_job(tmp_path / "1", before)
    done = run(TextIndex(TextIndexParameters()), job)
    done.files[DATABASE].unlink()
    write_first_format(done.files[DATABASE], TEXTS)
    after = before.commit({"new": Row(vector=np.ones(2, dtype=np.float32), text="new")})
    following = make_job(tmp_path / "2", after, previous=as_previous(job, done))
    again = run(TextIndex(TextIndexParameters()), following)
    assert (again.failed, again.built.extends) == ([], False)
    assert "before there was an analyser" in again.built.details["build"]["reason"]


def test_a_version_that_another_unicode_cut_is_not_continued(tmp_path: Path) -> None:
    before = source()
    job = make_job(tmp_path / "1", before)
    done = run(TextIndex(TextIndexParameters()), job)
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        connection.execute("UPDATE facts SET analyser = 'words/1, unicode 9.0.0'")
    after = before.commit({"new": Row(vector=np.ones(2, dtype=np.float32), text="new")})
    following = make_job(tmp_path / "2", after, previous=as_previous(job, done))
    again = run(TextIndex(TextIndexParameters()), following)
    assert (again.failed, again.built.extends) == ([], False)
    assert "cut by words/1, unicode 9.0.0, not" in again.built.details["build"]["reason"]


def test_a_version_is_outdated_when_its_texts_were_cut_in_another_way(tmp_path: Path) -> None:
    job = make_job(tmp_path / "1", source())
    done = run(TextIndex(TextIndexParameters()), job)
    manifest = make_manifest(job, done)
    assert TextIndex.outdated(manifest) is None
    earlier = replace(done, built=replace(done.built, details={"tokenizer": "trigram"}))
    assert "cut in another way" in str(TextIndex.outdated(make_manifest(job, earlier)))


def test_a_file_of_a_later_format_is_refused_with_its_number(tmp_path: Path) -> None:
    done = run(TextIndex(TextIndexParameters()), make_job(tmp_path, source()))
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(CorruptFileError, match="of format 3; this release reads up to 2"):
        TextSearch(done.files[DATABASE])


@pytest.mark.parametrize(
    ("former", "successor"),
    [
        ("unicode61 remove_diacritics 2", 'write tokenizer = "words", or leave it out'),
        ("porter unicode61 remove_diacritics 2", 'write tokenizer = "english"'),
    ],
)
def test_a_former_tokenizer_is_refused_with_what_to_write_instead(
    former: str, successor: str
) -> None:
    with pytest.raises(ValueError, match=successor):
        TextIndexParameters.model_validate({"tokenizer": former})
