"""The gates of a text index: the file, in fresh handles, held against the collection.

Of a file that was written anew everything is looked at, every row compared with the source, and
that words lead to their entries is tried on a sample. For a copy to which changes were applied see
`change_gates`.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built
from indexrelay.components.text_index.database import open_database, reading
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.probes import found_by_own_words
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import SourceSnapshot


def gates(
    source: SourceSnapshot,
    built: Built,
    path: Path,
    *,
    parameters: TextIndexParameters,
    scratch: Path,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the file does not open.

    ``scratch`` is a folder for a copy of the file while it is checked.
    """
    started = perf_counter()
    try:
        connection = open_database(path)
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(connection):
        yield judge("integrity", lambda: _integrity(path, scratch))
        yield judge("count", lambda: count(connection, path, source, built))
        yield judge("has_texts", lambda: has_texts(connection, path, parameters))
        yield judge("ids_unique", lambda: _ids_unique(connection, path))
        yield judge("entries_match_source", lambda: _entries(connection, path, source))
        yield judge(
            "found_by_own_words",
            lambda: found_by_own_words(connection, path, tokenizer=parameters.tokenizer),
        )


def count(
    connection: sqlite3.Connection, path: Path, source: SourceSnapshot, built: Built
) -> Verdict:
    """As many entries as the collection has, and as the file says."""
    with reading(path):
        rows, said = connection.execute(
            "SELECT (SELECT count(*) FROM entries), (SELECT entries FROM facts)"
        ).fetchone()
    if said != rows:
        return equal(said, rows, "the file says that it has another number of entries")
    if rows != built.entries:
        return equal(rows, built.entries, "the file and the build count differently")
    return equal(rows, source.count, "other entries than the collection has")


def has_texts(
    connection: sqlite3.Connection, path: Path, parameters: TextIndexParameters
) -> Verdict:
    """There is something to be found, where there are entries."""
    with reading(path):
        entries, texts = connection.execute("SELECT entries, texts FROM facts").fetchone()
    if texts or not entries or parameters.allow_empty:
        return Verdict(True, measured=texts)
    return Verdict(
        False,
        "no entry has a text: give them to batch.upsert(…, texts=…), or name the text_column of "
        "the table; set allow_empty if this is right",
        measured=texts,
    )


def _integrity(path: Path, scratch: Path) -> Verdict:
    """SQLite's own check and that of FTS5, which wants to write: so on a copy."""
    copy = scratch / f"{path.name}.check"
    shutil.copyfile(path, copy)
    try:
        with closing(sqlite3.connect(copy)) as connection, reading(path):
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                return Verdict(False, found)
            connection.execute("INSERT INTO texts (texts) VALUES ('integrity-check')")
    finally:
        copy.unlink()
    return Verdict(True)


def _ids_unique(connection: sqlite3.Connection, path: Path) -> Verdict:
    """No id stands in two rows."""
    with reading(path):
        (repeats,) = connection.execute(
            "SELECT count(*) - count(DISTINCT id) FROM entries"
        ).fetchone()
    return equal(repeats, 0, "ids repeat in the source")


def _entries(connection: sqlite3.Connection, path: Path, source: SourceSnapshot) -> Verdict:
    """Every id, payload and text stands in the row where the source has it."""
    query = """
        SELECT entries.id, entries.payload, texts.body
        FROM entries LEFT JOIN texts ON texts.rowid = entries.row ORDER BY entries.row
    """
    rows = texts = 0
    with reading(path):
        ours = connection.execute(query)
        for chunk in source.chunks():
            theirs = list(zip(chunk.ids, chunk.payloads, chunk.texts, strict=True))
            if ours.fetchmany(len(chunk)) != theirs:
                return Verdict(False, f"rows {rows} to {rows + len(chunk)} hold other entries")
            rows += len(chunk)
            texts += sum(text is not None for text in chunk.texts)
        (stored,) = connection.execute("SELECT count(*) FROM texts").fetchone()
    return equal(stored, texts, "texts without an entry")
