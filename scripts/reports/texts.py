"""Section C: texts that are searched by what stands in them, through a text index on disk."""
# ruff: noqa: INP001, RUF001 - a script; and letters that look alike are what this is about

import unicodedata
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.text_index import TextIndexParameters, TextSearch
from indexrelay.components.text_index.analyser import Analyser, Tokenizer
from indexrelay.components.text_index.database import write_database
from indexrelay.storage.entries import Entries
from scripts.reports.report import Attempt, reports

FILLER = [f"another note, number {number}" for number in range(20)]
OLD_TOKENIZER = "porter unicode61 remove_diacritics 2"
HANGUL = "회의록"
PAGE = " ".join(f"word{number}" for number in range(20_000))


def asked(
    text: str, question: str, *, tokenizer: Tokenizer = "words", filler: Sequence[str] = FILLER
) -> Attempt:
    """Which entries are found, where ``text`` stands in one that is called ``wanted``."""

    def attempt(folder: Path) -> object:
        texts: list[str | None] = [*filler, text]
        entries = Entries(
            ids=[*(f"note {number}" for number in range(len(filler))), "wanted"],
            vectors=np.zeros((len(texts), 1), dtype=np.float32),
            texts=texts,
            payloads=[None] * len(texts),
        )
        path = folder / "texts.db"
        write_database(path, [(0, entries)], analyser=Analyser(tokenizer))
        with closing(TextSearch(path)) as index:
            found = [hit.id for hit in index.search(question)]
        return "found" if "wanted" in found else f"found only {found}"

    return attempt


def refused(question: object, k: object) -> Attempt:
    """What a search says to a query that is none."""

    def attempt(folder: Path) -> object:
        path = folder / "texts.db"
        write_database(path, [], analyser=Analyser())
        with closing(TextSearch(path)) as index:
            try:
                return index.search(question, k=k)  # type: ignore[arg-type] # which is the point
            except InvalidQueryError as error:
                return f"refused: {error}"

    return attempt


def found(tried: str, text: str, question: str, **more: Tokenizer) -> tuple[str, str, Attempt]:
    """A row for a text that has to be found."""
    return tried, "found$", asked(text, question, **more)


def tokenizer(name: str) -> Attempt:
    """What the settings say to it."""
    return lambda _: TextIndexParameters.model_validate({"tokenizer": name})


REPORTS = reports(
    "C13",
    found("a Chinese question with the words inside", "公司的报销流程", "报销流程是什么"),
    found("the same under trigram", "公司的报销流程", "报销流程是什么", tokenizer="trigram"),
    found("a Korean title in NFD, by NFC", unicodedata.normalize("NFD", HANGUL), HANGUL),
    found("a Korean title with an ending", HANGUL, "회의록이 어디에 있나요?"),
    found("Hindi by one word", "हिन्दी में खोज", "हिन्दी"),
    found("Tamil by one word", "குழந்தைகள் விளையாடுகிறார்கள்", "குழந்தைகள்"),
    found("Thai, a word within", "ห้องสมุดอยู่ใกล้แม่น้ำ", "ห้องสมุด"),
    found("Arabic with harakat, asked without", "كَتَبَ الطَّالِبُ", "كتب"),
    found("Hebrew with niqqud, asked without", "בְּרֵאשִׁית", "בראשית"),
    found("Vietnamese, asked without marks", "phở ngon nhất Hà Nội", "pho"),
    found("C++", "C++", "C++"),
    found("C++ in a question", "Porting C++ code", "what is C++?"),
    found("C#", "C#", "c#"),
    found(".NET", ".NET", ".NET"),
    found("F#", "F#", "F#"),
    found("one letter under trigram", "R", "R", tokenizer="trigram"),
    found("two letters under trigram", "Go for it", "go", tokenizer="trigram"),
    found("one Chinese character", "水", "什么是水？"),
    found("emoji", "🚀", "🚀"),
    found("snake_case by a part", "read_csv_file", "csv"),
    found("camelCase by a part", "getUserName", "user"),
    found("an e-mail address", "write to jane.doe@example.org", "jane.doe@example.org"),
    found("a number with separators, without", "1,234,567", "1234567"),
    found("operators as text", 'AND OR NOT NEAR("x")', 'NOT NEAR("'),
    found("the end of a long page", "lighthouse", f"{PAGE[:90_000]} lighthouse"),
    ("nothing", r"\[\]$", refused("", 1)),
    ("punctuation", r"\[\]$", refused("?!*", 1)),
    ("NUL", r"\[\]$", refused("\x00", 1)),
    ("half a pair", r"\[\]$", refused("\ud800", 1)),
    ("k of 2**80", r"\[\]$", refused("a", 2**80)),
    ("k of 0", r"refused: k is", refused("a", 0)),
    ("no text", r"refused: a query", refused(None, 1)),
    (
        "a tokenizer of before",
        '.*write tokenizer = "english"',
        tokenizer(OLD_TOKENIZER),
    ),
)
