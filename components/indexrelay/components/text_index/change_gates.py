"""The gates of a text index that is a changed copy of another, at the cost of what changed.

The copy was taken from a file that passed its own gates and whose digest was checked. So what is
judged is the difference: each entry that changed is as the source has it, is found by its words,
stands where the order of the ids has it, and is no longer found by words that it lost. Rows that
had to be numbered again are found by comparing both files, and are judged like changed ones.

Three things still look at everything, since that costs no more than the copy did: the pages are
walked (``quick_check``), the counts are counted, and a sample of all entries is searched for. What
is not repeated is FTS5's own check, which cuts every text into words again: that is what makes a
full build slow.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.inputs import changes_of
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built, PreviousVersion
from indexrelay.components.text_index.database import open_database, reading
from indexrelay.components.text_index.gates import count, has_texts
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.probes import finds, found_by_own_words, words_of
from indexrelay.components.text_index.query import Tokenizer
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Changes, SourceSnapshot

_PARTS: Final = ("entries", "texts_data", "texts_idx", "texts_content", "texts_docsize", "facts")
_ENTRY: Final = """
    SELECT entries.row, entries.payload, texts.body
    FROM entries LEFT JOIN texts ON texts.rowid = entries.row WHERE entries.id = ?
"""
_AROUND: Final = """
    SELECT (SELECT id FROM entries WHERE row < :row ORDER BY row DESC LIMIT 1) >= :id
        OR (SELECT id FROM entries WHERE row > :row ORDER BY row LIMIT 1) <= :id
"""
_SAMPLE: Final = "SELECT id FROM entries ORDER BY (row * 2654435761) % 4294967296 LIMIT 500"
_MOVED: Final = """
    SELECT entries.id FROM entries JOIN last.entries AS old ON old.id = entries.id
    WHERE old.row != entries.row
"""
_LONGEST: Final = 3
"""Words that a changed entry is asked for by; long words are rare, so they tell the most."""

Entry = tuple[int, str | None, str | None]
"""Row, payload, text."""


def gates_of_change(
    source: SourceSnapshot,
    built: Built,
    path: Path,
    *,
    continued: PreviousVersion,
    last: Path,
    parameters: TextIndexParameters,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the file does not open.

    ``last`` is the file of the version that ``continued`` tells about.
    """
    started = perf_counter()
    with ExitStack() as stack:
        try:
            now = stack.enter_context(closing(open_database(path)))
        except DamagedFileError as error:
            yield Check(name="reads_back", passed=False, detail=str(error))
            return
        yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
        before = stack.enter_context(closing(open_database(last)))
        moved = bool(built.details.get("moved"))
        gate = _Gates(now, before, path, last, _Batch(source, continued), parameters.tokenizer)
        yield judge("integrity", gate.pages)
        yield judge("count", lambda: count(now, path, source, built))
        yield judge("has_texts", lambda: has_texts(now, path, parameters))
        yield judge("ids_unique", gate.ids_unique)
        yield judge("entries_match_source", gate.entries)
        yield judge("rows_in_order", lambda: gate.rows_in_order(moved=moved))
        yield judge("found_by_own_words", lambda: gate.found(moved=moved))
        yield judge("lost_words_lead_nowhere", gate.lost_words)
        yield judge("unchanged_kept", gate.kept)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What changed since the version that is continued."""

    source: SourceSnapshot
    continued: PreviousVersion

    def chunks(self) -> Iterator[Changes]:
        """The changes, read anew each time."""
        after = self.continued.manifest.covers[self.source.collection]
        return changes_of(self.source, after)

    def ids(self) -> Iterator[str]:
        """Every id that came, changed or went."""
        for chunk in self.chunks():
            yield from chunk.upserts.ids
            yield from chunk.deletes


@dataclass(frozen=True, slots=True)
class _Gates:
    now: sqlite3.Connection
    before: sqlite3.Connection
    path: Path
    last: Path
    batch: _Batch
    tokenizer: Tokenizer

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
            ids = self.batch.ids()
            repeats = sum(self.now.execute(query, (one,)).fetchone()[0] for one in ids)
        return equal(repeats, 0, "ids repeat each other")

    def entries(self) -> Verdict:
        """What came or changed is as the source has it, and what went is gone."""
        wrong = 0
        with reading(self.path):
            for chunk in self.batch.chunks():
                given = chunk.upserts
                for entry_id, *columns in zip(given.ids, given.payloads, given.texts, strict=True):
                    entry = _entry(self.now, entry_id)
                    wrong += entry is None or list(entry[1:]) != columns
                wrong += sum(_entry(self.now, one) is not None for one in chunk.deletes)
        return equal(wrong, 0, "entries that changed are not as the source has them")

    def rows_in_order(self, *, moved: bool) -> Verdict:
        """Rows that are new stand between the ids before and after theirs."""
        wrong = 0
        with reading(self.path):
            for entry_id in self._touched(moved=moved):
                entry = _entry(self.now, entry_id)
                if entry is not None:
                    places = {"row": entry[0], "id": entry_id}
                    wrong += bool(self.now.execute(_AROUND, places).fetchone()[0])
        return equal(wrong, 0, "rows do not stand in the order of the ids")

    def found(self, *, moved: bool) -> Verdict:
        """What changed is found by its longest words, and a sample of all by all of theirs."""
        sampled = found_by_own_words(self.now, self.path, tokenizer=self.tokenizer)
        if not sampled.passed:
            return sampled
        with reading(self.path):
            entries = ((_entry(self.now, one)) for one in self._touched(moved=moved))
            texts = [(entry[0], entry[2]) for entry in entries if entry and entry[2] is not None]
            words = words_of((text for _, text in texts), self.tokenizer)
            asked = [(row, _longest(terms)) for (row, _), terms in zip(texts, words, strict=True)]
            missed = sum(not finds(self.now, row, terms) for row, terms in asked if terms)
        return equal(missed, 0, "entries are not found by words that they hold")

    def lost_words(self) -> Verdict:
        """A row is no longer found by words that only its last text held."""
        with reading(self.last):
            entries = [_entry(self.before, entry_id) for entry_id in self.batch.ids()]
        had = [(entry[0], entry[2] or "") for entry in entries if entry is not None]
        with reading(self.path):
            here = "SELECT body FROM texts WHERE rowid = ?"
            has = [self.now.execute(here, (row,)).fetchone() for row, _ in had]
            lost = map(
                set.difference,
                words_of((text for _, text in had), self.tokenizer),
                words_of((found[0] if found else "" for found in has), self.tokenizer),
            )
            wrong = sum(
                finds(self.now, row, [term])
                for (row, _), terms in zip(had, lost, strict=True)
                for term in _longest(terms)
            )
        return equal(wrong, 0, "words still lead to entries that lost them")

    def kept(self) -> Verdict:
        """Of what did not change, a sample is what it was."""
        changed = set(self.batch.ids())
        with reading(self.last):
            asked = {one for (one,) in self.before.execute(_SAMPLE)} - changed
            before = {one: _entry(self.before, one) for one in asked}
        with reading(self.path):
            now = {one: _entry(self.now, one) for one in asked}
        wrong = sum((now[one] or ())[1:] != (before[one] or ())[1:] for one in asked)
        return equal(wrong, 0, "entries that did not change are not what they were")

    def _touched(self, *, moved: bool) -> Iterator[str]:
        """Every id whose row may be another than it was."""
        yield from self.batch.ids()
        if moved:
            with closing(open_database(self.path)) as both:
                uri = f"{self.last.resolve().as_uri()}?mode=ro&immutable=1"
                both.execute("ATTACH ? AS last", (uri,))
                yield from (one for (one,) in both.execute(_MOVED).fetchall())


def _entry(connection: sqlite3.Connection, entry_id: str) -> Entry | None:
    found: Entry | None = connection.execute(_ENTRY, (entry_id,)).fetchone()
    return found


def _longest(terms: Iterable[str]) -> list[str]:
    return sorted(terms, key=lambda term: (-len(term), term))[:_LONGEST]
