"""A released text index and the changes since it, searched as one.

The texts of live rows are cut by the analyser of the version and weighed by BM25 as FTS5 computes
it, with the version's numbers: how many texts there are, how long they are, and how many have each
term. So a live row has the score that it would have in the version, and both compare. A term that
no text of the version has counts in live rows as one that none has: it is the rarest.

Rows are only appended, so what was made of the first ones stays: each is cut once for all versions
(`LiveRows.terms`), and every `BLOCK` of them gets a list of rows for each term (`Postings`), by
whichever thread needs it first. The rows behind the last whole block are looked through one by one.
A query costs something for each block, so eight of one size are joined to one, off the path of
queries and of the writer.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.live.entries import (
    FindLive,
    LiveEntries,
    LiveQuestion,
)
from indexrelay.components.live.rows import LiveRows, LiveView, Rows
from indexrelay.components.query import TEXT_KEYWORDS, Hits, QueryOptions, TextKeywords
from indexrelay.components.served import Hit
from indexrelay.components.text_index.analyser import Analyser, Phrase
from indexrelay.components.text_index.search import TermWeights, TextSearch

_K1: Final = 1.2
_B: Final = 0.75
"""Of BM25, as FTS5 has them."""
BLOCK: Final = 128
"""Rows that have postings together: one by one so many take a third of a millisecond."""
JOINED: Final = 8
"""Blocks of one size that become one: a query takes 5 µs for each, however large it is."""
Lengths = NDArray[np.float64]
"""Terms of each text, shape ``(rows,)``."""


@dataclass(frozen=True, slots=True)
class RowTerms:
    """The terms of one live row."""

    counts: Counter[str]
    length: int
    """How many there are, repeated ones too."""
    terms: tuple[str, ...]
    """In their order, where phrases of several are looked for; else none."""

    @classmethod
    def of(cls, text: str | None, analyser: Analyser) -> "RowTerms":
        """Cut a text."""
        terms = () if text is None else tuple(analyser.terms(text))
        # Only pieces of words follow each other in a phrase.
        kept = terms if analyser.tokenizer == "trigram" else ()
        return cls(Counter(terms), len(terms), kept)

    def frequency(self, phrase: Phrase) -> int:
        """How often the terms of a phrase follow each other in it."""
        if len(phrase) == 1:
            return self.counts[phrase[0]]
        if any(term not in self.counts for term in phrase):
            return 0
        size = len(phrase)
        places = range(len(self.terms) - size + 1)
        return sum(self.terms[place : place + size] == phrase for place in places)


class Postings:
    """Which rows of one block have each term; immutable."""

    def __init__(
        self, block: Sequence[RowTerms], rows: dict[str, NDArray[np.int64]], lengths: Lengths
    ) -> None:
        """``rows``: by term, the rows that have it and how often, shape ``(2, n)``."""
        self.block = block
        self.rows = rows
        self.lengths = lengths

    def __len__(self) -> int:
        """How many rows the block has."""
        return len(self.block)

    @classmethod
    def of(cls, block: Sequence[RowTerms]) -> "Postings":
        """Those of some rows."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row, terms in enumerate(block):
            for term, count in terms.counts.items():
                found.setdefault(term, []).append((row, count))
        lengths = np.array([terms.length for terms in block], dtype=np.float64)
        return cls(block, {term: np.array(rows).T for term, rows in found.items()}, lengths)

    @classmethod
    def joined(cls, parts: Sequence["Postings"]) -> "Postings":
        """Those of several blocks that follow each other."""
        found: dict[str, list[NDArray[np.int64]]] = {}
        first = 0
        for part in parts:
            for term, rows in part.rows.items():
                found.setdefault(term, []).append(rows + np.array([[first], [0]]))
            first += len(part)
        return cls(
            [terms for part in parts for terms in part.block],
            {
                term: rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)
                for term, rows in found.items()
            },
            np.concatenate([part.lengths for part in parts]),
        )

    def scores(self, weights: TermWeights) -> NDArray[np.float64] | None:
        """The score of each row of the block; ``None``: no row has any of the terms."""
        scores: NDArray[np.float64] | None = None
        longer = _K1 * (1.0 - _B + _B * self.lengths / weights.mean_length)
        for phrase, weight in weights.phrases:
            found = self.rows.get(phrase[0])
            if found is None:
                continue
            rows, counts = found
            if len(phrase) > 1:
                counts = np.array([self.block[row].frequency(phrase) for row in rows.tolist()])
            if scores is None:
                scores = np.zeros(len(self.block))
            scores[rows] += weight * counts * (_K1 + 1.0) / (counts + longer[rows])
        return scores


class ReleasedTexts:
    """One version of a text index as changes are laid over it; safe to use from many threads."""

    def __init__(self, index: TextSearch, covers: int, analyser: Analyser) -> None:
        """``covers``: the generation that it contains of its collection."""
        self.index = index
        self.covers = covers
        self.analyser = analyser
        self._rows: dict[str, int] = {}
        """Of the version, by id: of those that were asked for."""
        self._cut: CutRows | None = None

    def with_changes(self, view: LiveView) -> "LiveTextSearch":
        """What answers for the version and a view."""
        return LiveTextSearch(self, view)

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """The row of the version that each id has; -1: it has none."""
        known = self._rows
        new = [each for each in ids if each not in known]
        if new:
            known.update(zip(new, self.index.rows_of(new).tolist(), strict=True))
        return np.array([known[each] for each in ids], dtype=np.int64)

    def scored(self, view: LiveView, weights: TermWeights) -> NDArray[np.float64]:
        """The score of each row of a view; 0: it has none of the terms."""
        cut = self._prepared(view)
        first = 0
        scores = np.zeros(len(cut.terms))
        for part in cut.joined:
            first = _fill(scores, first, part, weights)
        # What is joined may go on behind the view.
        for block in range(first // BLOCK, view.count // BLOCK):
            first = _fill(scores, first, cut.blocks[block], weights)
        for row in range(first, view.count):
            scores[row] = _score(cut.terms[row], weights)
        return scores[: view.count]

    def prepare(self, view: LiveView) -> None:
        """Cut the texts that are new in a view, so that no query has to."""
        self._prepared(view)

    def index_rows(self, view: LiveView) -> bool:
        """Join blocks, where there are enough of one size."""
        cut = self._prepared(view)
        joined, whole = [*cut.joined], len(cut.terms) // BLOCK
        if cut.first >= whole:
            return False
        for block in range(cut.first, whole):
            joined.append(cut.blocks[block])
            while len(joined) >= JOINED and len(joined[-JOINED]) == len(joined[-1]):
                joined[-JOINED:] = [Postings.joined(joined[-JOINED:])]
        # Another thread may have come further meanwhile: it makes the blocks behind these anew.
        self._cut = CutRows(cut.rows, cut.terms, {}, joined, whole)
        return True

    def _prepared(self, view: LiveView) -> "CutRows":
        """The terms of each row, and the postings of each whole block, at least of the view."""
        cut = self._cut
        if cut is None or cut.rows is not view.rows:
            cut = CutRows(view.rows, [], {}, [], 0)
        known = len(cut.terms)
        if known < view.count:
            # New ones: another query may be reading the old ones, or have come as far.
            terms = self._terms(view)
            more = range(max(known // BLOCK, cut.first), len(terms) // BLOCK)
            blocks = cut.blocks | {
                block: Postings.of(terms[block * BLOCK : (block + 1) * BLOCK]) for block in more
            }
            cut = self._cut = CutRows(view.rows, terms, blocks, cut.joined, cut.first)
        return cut

    def _terms(self, view: LiveView) -> list[RowTerms]:
        """The terms of each row, at least of the view; cut once for all versions."""
        rows, analyser = view.rows, self.analyser
        known = rows.terms.get(analyser, [])
        more = [RowTerms.of(text, analyser) for text in rows.texts[len(known) : view.count]]
        if more:
            rows.terms[analyser] = known = known + more
        return known


@dataclass(frozen=True, slots=True)
class CutRows:
    """What was made of the rows of a collection so far; never changed."""

    rows: LiveRows
    terms: list[RowTerms]
    """Of each row."""
    blocks: dict[int, Postings]
    """By its number, each whole block that is not joined."""
    joined: list[Postings]
    """Those of the first rows, some of many blocks."""
    first: int
    """The number of the first block that is not joined."""


class LiveTextSearch(LiveEntries):
    """Searches a version and the changes since it; immutable, and safe to use from many threads.

    It answers what a `TextSearch` does, with the same arguments and the same errors.
    """

    with_texts = True
    _index: TextSearch

    def __init__(self, released: ReleasedTexts, view: LiveView) -> None:
        """``view`` holds every change since the version, up to its generation."""
        super().__init__(released.index, released.covers, view)
        self._released = released
        self.analyser: Analyser | None = released.analyser
        """What cuts its texts."""

    @property
    def word_score(self) -> float:
        """As `TextSearch.word_score`, of the version: live rows are weighed by its numbers."""
        return self._index.word_score

    def search(self, text: str, *, k: int = 10, **options: Unpack[TextKeywords]) -> Hits:
        """As `TextSearch.search`."""
        return self.ask(text, QueryOptions.of(k, options, TEXT_KEYWORDS))

    def ask(self, text: str, options: QueryOptions) -> Hits:
        """As `TextSearch.ask`."""
        if not isinstance(text, str):
            raise InvalidQueryError(f"a query is a str, not {type(text).__name__}")
        question = LiveQuestion(
            self, lambda asked: self._index.ask(text, asked), self._find_live(text)
        )
        return question.answer(options)

    def text(self, entry_id: str) -> str | None:
        """As `TextSearch.text`."""
        row = self.live_row(entry_id)
        return self._index.text(entry_id) if row is None else self.view.rows.texts[row]

    def scores_of(self, text: str, ids: Collection[str]) -> dict[str, float]:
        """As `TextSearch.scores_of`."""
        rows = {each: self.find(each) for each in ids}
        found = self._index.scores_of(text, [each for each in ids if rows[each] is None])
        live = [(each, row) for each, row in rows.items() if row is not None]
        if live:
            # A row that was deleted has no text, and so none of the words.
            scores = self._released.scored(self.view, self._index.weights(text))
            found |= {each: float(scores[row]) for each, row in live if scores[row] > 0}
        return found

    def _find_live(self, text: str) -> FindLive:
        weights = self._index.weights(text) if self.entries else TermWeights()
        return lambda k, among, worst: self._best(weights, k, among, worst or 0.0)

    def _best(self, weights: TermWeights, k: int, among: Rows, worst: float) -> Sequence[Hit]:
        """The ``k`` live rows of ``among`` that fit best, and better than ``worst``."""
        if not len(among) or not weights.phrases:
            return []
        scores = self._released.scored(self.view, weights)[among]
        fitting = np.flatnonzero(scores > worst)
        best = fitting[np.argsort(-scores[fitting], kind="stable")[:k]]
        return self.hits_of(list(zip(scores[best].tolist(), among[best].tolist(), strict=True)))

    def _replaced(self, filter_: Any) -> int:
        return self._index.count_rows(self._rows_of_changed, filter_)

    @cached_property
    def _rows_of_changed(self) -> Rows:
        """The row of the version that each entry has which changed since; -1: it is new."""
        return self._released.rows_of(self._changed_ids)


def _fill(scores: NDArray[np.float64], first: int, part: Postings, weights: TermWeights) -> int:
    """Write the scores of a block whose first row is ``first``; the row behind its last."""
    found = part.scores(weights)
    end = first + len(part)
    if found is not None:
        scores[first:end] = found
    return end


def _score(terms: RowTerms, weights: TermWeights) -> float:
    """BM25 of one row, as FTS5's ``bm25`` with its sign turned."""
    score = 0.0
    longer = _K1 * (1.0 - _B + _B * terms.length / weights.mean_length)
    for phrase, weight in weights.phrases:
        frequency = terms.frequency(phrase)
        if frequency:
            score += weight * frequency * (_K1 + 1.0) / (frequency + longer)
    return score
