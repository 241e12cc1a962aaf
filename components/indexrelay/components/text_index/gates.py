"""The gates of a text index: the file, in fresh handles, held against the collection.

Of a file that was written from scratch everything is looked at and every row compared with the
source; that texts are found is tried on a sample of all, and of every script (`probes`). For a copy
to which changes were applied see `change_gates`.
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
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.database import (
    FORMAT,
    counts_of,
    format_of,
    open_database,
    reading,
    vocabulary,
)
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.probes import Prober
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
    with closing(connection):
        written = format_of(connection)
        detail = "" if written == FORMAT else f"it is of format {written}, not {FORMAT}"
        seconds = perf_counter() - started
        yield Check(name="reads_back", passed=not detail, detail=detail, seconds=seconds)
        if detail:
            return
        prober = Prober(connection, path, Analyser(parameters.tokenizer))
        yield judge("integrity", lambda: _integrity(path, scratch))
        yield judge("count", lambda: count(connection, path, source, built))
        yield judge("has_texts", lambda: has_texts(connection, path, parameters))
        yield judge("ids_unique", lambda: _ids_unique(connection, path))
        yield judge("entries_match_source", lambda: _entries(connection, path, source))
        yield judge("frequencies", lambda: _frequencies(connection, path))
        yield judge(
            "found_as_asked",
            lambda: prober.found({**prober.sample(), **prober.sample_of_scripts()}.items()),
        )


def count(
    connection: sqlite3.Connection, path: Path, source: SourceSnapshot, built: Built
) -> Verdict:
    """As many entries as the collection has, and as the file says."""
    with reading(path):
        said = counts_of(connection)
        rows, texts, findable = connection.execute(
            "SELECT (SELECT count(*) FROM entries), (SELECT count(text) FROM entries), "
            "(SELECT count(*) FROM terms_docsize)"
        ).fetchone()
    if said.texts != texts:
        return equal(said.texts, texts, "the file says that it has another number of texts")
    if said.findable != findable:
        return equal(said.findable, findable, "other texts have terms than the file says")
    if said.entries != rows:
        return equal(said.entries, rows, "the file says that it has another number of entries")
    if rows != built.entries:
        return equal(rows, built.entries, "the file and the build count differently")
    return equal(rows, source.count, "other entries than the collection has")


def has_texts(
    connection: sqlite3.Connection, path: Path, parameters: TextIndexParameters
) -> Verdict:
    """There is something to be found, where there are entries."""
    with reading(path):
        counts = counts_of(connection)
    if counts.findable or not counts.entries or parameters.allow_empty:
        return Verdict(True, measured=counts.findable)
    if counts.texts:
        return Verdict(
            False,
            "no text has a word or a symbol that could be found; set allow_empty if this is right",
            measured=0,
        )
    return Verdict(
        False,
        "no entry has a text: give them to batch.upsert(…, texts=…), or name the text_column of "
        "the table; set allow_empty if this is right",
        measured=0,
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
            connection.execute("INSERT INTO terms (terms) VALUES ('integrity-check')")
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
    query = "SELECT id, payload, text FROM entries ORDER BY row"
    rows = 0
    with reading(path):
        ours = connection.execute(query)
        for chunk in source.chunks():
            theirs = list(zip(chunk.ids, chunk.payloads, chunk.texts, strict=True))
            if ours.fetchmany(len(chunk)) != theirs:
                return Verdict(False, f"rows {rows} to {rows + len(chunk)} hold other entries")
            rows += len(chunk)
    return Verdict(True)


def _frequencies(connection: sqlite3.Connection, path: Path) -> Verdict:
    """Each term is in as many texts as the file says, and in none that has no text."""
    differing = """
        SELECT (SELECT count(*) FROM (
            SELECT term, doc FROM temp.vocabulary EXCEPT SELECT term, texts FROM frequencies
        )) + (SELECT count(*) FROM (
            SELECT term, texts FROM frequencies EXCEPT SELECT term, doc FROM temp.vocabulary
        )) + (SELECT count(*) FROM terms_docsize
              WHERE id NOT IN (SELECT row FROM entries WHERE text IS NOT NULL))
    """
    with reading(path):
        vocabulary(connection)
        (wrong,) = connection.execute(differing).fetchone()
    return equal(wrong, 0, "terms are counted differently than they are indexed")
