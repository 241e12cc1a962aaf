"""A text index as a reader serves it, and what a query asks it.

A query finds what holds any of its terms; BM25 puts first what holds many of them, and rare ones.
The text of a query is data, never syntax. How many texts a term is in is looked up first: terms
that no text has are left out, of more than `MOST_PHRASES` the rarest count, and a term that is in
more than half of many texts is left out while there is a rarer one, since BM25 gives it no weight.

BM25 weighs a term by all texts, whatever a filter leaves of them, so a filtered answer is the whole
answer with entries taken out. Where few entries match the filter, their rows go into the query, and
FTS5 weighs only what is among them. Else the ranking is read from its top, and the entries are
taken that match, until there are enough: more of it each time where they are not.

Queries of several threads each borrow a connection. SQLite keeps locks for the whole process, and a
thread that holds one does not exist in a forked child, where the first query would wait for ever.
So threads say when they are inside SQLite (`ForkGate`), and a fork waits until all are out.
"""

import json
import math
import os
import re
import sqlite3
import threading
import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np

from indexrelay.components.arrangement import Arrangement
from indexrelay.components.errors import CorruptFileError, InvalidQueryError, UnknownEntryError
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered import among
from indexrelay.components.query import (
    TEXT_KEYWORDS,
    Explanation,
    Hits,
    Layer,
    QueryOptions,
    Stopwatch,
    TextKeywords,
)
from indexrelay.components.served import (
    check_payload_bytes,
    parsed_payload,
    stored_hits,
)
from indexrelay.components.text_index.analyser import Analyser, Phrase
from indexrelay.components.text_index.database import (
    FIRST_FORMAT,
    QUERY_SECONDS,
    GuardedConnection,
    counts_of,
    format_of,
    open_database,
    reading,
)
from indexrelay.components.text_index.entries import TextEntries
from indexrelay.components.text_index.fields import TextFields

Row = tuple[str, float, str | None]
"""An id, its score and its payload."""
_SEARCH: Final = """
    SELECT entries.id, -found.rank, entries.payload
    FROM (
        SELECT rowid, rank FROM {table} WHERE {table} MATCH ? {condition}
        ORDER BY rank, rowid LIMIT ?
    ) AS found
    JOIN entries ON entries.row = found.rowid
    ORDER BY found.rank, found.rowid
"""
_RANKED: Final = """
    SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY rank, rowid LIMIT ?
"""
_AMONG: Final = "AND +rowid IN (SELECT value FROM json_each(?))"
"""The plus sign keeps SQLite from asking FTS5 for each of these rows by itself."""
_SCORES_OF: Final = """
    SELECT entries.id, -found.rank
    FROM (
        SELECT rowid, rank FROM terms WHERE terms MATCH ? AND +rowid IN (
            SELECT row FROM entries WHERE id IN (SELECT value FROM json_each(?))
        )
    ) AS found
    JOIN entries ON entries.row = found.rowid
"""
K1: Final = 1.2
"""Of BM25, as FTS5 has it."""
_FEWEST_TEXTS: Final = 10
"""Fewer do not show what is rare."""
_MOST_ROWS: Final = 20_000
"""That go into a query: SQLite sorts them in 5 ms."""
_MORE: Final = 8
"""So many times as much of the ranking is read where too few of it matched."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was found, and how."""

    entries: Iterable[Row]
    """Read as they are asked for."""
    plan: str
    """See `Explanation.plan`."""
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Ranking:
    """The entries of a file by how well they fit an expression."""

    connection: sqlite3.Connection
    table: str
    """The FTS5 table: ours, never a caller's."""
    expression: str
    """Of FTS5."""
    entries: int
    """How many the file has."""

    def best(self, k: int, matching: Rows | None, gone: AbstractSet[str]) -> Ranked:
        """The ``k`` that fit best.

        Args:
            k: how many.
            matching: rows that may be found, in increasing order; ``None``: all.
            gone: ids that may not.
        """
        most = k + len(gone)
        if matching is None:
            return self._ranked(self._of("", (), most), k, gone, "unfiltered")
        if len(matching) <= _MOST_ROWS:
            found = self._of(_AMONG, (json.dumps(matching.tolist()),), most)
            return self._ranked(found, k, gone, "exact")
        return self._from_the_top(k, most, matching, gone)

    def _from_the_top(self, k: int, most: int, matching: Rows, gone: AbstractSet[str]) -> Ranked:
        reach = 2 * most * max(self.entries, 1) // len(matching) + most
        query = _RANKED.format(table=self.table)
        rounds = 0
        while True:
            rounds += 1
            top = np.array(
                [row for (row,) in self.connection.execute(query, (self.expression, reach))],
                dtype=np.int64,
            )
            fitting = top[among(top, matching)][:most]
            if len(fitting) == most or len(top) < reach:
                break
            reach *= _MORE
        found = self._of(_AMONG, (json.dumps(fitting.tolist()),), most)
        return self._ranked(found, k, gone, "selector", rounds)

    def _of(self, condition: str, values: tuple[str, ...], most: int) -> Iterable[Row]:
        query = _SEARCH.format(table=self.table, condition=condition)
        return self.connection.execute(query, (self.expression, *values, most))

    def _ranked(
        self, found: Iterable[Row], k: int, gone: AbstractSet[str], plan: str, rounds: int = 1
    ) -> Ranked:
        kept = (row for row in found if row[0] not in gone) if gone else found
        return Ranked(islice(kept, k), plan, rounds)


class TextSearch(TextEntries):
    """Searches texts by BM25; immutable, and safe to use from many threads."""

    def __init__(self, path: Path, fields: TextFields | None = None) -> None:
        """Open the file; ``fields`` are closed with it, and ``None`` where there are none.

        Raises:
            CorruptFileError: it is not what was written.
            OSError: it cannot be opened.
        """
        self._path = path
        self._fields = TextFields({}) if fields is None else fields
        self.analyser: Analyser | None = None
        """What cut its texts; ``None`` in a version from before there was one."""
        self._gate = fork_gate()
        with self._gate.inside():
            self._idle = deque([open_database(path)])
        self._closed = False
        try:
            with self._connection() as connection:
                counts = counts_of(connection)
                if format_of(connection) != FIRST_FORMAT:
                    (tokenizer,) = connection.execute("SELECT tokenizer FROM facts").fetchone()
                    self.analyser = Analyser(tokenizer)
            self._entries, self._texts, self._findable = (
                counts.entries,
                counts.texts,
                counts.findable,
            )
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """How many entries it holds, those without a text among them."""
        return int(self._entries)

    def __bool__(self) -> bool:
        """An index is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return self._one("SELECT 1 FROM entries WHERE id = ?", (entry_id,)) is not None

    @property
    def texts(self) -> int:
        """How many of its entries have a text."""
        return int(self._texts)

    @property
    def findable(self) -> int:
        """How many of its texts have a word or a symbol; punctuation alone cannot be found."""
        return int(self._findable)

    @property
    def word_score(self) -> float:
        """About what BM25 gives at most for one word that a single text has: a unit for scores.

        BM25 has none of its own: the scores of one collection say nothing in another.
        """
        texts = max(self._findable, _FEWEST_TEXTS)
        return (K1 + 1.0) * math.log((texts - 0.5) / 1.5)

    def frequency(self, term: str) -> int:
        """How many texts have ``term``, which is one of `analyser`'s: what BM25 weighs it by."""
        with self._connection() as connection:
            if self.analyser is None:
                return _first_texts_with(connection, term)
            return texts_with(connection, (term,))

    def weights(self, text: str) -> "TermWeights":
        """What BM25 weighs the terms of a query by, also those that no text of the version has."""
        if self.analyser is None:
            raise InvalidQueryError("a version of the first format has no terms of ours")
        with self._connection() as connection:
            return term_weights(connection, self.analyser, text, findable=self._findable)

    def search(self, text: str, *, k: int = 10, **options: Unpack[TextKeywords]) -> Hits:
        """The ``k`` entries that fit best to any of the words of ``text``, the best first.

        ``text`` is plain words: nothing in it is syntax. It is cut as the texts were (`analyser`).
        Of its first 100,000 characters the 64 rarest terms count. Where there is no word in it
        there is no hit. The score is BM25 with its sign turned, so that higher is better; it only
        compares within one answer.

        Args:
            text: what is looked for.
            k: how many entries.
            options: see `TextKeywords`.

        Raises:
            InvalidFilterError: the filter cannot be answered, or ``group_by`` is no such field.
            InvalidQueryError: ``text`` is no string, ``k`` no whole number from 1 on, an option is
                not what it has to be, or the payloads have too many bytes.
        """
        return self.ask(text, QueryOptions.of(k, options, TEXT_KEYWORDS))

    def ask(self, text: str, options: QueryOptions) -> Hits:
        """`search`, with options that were checked before."""
        if not isinstance(text, str):
            raise InvalidQueryError(f"a query is a str, not {type(text).__name__}")
        arrangement = Arrangement.of(options, self.fields)
        if arrangement is not None:
            return arrangement.search(
                lambda number, beyond: self.ask(text, options.candidates(number, beyond)),
                k=options.k,
                entries=len(self),
                max_payload_bytes=options.max_payload_bytes,
            )
        watch = Stopwatch()
        asked = self._fields.columns.parse(options.filter)
        gone = frozenset(options.without)
        matching = None if asked is None else self._fields.rows(asked)
        watch.stage("filter")
        with self._connection() as connection:
            table, expression = "terms", ""
            if self.analyser is None:
                table, expression = "texts", _first_match_expression(text)
            elif matching is None or len(matching):
                expression = match_expression(
                    connection, self.analyser, text, findable=self._findable
                )
            watch.stage("terms")
            found = Ranked((), "nothing" if matching is not None else "unfiltered")
            if expression:
                ranking = Ranking(connection, table, expression, entries=self._entries)
                found = ranking.best(options.k, matching, gone)
            watch.stage("search")
            hits = _hits(_within(found.entries, options.max_payload_bytes), self._path)
        watch.stage("payloads")
        if options.explain:
            hits.explanation = Explanation(
                plan=found.plan,
                layers=(Layer("texts", self._entries, "bm25"),),
                rounds=found.rounds,
                matches=None if matching is None else len(matching),
                stages=watch.stages,
            )
        return hits

    def scores_of(self, text: str, ids: Collection[str]) -> dict[str, float]:
        """What a search for ``text`` gives these entries, however many fit better.

        Those that have none of its words are left out: they are as good as nothing. So are all of
        them in a version from before there was an analyser.
        """
        if self.analyser is None or not ids:
            return {}
        with self._connection() as connection:
            expression = match_expression(connection, self.analyser, text, findable=self._findable)
            if not expression:
                return {}
            found = connection.execute(_SCORES_OF, (expression, json.dumps(list(ids))))
            return dict(found)

    def text(self, entry_id: str) -> str | None:
        """The text of one entry, or ``None`` where it has none.

        Raises:
            UnknownEntryError: it is not in here.
        """
        query = "SELECT text FROM entries WHERE id = ?"
        text = self._of(entry_id, _FIRST_TEXT if self.analyser is None else query)
        if text is None or isinstance(text, str):
            return text
        raise CorruptFileError(self._path, "a text is none")

    def payload(self, entry_id: str) -> Any:
        """The parsed payload of one entry, or ``None``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        payload = self._of(entry_id, "SELECT payload FROM entries WHERE id = ?")
        with reading(self._path):
            raw = _as_json(payload)
        return None if raw is None else parsed_payload(raw, self._path)

    def warm(self) -> None:
        """Touch what a first query would have to fetch from disk."""
        self.search("a", k=1)

    def close(self) -> None:
        """Close every connection; nothing may be searched afterwards."""
        with self._gate.inside():
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._fields.close()

    def _of(self, entry_id: str, query: str) -> Any:
        row = self._one(query, (entry_id,))
        if row is None:
            raise UnknownEntryError(entry_id)
        return row[0]

    def _one(self, query: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        with self._connection() as connection:
            row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
            return row

    @contextmanager
    def _connection(self) -> Iterator[GuardedConnection]:
        with self._gate.inside():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = open_database(self._path)
            try:
                with reading(self._path), connection.within(QUERY_SECONDS):
                    yield connection
            finally:
                if self._closed:  # while it was asked
                    connection.close()
                else:
                    self._idle.append(connection)


def _within(answer: Iterable[Row], most: int | None) -> Iterable[Row]:
    """The rows, where their payloads have no more than ``most`` bytes together."""
    if most is None:
        return answer
    rows, total = [], 0
    for row in answer:
        payload = row[2]
        if isinstance(payload, str):
            total += len(payload.encode("utf-8", "surrogatepass"))
            check_payload_bytes(total, most)
        rows.append(row)
    return rows


def _hits(found: Iterable[tuple[object, object, object]], path: Path) -> Hits:
    ids, scores, payloads = [], [], []
    for entry_id, score, payload in found:
        if not isinstance(entry_id, str) or not isinstance(score, float):
            raise ValueError(f"an entry of the id {entry_id!r:.60}")  # noqa: TRY004 - of a file
        ids.append(entry_id)
        scores.append(score)
        payloads.append(_as_json(payload))
    return Hits(stored_hits(ids, scores, payloads, repeat(path)))


def _as_json(payload: object) -> bytes | None:
    if payload is None:
        return None
    if not isinstance(payload, str):
        raise ValueError("a payload is no text")  # noqa: TRY004 - of a file
    return payload.encode()


MOST_PHRASES: Final = 64
MOST_CHARACTERS: Final = 100_000
"""Of a query; what comes after does not count."""
_COMMON: Final = 1_000
"""Texts that a term may be in, however few there are in all, before it can be left out."""


def match_expression(
    connection: sqlite3.Connection, analyser: Analyser, text: str, *, findable: int
) -> str:
    """The FTS5 query for any of the terms of ``text``; empty where no text has one of them.

    ``findable`` is how many texts there are.
    """
    found, _ = counted_phrases(connection, analyser, text, findable=findable)
    return " OR ".join(quoted(phrase) for phrase in found)


def counted_phrases(
    connection: sqlite3.Connection, analyser: Analyser, text: str, *, findable: int
) -> tuple[list[Phrase], list[Phrase]]:
    """The terms of ``text`` that a query asks for, and those that no text has."""
    phrases = analyser.phrases(text[:MOST_CHARACTERS])
    every = sorted(
        (texts_with(connection, phrase), place, phrase) for place, phrase in enumerate(phrases)
    )
    counted = [each for each in every if each[0]]
    common = common_above(findable)
    rare = [each for each in counted if each[0] <= common] or counted[:1]
    absent = [phrase for texts, _, phrase in every[:MOST_PHRASES] if not texts]
    return [phrase for _, _, phrase in rare[:MOST_PHRASES]], absent


@dataclass(frozen=True, slots=True)
class TermWeights:
    """What BM25 makes of a query: FTS5's own numbers."""

    phrases: tuple[tuple[Phrase, float], ...] = ()
    """Each with its inverse document frequency."""
    mean_length: float = 1.0
    """Terms of a text on average."""


def term_weights(
    connection: sqlite3.Connection, analyser: Analyser, text: str, *, findable: int
) -> TermWeights:
    """The weights of the terms of ``text``, over the texts of a file.

    The inverse document frequency is FTS5's: the logarithm of (N - n + 0.5) / (n + 0.5), where n of
    N texts have the phrase, and a millionth where it is not above 0.
    """
    asked, absent = counted_phrases(connection, analyser, text, findable=findable)
    rows, terms = _averages(connection)
    weighed: list[tuple[Phrase, float]] = []
    for phrase in (*asked, *absent):
        texts = 0 if phrase in absent else _texts_with_phrase(connection, phrase)
        weight = math.log((rows - texts + 0.5) / (texts + 0.5))
        weighed.append((phrase, weight if weight > 0 else _LEAST_WEIGHT))
    return TermWeights(tuple(weighed), terms / rows if rows and terms else 1.0)


_LEAST_WEIGHT: Final = 1e-6
_AVERAGES_ROW: Final = 1


def _texts_with_phrase(connection: sqlite3.Connection, phrase: Phrase) -> int:
    if len(phrase) == 1:
        return texts_with(connection, phrase)
    query = "SELECT count(*) FROM terms WHERE terms MATCH ?"
    return int(connection.execute(query, (quoted(phrase),)).fetchone()[0])


def _averages(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many texts FTS5 has indexed, and how many terms they have together.

    They lie in its record of averages: two numbers of seven bits a byte, the highest first.
    """
    found = connection.execute(
        "SELECT block FROM terms_data WHERE id = ?", (_AVERAGES_ROW,)
    ).fetchone()
    numbers: list[int] = []
    number = 0
    for byte in b"" if found is None or not isinstance(found[0], bytes) else found[0]:
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(number)
            number = 0
    rows, terms = (*numbers, 0, 0)[:2]
    return rows, terms


def common_above(findable: int) -> int:
    """In how many of ``findable`` texts a term may be and still count beside rarer ones."""
    return max(findable // 2, _COMMON)


def texts_with(connection: sqlite3.Connection, phrase: Phrase) -> int:
    """How many texts have the rarest term of ``phrase``; of one term: how many it is in."""
    query = "SELECT texts FROM frequencies WHERE term = ?"
    fewest: int | None = None
    for term in phrase:
        found = connection.execute(query, (term,)).fetchone()
        if found is None:
            return 0
        if not isinstance(found[0], int):
            raise ValueError("a frequency is no number")  # noqa: TRY004 - of a file, not of a caller
        fewest = found[0] if fewest is None else min(fewest, found[0])
    return fewest or 0


def all_of(phrases: Iterable[Phrase]) -> str:
    """The FTS5 query for texts that hold every one of ``phrases``."""
    return " AND ".join(map(quoted, phrases))


def quoted(phrase: Phrase) -> str:
    """Terms that follow each other as an FTS5 string, in which nothing is syntax."""
    return '"' + " ".join(phrase) + '"'


class ForkGate:
    """One for the process, since SQLite's locks are: `fork_gate` gives it."""

    def __init__(self) -> None:
        # Its lock may be taken again by the thread that has it: anywhere in here the interpreter
        # may collect garbage, and with it close the connections of an unused index.
        self._changed = threading.Condition(threading.RLock())
        self._mine = threading.local()
        self._inside = 0
        self._forking = False
        self._forker_was_inside = False
        os.register_at_fork(
            before=self._shut, after_in_parent=self._open, after_in_child=self._open
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around everything that SQLite is asked to do; waits for a fork that is under way."""
        if getattr(self._mine, "inside", False):
            yield
            return
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._inside += 1
            self._mine.inside = True
        try:
            yield
        finally:
            with self._changed:
                self._mine.inside = False
                self._inside -= 1
                if self._forking:
                    self._changed.notify_all()

    def _shut(self) -> None:
        self._changed.acquire()
        # A signal's handler may fork in the middle of this thread's own query.
        self._forker_was_inside = getattr(self._mine, "inside", False)
        self._mine.inside = self._forking = True
        while self._inside > self._forker_was_inside:
            self._changed.wait()

    def _open(self) -> None:
        self._mine.inside, self._forking = self._forker_was_inside, False
        self._changed.notify_all()
        self._changed.release()


@cache
def fork_gate() -> ForkGate:
    """The gate of this process."""
    return ForkGate()


# The first format, from before there was an analyser: FTS5 cut the texts, by the tokenizer of the
# settings, and a query was cut into runs of letters and digits. Readers serve such a version until
# it is built again, which is due as soon as a rebuilder of this release runs.

_FIRST_TEXT: Final = """
    SELECT texts.body FROM entries LEFT JOIN texts ON texts.rowid = entries.row
    WHERE entries.id = ?
"""
_FIRST_RUNS: Final = 64
_FIRST_RUN: Final = re.compile(r"[^\W_]+")
_LOOSE_ACCENT: Final = re.compile("[\u0300-\u036f]")


def _first_match_expression(text: str) -> str:
    """The FTS5 query for any of the words of ``text``; empty where there is none."""
    text = text.encode("utf-8", "ignore").decode()
    whole = _LOOSE_ACCENT.sub("", unicodedata.normalize("NFC", text))
    runs = list(dict.fromkeys(_FIRST_RUN.findall(whole)))
    return " OR ".join(f'"{run}"' for run in runs[:_FIRST_RUNS])


def _first_texts_with(connection: sqlite3.Connection, term: str) -> int:
    """How many texts have ``term``."""
    expression = '"' + term.replace('"', '""') + '"'
    query = "SELECT count(*) FROM texts WHERE texts MATCH ?"
    (found,) = connection.execute(query, (expression,)).fetchone()
    return int(found)
