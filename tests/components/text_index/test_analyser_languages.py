"""An entry is found by its own text, in every script and however it is written."""

import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import regex
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from indexrelay.components.text_index import TextIndex, TextIndexParameters, TextSearch
from indexrelay.components.text_index.analyser import Analyser, Tokenizer, _unicode
from tests.components.jobs import make_job, make_snapshot, run
from tests.components.text_index.sentences import LANGUAGES, OTHER, PUNCTUATION, QUESTIONS, WITHIN

TEXTS = {**LANGUAGES, **OTHER}
TOKENIZERS = get_args(Tokenizer)
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS = get_args(Form)
WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\p{DI}]*")


def index_of(folder: Path, texts: dict[str, str], tokenizer: Tokenizer) -> TextSearch:
    vectors = np.ones((len(texts), 2), dtype=np.float32)
    source = make_snapshot(vectors, ids=list(texts), texts=list(texts.values()))
    kind = TextIndex(TextIndexParameters(tokenizer=tokenizer))
    done = run(kind, make_job(folder, source))
    assert done.failed == [], [check for check in done.checks if not check.passed]
    return kind.load(done.files)


@pytest.fixture(scope="module", params=TOKENIZERS)
def index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TextSearch]:
    """Every text as it is written, and decomposed, as file names of macOS are."""
    texts = dict(TEXTS)
    texts |= {f"{name}, NFD": unicodedata.normalize("NFD", text) for name, text in TEXTS.items()}
    with closing(index_of(tmp_path_factory.mktemp("index"), texts, request.param)) as index:
        yield index


def missed(index: TextSearch, asked: Iterable[tuple[str, str]], *, k: int = 20) -> list[str]:
    """Of names and questions those that do not lead to the entry and to its decomposed twin."""
    return [
        f"{question!r} does not find {name}: {found}"
        for name, question in asked
        if not {name, f"{name}, NFD"} <= set(found := [h.id for h in index.search(question, k=k)])
    ]


def test_every_text_is_found_by_itself_in_every_normal_form_and_case(index: TextSearch) -> None:
    for form in FORMS:
        asked = [(name, unicodedata.normalize(form, text)) for name, text in TEXTS.items()]
        assert missed(index, asked, k=10) == []
    assert missed(index, [(name, text.lower()) for name, text in TEXTS.items()], k=10) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_text_is_found_by_each_of_its_words(index: TextSearch, form: Form) -> None:
    asked = [
        (name, word)
        for name, text in TEXTS.items()
        for word in {*unicodedata.normalize(form, text).split(), *WORD.findall(text)}
        if Analyser().terms(word)
    ]
    assert len(asked) > 600
    assert missed(index, asked, k=len(index)) == []


@pytest.mark.parametrize(
    "question",
    [
        "Where is {}?",
        "\u8bf7\u95ee{}\u662f\u4ec0\u4e48",
        "\xab{}\xbb \u0433\u0434\u0435?",
        '"{}" AND NEAR((',
    ],
)
def test_every_text_is_found_by_a_question_that_contains_it(
    index: TextSearch, question: str
) -> None:
    assert missed(index, [(name, question.format(text)) for name, text in TEXTS.items()]) == []


def test_texts_are_found_by_words_that_their_readers_see(index: TextSearch) -> None:
    assert missed(index, WITHIN) == []


def test_texts_are_found_by_questions_that_contain_their_words(index: TextSearch) -> None:
    assert missed(index, QUESTIONS) == []


def test_punctuation_alone_is_nothing_to_find(index: TextSearch) -> None:
    assert [text for text in PUNCTUATION if index.search(text)] == []


def test_what_is_written_alike_comes_first(tmp_path: Path) -> None:
    texts = {"grave": "mà", "acute": "má", "none": "ma", "hook": "mả", "other": "so"}
    with closing(index_of(tmp_path, texts, "words")) as index:
        for name in ("grave", "acute", "hook"):
            found = [hit.id for hit in index.search(texts[name])]
            assert (found[0], set(found)) == (name, set(texts) - {"other"})


def test_parts_of_words_are_found_under_trigram_and_other_parts_are_not(tmp_path: Path) -> None:
    texts = {"folder": "a folder", "holder": "the holder", "go": "go", "google": "google"}
    with closing(index_of(tmp_path, texts, "trigram")) as index:
        assert [hit.id for hit in index.search("olde", k=4)] == ["folder", "holder"]
        assert [hit.id for hit in index.search("foldex", k=4)] == []
        assert [hit.id for hit in index.search("go", k=4)] == ["go"]


LETTERS = st.characters(
    codec="utf-8", categories=["L", "N", "M", "S", "P", "Z", "Cf", "Co", "Cn", "Cc"]
)
SCRIPTS = st.one_of(
    [
        st.text(st.characters(min_codepoint=first, max_codepoint=last), max_size=12)
        for first, last in [
            (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x3FF), (0x400, 0x52F), (0x590, 0x5FF),
            (0x600, 0x6FF), (0x900, 0x97F), (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF),
            (0x1000, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x3040, 0x30FF),
            (0x4E00, 0x4E40), (0xAC00, 0xAC80), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF),
            (0x1F300, 0x1F6FF),
        ]
    ]
)  # fmt: skip
ANY_TEXT = st.lists(SCRIPTS | st.text(LETTERS, max_size=8), max_size=4).map(" ".join)


def findable(text: str) -> bool:
    """Whether there is a letter or a digit in it that anybody sees."""
    return any(character.isalnum() for character in unicodedata.normalize("NFKC", text))


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT, tokenizer=st.sampled_from(TOKENIZERS))
def test_every_word_of_any_text_has_its_terms_only(text: str, tokenizer: Tokenizer) -> None:
    """The rule behind the guarantee: a word alone is cut as it is within the text."""
    analyser = Analyser(tokenizer)
    terms = set(analyser.terms(text))
    assert set(analyser.terms(f"({text})")) == terms
    assert terms <= set(analyser.terms(f"where is {text} ?"))
    for word in text.split():
        assert set(analyser.terms(word)) <= terms
    for form in ("NFC", "NFD"):
        assert set(analyser.terms(unicodedata.normalize(form, text))) == terms


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x7F), max_size=60))
def test_texts_of_ascii_alone_are_cut_by_the_same_rules(text: str) -> None:
    assert Analyser().terms(text) == _unicode().words(text)


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT, tokenizer=st.sampled_from(TOKENIZERS))
def test_fts5_keeps_every_term_as_it_is(text: str, tokenizer: Tokenizer) -> None:
    terms = Analyser(tokenizer).terms(text)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(
            "CREATE VIRTUAL TABLE terms USING fts5 (text, tokenize = \"ascii tokenchars '+#.'\")"
        )
        connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab (terms, instance)")
        connection.execute("INSERT INTO terms VALUES (?)", (" ".join(terms),))
        kept = connection.execute("SELECT term FROM words ORDER BY offset").fetchall()
    assert [term for (term,) in kept] == terms


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=8), tokenizer=st.sampled_from(TOKENIZERS))
def test_every_text_that_has_a_letter_finds_its_own_entry(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], tokenizer: Tokenizer
) -> None:
    texts = [text for text in texts if findable(text)]
    assume(texts)
    named = {f"{place}": text for place, text in enumerate(texts)}
    with closing(index_of(tmp_path_factory.mktemp("index"), named, tokenizer)) as index:
        for name, text in named.items():
            for question in (text, f"(what is {text}?)", unicodedata.normalize("NFD", text)):
                assert name in [hit.id for hit in index.search(question, k=len(texts))]
