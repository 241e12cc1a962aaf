"""The gates of a text index: the file, in fresh handles, held against the collection.

A file that was written from scratch is looked at as a whole, and every row compared with the
source. That texts are found is tried as people ask for them: by themselves, by a word, within a
question; each question goes the way of every query and is then tried on one row, so it costs the
same to try a common word as a rare one.

A copy to which changes were applied is checked at the cost of what changed: each entry that changed
is as the source has it, is found by its words, stands where the order of the ids has it, and is no
longer found by words that it lost. Pages, counts and a sample of all entries are still looked at.
"""

import shutil
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.kind import Built, PreviousVersion, Verdict, equal, judge, reads_back
from indexrelay.components.layered.build import changes_of
from indexrelay.components.text_index.analyser import Analyser, Phrase
from indexrelay.components.text_index.database import (
    FORMAT,
    GuardedConnection,
    counts_of,
    format_of,
    open_database,
    reading,
    vocabulary,
)
from indexrelay.components.text_index.search import (
    all_of,
    common_above,
    match_expression,
    texts_with,
)
from indexrelay.schemas.errors import require
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Changes, SourceSnapshot


def full_gates(
    source: SourceSnapshot,
    built: Built,
    path: Path,
    *,
    analyser: Analyser,
    allow_empty: bool,
    scratch: Path,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the file does not open.

    ``scratch`` is a folder for a copy of the file while it is checked.
    """
    opened, connection = reads_back(lambda: _open_current(path))
    yield opened
    if connection is None:
        return
    with closing(connection):
        prober = Prober(connection, path, analyser)
        yield judge("integrity", lambda: _integrity(path, scratch))
        yield judge("count", lambda: _count(connection, path, source, built))
        yield judge("has_texts", lambda: _has_texts(connection, path, allow_empty=allow_empty))
        yield judge("ids_unique", lambda: _ids_unique(connection, path))
        yield judge("entries_match_source", lambda: _entries_match_source(connection, path, source))
        yield judge("frequencies", lambda: _frequencies(connection, path))
        yield judge(
            "found_as_asked",
            lambda: prober.found({**prober.sample(), **prober.sample_of_scripts()}.items()),
        )


def incremental_gates(
    source: SourceSnapshot,
    built: Built,
    path: Path,
    *,
    continued: PreviousVersion,
    last: Path,
    analyser: Analyser,
    allow_empty: bool,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the file does not open.

    ``last`` is the file of the version that is ``continued``.
    """
    opened, now = reads_back(lambda: open_database(path))
    yield opened
    if now is None:
        return
    with closing(now), closing(open_database(last)) as before:
        changes = _Changes(source, continued.manifest.covers[source.collection])
        prober = Prober(now, path, analyser)
        moved = bool(built.details.get("moved"))
        gate = _ChangeGates(now, before, path, last, changes, prober, moved)
        yield judge("integrity", gate.pages)
        yield judge("count", lambda: _count(now, path, source, built))
        yield judge("has_texts", lambda: _has_texts(now, path, allow_empty=allow_empty))
        yield judge("ids_unique", gate.ids_unique)
        yield judge("entries_match_source", gate.entries)
        yield judge("rows_in_order", gate.rows_in_order)
        yield judge("frequencies", gate.frequencies)
        yield judge("found_as_asked", gate.found)
        yield judge("lost_terms_lead_nowhere", gate.lost_terms)
        yield judge("unchanged_kept", gate.kept)


def _open_current(path: Path) -> GuardedConnection:
    """Open a file of today's format."""
    connection = open_database(path)
    written = format_of(connection)
    if written != FORMAT:
        connection.close()
        raise CorruptFileError(path, f"it is of format {written}, not {FORMAT}")
    return connection


def _count(
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


def _has_texts(connection: sqlite3.Connection, path: Path, *, allow_empty: bool) -> Verdict:
    """There is something to be found, where there are entries."""
    with reading(path):
        counts = counts_of(connection)
    if counts.findable or not counts.entries or allow_empty:
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


def _entries_match_source(
    connection: sqlite3.Connection, path: Path, source: SourceSnapshot
) -> Verdict:
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


_SAMPLED: Final = 100
_SAMPLE: Final = """
    SELECT row, text FROM entries WHERE row IN
        (SELECT id FROM terms_docsize ORDER BY (id * 2654435761) % 4294967296 LIMIT ?)
"""
"""Spread over the rows by a fixed multiplier, so the same sample each time."""
_NOT_ASCII: Final = "SELECT row, text FROM entries WHERE text GLOB '*[^' || char(1) || '-~]*'"
_PER_SCRIPT: Final = 5
_WORDS_ASKED: Final = 8
"""Of each text; all of its words are in the question that is the text."""
_MOST_TERMS: Final = 60
"""Terms up to which a text is asked for by all of them; of longer ones only the rarest count."""
_WORD: Final = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\p{DI}]*"
"""What a reader takes for a word, whatever the analyser does: letters, with the marks on them."""
_QUESTION: Final = "(What is known about {}?)"

Text = tuple[int, str]
"""Row and text."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Asks one open file."""

    connection: sqlite3.Connection
    path: Path
    analyser: Analyser

    def found(self, texts: Iterable[Text]) -> Verdict:
        """Each of ``texts`` is found by itself, by its words, and by a question with it inside."""
        asked = missed = 0
        example = ""
        with reading(self.path):
            findable = counts_of(self.connection).findable
            for row, text in texts:
                for question in self._questions(text, findable):
                    asked += 1
                    if not self._answers(row, question, findable):
                        missed += 1
                        example = example or f"; the first: {question[:80]!r}"
        return equal(asked - missed, asked, f"texts are not found as people ask for them{example}")

    def sample(self) -> dict[int, str]:
        """Texts spread over the file."""
        with reading(self.path):
            return dict(self.connection.execute(_SAMPLE, (_SAMPLED,)))

    def sample_of_scripts(self) -> dict[int, str]:
        """A few texts of every script that there is besides ASCII; every text is looked at."""
        seen: Counter[str] = Counter()
        settled: set[str] = set()
        sampled: dict[int, str] = {}
        with reading(self.path):
            for row, text in self.connection.execute(_NOT_ASCII):
                for character in set(text) - settled:
                    script = _script(character)
                    if not script or seen[script] >= _PER_SCRIPT:
                        settled.add(character)
                    elif self.analyser.terms(text):
                        seen[script] += 1
                        sampled[row] = text
        return sampled

    def holds(self, row: int, phrases: Iterable[Phrase]) -> bool:
        """Whether one row is among those that hold all ``phrases``."""
        return self._matches(row, all_of(phrases))

    def _questions(self, text: str, findable: int) -> Iterator[str]:
        """What a person may type who looks for ``text``."""
        phrases = self.analyser.phrases(text)
        if not phrases:
            return
        yield text
        if len(phrases) <= _MOST_TERMS:
            yield unicodedata.normalize("NFD", text)
            # Of a text without any word of its own nothing would count beside the question's words.
            rarest = min(texts_with(self.connection, phrase) for phrase in phrases)
            if rarest <= common_above(findable):
                yield _QUESTION.format(text)
        words = require("regex").findall(_WORD, text)
        for word in dict.fromkeys([*text.split()[:_WORDS_ASKED], *words[:_WORDS_ASKED]]):
            if self.analyser.phrases(word):
                yield word

    def _answers(self, row: int, question: str, findable: int) -> bool:
        asked = match_expression(self.connection, self.analyser, question, findable=findable)
        return bool(asked) and self._matches(row, asked)

    def _matches(self, row: int, expression: str) -> bool:
        query = "SELECT 1 FROM terms WHERE terms MATCH ? AND rowid = ?"
        return self.connection.execute(query, (expression, row)).fetchone() is not None


def _script(character: str) -> str:
    """Roughly: the first word of its name (``DEVANAGARI``); none of what is ASCII or unnamed."""
    if character.isascii():
        return ""
    return unicodedata.name(character, "").partition(" ")[0].partition("-")[0]


_PARTS: Final = ("entries", "terms_data", "terms_idx", "terms_docsize", "frequencies", "facts")
_ENTRY: Final = "SELECT row, payload, text FROM entries WHERE id = ?"
_AROUND: Final = """
    SELECT (SELECT id FROM entries WHERE row < :row ORDER BY row DESC LIMIT 1) >= :id
        OR (SELECT id FROM entries WHERE row > :row ORDER BY row LIMIT 1) <= :id
"""
_SAMPLE_IDS: Final = "SELECT id FROM entries ORDER BY (row * 2654435761) % 4294967296 LIMIT 500"
_MOVED: Final = """
    SELECT entries.id FROM entries JOIN last.entries AS old ON old.id = entries.id
    WHERE old.row != entries.row
"""
_LONGEST_TERMS: Final = 3
"""Terms that a changed entry is asked for by; long terms are rare, so they tell the most."""
_CHANGED_ASKED: Final = 50
"""Entries that changed and are asked for as people ask."""
_COUNTED: Final = 200
"""Entries that changed and whose terms are counted: FTS5 goes through all texts of a term."""

Entry = tuple[int, str | None, str | None]
"""Row, payload, text."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """What changed since generation ``after``; read again each time."""

    source: SourceSnapshot
    after: int

    def chunks(self) -> Iterator[Changes]:
        """The changes."""
        return changes_of(self.source, self.after)

    def ids(self) -> Iterator[str]:
        """Every id that came, changed or is deleted."""
        for chunk in self.chunks():
            yield from chunk.upserts.ids
            yield from chunk.deletes


@dataclass(frozen=True, slots=True)
class _ChangeGates:
    now: sqlite3.Connection
    before: sqlite3.Connection
    path: Path
    last: Path
    changes: _Changes
    prober: Prober
    moved: bool
    """Whether rows of entries that did not change may be numbered again."""

    def pages(self) -> Verdict:
        """Every page of every table is one; table by table, as FTS5's own check is left out."""
        with reading(self.path):
            for table in _PARTS:
                found = self.now.execute(f"PRAGMA quick_check('{table}')").fetchone()[0]
                if found != "ok":
                    return Verdict(False, found)
        return Verdict(True)

    def ids_unique(self) -> Verdict:
        """No id that changed stands in two rows."""
        query = "SELECT count(*) > 1 FROM entries WHERE id = ?"
        with reading(self.path):
            ids = self.changes.ids()
            repeats = sum(self.now.execute(query, (one,)).fetchone()[0] for one in ids)
        return equal(repeats, 0, "ids repeat each other")

    def entries(self) -> Verdict:
        """What came or changed is as the source has it, and no deleted entry is there."""
        wrong = 0
        with reading(self.path):
            for chunk in self.changes.chunks():
                given = chunk.upserts
                for entry_id, *columns in zip(given.ids, given.payloads, given.texts, strict=True):
                    entry = _entry(self.now, entry_id)
                    wrong += entry is None or list(entry[1:]) != columns
                wrong += sum(_entry(self.now, one) is not None for one in chunk.deletes)
        return equal(wrong, 0, "entries that changed are not as the source has them")

    def rows_in_order(self) -> Verdict:
        """Rows that are new stand between the ids before and after theirs."""
        wrong = 0
        with reading(self.path):
            for entry_id in self._touched():
                entry = _entry(self.now, entry_id)
                if entry is not None:
                    places = {"row": entry[0], "id": entry_id}
                    wrong += bool(self.now.execute(_AROUND, places).fetchone()[0])
        return equal(wrong, 0, "rows do not stand in the order of the ids")

    def frequencies(self) -> Verdict:
        """Terms that are new or gone are in as many texts as the file says; the rarest count."""
        terms = self.prober.analyser.terms
        wrong = 0
        with reading(self.path):
            vocabulary(self.now)
            counted = "SELECT doc FROM temp.vocabulary WHERE term = ?"
            for was, has in islice(self._changed_texts(), _COUNTED):
                differing = set(terms(was)) ^ set(terms(has))
                for term in _longest(differing):
                    found = self.now.execute(counted, (term,)).fetchone()
                    wrong += texts_with(self.now, (term,)) != (found[0] if found else 0)
        return equal(wrong, 0, "terms are counted differently than they are indexed")

    def found(self) -> Verdict:
        """What changed is found by its longest terms, and a sample of all as people ask."""
        sampled = self.prober.found(self.prober.sample().items())
        if not sampled.passed:
            return sampled
        missed: list[str] = []
        probes: dict[int, str] = {}
        with reading(self.path):
            for entry_id in self._touched():
                entry = _entry(self.now, entry_id)
                if entry is None or entry[2] is None:
                    continue
                terms = _longest(set(self.prober.analyser.terms(entry[2])))
                if terms and not self.prober.holds(entry[0], [(term,) for term in terms]):
                    missed.append(entry_id)
                if len(probes) < _CHANGED_ASKED:
                    probes[entry[0]] = entry[2]
        if missed:
            return equal(len(missed), 0, f"entries are not found by their terms, {missed[0]} first")
        return self.prober.found(probes.items())

    def lost_terms(self) -> Verdict:
        """A row is no longer found by terms that only its last text held."""
        terms = self.prober.analyser.terms
        wrong = 0
        with reading(self.last):
            entries = [_entry(self.before, entry_id) for entry_id in self.changes.ids()]
        with reading(self.path):
            for entry in entries:
                if entry is None:
                    continue
                row, _, was = entry
                found = self.now.execute("SELECT text FROM entries WHERE row = ?", (row,))
                (has,) = found.fetchone() or (None,)
                lost = set(terms(was or "")) - set(terms(has or ""))
                wrong += sum(self.prober.holds(row, [(term,)]) for term in _longest(lost))
        return equal(wrong, 0, "terms still lead to entries that lost them")

    def kept(self) -> Verdict:
        """Of what did not change, a sample is what it was."""
        changed = set(self.changes.ids())
        with reading(self.last):
            asked = {one for (one,) in self.before.execute(_SAMPLE_IDS)} - changed
            before = {one: _entry(self.before, one) for one in asked}
        with reading(self.path):
            now = {one: _entry(self.now, one) for one in asked}
        wrong = sum((now[one] or ())[1:] != (before[one] or ())[1:] for one in asked)
        return equal(wrong, 0, "entries that did not change are not what they were")

    def _changed_texts(self) -> Iterator[tuple[str, str]]:
        """What each entry's text was, and what it is."""
        for entry_id in self.changes.ids():
            with reading(self.last):
                was = _entry(self.before, entry_id)
            has = _entry(self.now, entry_id)
            before, now = was[2] if was else None, has[2] if has else None
            if before != now:
                yield before or "", now or ""

    def _touched(self) -> Iterator[str]:
        """Every id whose row may be another than it was."""
        yield from self.changes.ids()
        if self.moved:
            with closing(open_database(self.path)) as both:
                uri = f"{self.last.resolve().as_uri()}?mode=ro&immutable=1"
                both.execute("ATTACH ? AS last", (uri,))
                yield from (one for (one,) in both.execute(_MOVED).fetchall())


def _entry(connection: sqlite3.Connection, entry_id: str) -> Entry | None:
    found: Entry | None = connection.execute(_ENTRY, (entry_id,)).fetchone()
    return found


def _longest(terms: Iterable[str]) -> list[str]:
    return sorted(terms, key=lambda term: (-len(term), term))[:_LONGEST_TERMS]
