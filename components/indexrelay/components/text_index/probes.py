"""Whether texts are found as people ask for them: by themselves, by a word, within a question.

A question goes the way that every query goes (`query.match_expression`) and is then tried on one
row: FTS5 goes straight to that row in the list of each term, however long the list is. So it costs
the same to try a common word as a rare one.
"""

import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.components.judging import Verdict, equal
from indexrelay.components.text_index.analyser import Analyser, Phrase
from indexrelay.components.text_index.database import counts_of, reading
from indexrelay.components.text_index.query import (
    all_of,
    common_above,
    match_expression,
    texts_with,
)
from indexrelay.schemas.extras import require

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
