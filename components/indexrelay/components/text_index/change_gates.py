"""The gates of a text index that is a changed copy of another, at the cost of what changed.

The copy was taken from a file that passed its own gates and whose digest was checked. So what is
judged is the difference: each entry that changed is as the source has it, is found by its words,
stands where the order of the ids has it, and is no longer found by words that it lost. Rows that
had to be numbered again are found by comparing both files, and are judged like changed ones.

Three things still look at everything, since that costs no more than the copy did: the pages are
walked (``quick_check``), the counts are counted, and a sample of all entries is searched for. What
is not repeated is FTS5's own check, and a look at the frequency of every term.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.inputs import changes_of
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built, PreviousVersion
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.database import open_database, reading, vocabulary
from indexrelay.components.text_index.gates import count, has_texts
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.probes import Prober
from indexrelay.components.text_index.query import texts_with
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Changes, SourceSnapshot

_PARTS: Final = ("entries", "terms_data", "terms_idx", "terms_docsize", "frequencies", "facts")
_ENTRY: Final = "SELECT row, payload, text FROM entries WHERE id = ?"
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
"""Terms that a changed entry is asked for by; long terms are rare, so they tell the most."""
_ASKED: Final = 50
"""Entries that changed and are asked for as people ask."""
_COUNTED: Final = 200
"""Entries that changed and whose terms are counted: FTS5 goes through all texts of a term."""

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
        prober = Prober(now, path, Analyser(parameters.tokenizer))
        gate = _Gates(now, before, path, last, _Batch(source, continued), prober)
        yield judge("integrity", gate.pages)
        yield judge("count", lambda: count(now, path, source, built))
        yield judge("has_texts", lambda: has_texts(now, path, parameters))
        yield judge("ids_unique", gate.ids_unique)
        yield judge("entries_match_source", gate.entries)
        yield judge("rows_in_order", lambda: gate.rows_in_order(moved=moved))
        yield judge("frequencies", gate.frequencies)
        yield judge("found_as_asked", lambda: gate.found(moved=moved))
        yield judge("lost_terms_lead_nowhere", gate.lost_terms)
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
    prober: Prober

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

    def frequencies(self) -> Verdict:
        """Terms that came or went are in as many texts as the file says; asked are the rarest."""
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

    def found(self, *, moved: bool) -> Verdict:
        """What changed is found by its longest terms, and a sample of all as people ask."""
        sampled = self.prober.found(self.prober.sample().items())
        if not sampled.passed:
            return sampled
        missed: list[str] = []
        probes: dict[int, str] = {}
        with reading(self.path):
            for entry_id in self._touched(moved=moved):
                entry = _entry(self.now, entry_id)
                if entry is None or entry[2] is None:
                    continue
                terms = _longest(set(self.prober.analyser.terms(entry[2])))
                if terms and not self.prober.holds(entry[0], [(term,) for term in terms]):
                    missed.append(entry_id)
                if len(probes) < _ASKED:
                    probes[entry[0]] = entry[2]
        if missed:
            return equal(len(missed), 0, f"entries are not found by their terms, {missed[0]} first")
        return self.prober.found(probes.items())

    def lost_terms(self) -> Verdict:
        """A row is no longer found by terms that only its last text held."""
        terms = self.prober.analyser.terms
        wrong = 0
        with reading(self.last):
            entries = [_entry(self.before, entry_id) for entry_id in self.batch.ids()]
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
        changed = set(self.batch.ids())
        with reading(self.last):
            asked = {one for (one,) in self.before.execute(_SAMPLE)} - changed
            before = {one: _entry(self.before, one) for one in asked}
        with reading(self.path):
            now = {one: _entry(self.now, one) for one in asked}
        wrong = sum((now[one] or ())[1:] != (before[one] or ())[1:] for one in asked)
        return equal(wrong, 0, "entries that did not change are not what they were")

    def _changed_texts(self) -> Iterator[tuple[str, str]]:
        """What each entry's text was, and what it is."""
        for entry_id in self.batch.ids():
            with reading(self.last):
                was = _entry(self.before, entry_id)
            has = _entry(self.now, entry_id)
            before, now = was[2] if was else None, has[2] if has else None
            if before != now:
                yield before or "", now or ""

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
