"""A text index: built, judged, served; what people type is never syntax."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import CorruptFileError, InvalidQueryError, UnknownEntryError
from indexrelay.components.text_index import DATABASE, TextIndex, TextIndexParameters, TextSearch
from indexrelay.components.text_index.analyser import Analyser, Tokenizer
from indexrelay.components.text_index.database import open_database
from indexrelay.components.text_index.search import MOST_PHRASES
from tests.components.jobs import MemorySnapshot, Run, make_job, make_snapshot, run

TEXTS = [
    "Read a CSV file row by row.",
    "Split a path into folder and name.",
    "Caf\u00e9 au lait, and a na\u00efve question.",
    None,
    "Read a file, line by line; reading files is what this reads.",
    "",
    'snake_case and don\'t: NEAR(this) AND that OR (other) NOT "quoted" *',
]


def snapshot(texts: Sequence[str | None] = TEXTS) -> MemorySnapshot:
    return make_snapshot(
        np.ones((len(texts), 2), dtype=np.float32),
        texts=texts,
        payloads=[None if row % 2 else f'{{"row": {row}}}' for row in range(len(texts))],
    )


def build(folder: Path, source: MemorySnapshot, tokenizer: Tokenizer | None = None) -> Run:
    parameters = {} if tokenizer is None else {"tokenizer": tokenizer}
    return run(TextIndex(TextIndexParameters(**parameters)), make_job(folder, source))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[TextSearch]:
    with closing(TextIndex(TextIndexParameters()).load(build(tmp_path, snapshot()).files)) as index:
        yield index


def found(index: TextSearch, text: str) -> list[str]:
    return [hit.id for hit in index.search(text)]


@pytest.mark.parametrize("tokenizer", get_args(Tokenizer))
def test_every_tokenizer_passes_every_gate(tmp_path: Path, tokenizer: Tokenizer) -> None:
    done = build(tmp_path, snapshot(), tokenizer)
    assert done.failed == []
    assert done.built.entries == len(TEXTS)
    assert done.built.details["texts"] == 6
    assert [check.name for check in done.checks] == [
        "reads_back",
        "integrity",
        "count",
        "has_texts",
        "ids_unique",
        "entries_match_source",
        "frequencies",
        "found_as_asked",
    ]


def test_the_best_match_comes_first_with_its_payload(index: TextSearch) -> None:
    hits = index.search("csv file by row")
    assert [hit.id for hit in hits[:2]] == ["e000000", "e000004"]
    assert hits[0].score > hits[1].score > 0
    assert hits[0].payload == {"row": 0}


def test_no_more_than_k_are_returned(index: TextSearch) -> None:
    assert [hit.id for hit in index.search("read a file", k=1)] == ["e000000"]
    assert len(index.search("read a file", k=2)) == 2
    assert len(index.search("read a file", k=2**80)) == 4


@pytest.mark.parametrize(("k", "why"), [(0, "at least 1"), (1.5, "whole"), ("3", "whole")])
def test_a_k_that_is_none_is_refused(index: TextSearch, k: object, why: str) -> None:
    with pytest.raises(InvalidQueryError, match=why):
        index.search("read", k=k)  # type: ignore[arg-type] # which is the point


def test_a_query_that_is_no_text_is_refused(index: TextSearch) -> None:
    with pytest.raises(InvalidQueryError, match="a query is a str, not bytes"):
        index.search(b"read")  # type: ignore[arg-type] # which is the point


@pytest.mark.parametrize("text", ["cafe", "CAF\u00c9", "cafe\u0301", "naive"])
def test_case_and_accents_do_not_matter_however_they_are_written(
    index: TextSearch, text: str
) -> None:
    assert found(index, text) == ["e000002"]


def test_endings_are_cut_where_the_tokenizer_does_so(tmp_path: Path) -> None:
    kind = TextIndex(TextIndexParameters(tokenizer="english"))
    with closing(kind.load(run(kind, make_job(tmp_path, snapshot())).files)) as index:
        assert found(index, "questions") == ["e000002"]


def test_parts_of_words_are_found_where_the_tokenizer_cuts_threes(tmp_path: Path) -> None:
    kind = TextIndex(TextIndexParameters(tokenizer="trigram"))
    with closing(kind.load(run(kind, make_job(tmp_path, snapshot())).files)) as index:
        assert found(index, "older") == ["e000001"]


@pytest.mark.parametrize("text", ["", "  ", '"', "*", "()", "\x00", "-^:", "_", "\ud800"])
def test_a_query_without_a_word_finds_nothing(index: TextSearch, text: str) -> None:
    assert index.search(text) == []


def test_operators_are_words(index: TextSearch) -> None:
    assert found(index, "NOT") == ["e000006"]
    assert found(index, "body: NEAR(nothing") == ["e000006"]
    assert found(index, 'csv NOT "row') == ["e000000", "e000006"]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=60) | st.text('"*()^:-+{}ANDORTNE \x00', max_size=30))
def test_nothing_that_can_be_typed_raises(index: TextSearch, text: str) -> None:
    assert len(index.search(text)) <= len(index)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.none() | st.text(max_size=30), max_size=12))
def test_any_texts_pass_the_gates(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None]
) -> None:
    texts = [None if text is None else text.encode("utf-8", "ignore").decode() for text in texts]
    missing = not any(Analyser().terms(text) for text in texts if text is not None)
    done = build(tmp_path_factory.mktemp("job"), snapshot(texts))
    assert done.failed == (["has_texts"] if texts and missing else [])


def test_entries_without_any_text_are_released_only_where_that_is_right(tmp_path: Path) -> None:
    nothing = snapshot([None] * 3)
    done = build(tmp_path / "by default", nothing)
    (failed,) = (check for check in done.checks if not check.passed)
    assert failed.name == "has_texts"
    assert "texts=" in failed.detail
    allowed = TextIndex(TextIndexParameters(allow_empty=True))
    assert run(allowed, make_job(tmp_path / "allowed", nothing)).failed == []


def test_of_a_pasted_page_the_rarest_words_count(tmp_path: Path) -> None:
    filler = [f"common word{row % 200} of many" for row in range(1000)]
    done = build(tmp_path, snapshot([*filler, "lighthouse keeper"]))
    page = " ".join(f"word{row}" for row in range(MOST_PHRASES * 3)) + " the lighthouse keeper"
    with closing(TextIndex(TextIndexParameters()).load(done.files)) as index:
        assert found(index, page)[0] == "e001000"
        assert found(index, page + " x" * 50_000)[0] == "e001000"


def test_texts_of_punctuation_alone_are_counted_and_where_there_are_no_others_said(
    tmp_path: Path,
) -> None:
    done = build(tmp_path / "some", snapshot(["...", "word", "?! -", None]))
    details = done.built.details
    assert (done.failed, details["texts"], details["texts_without_words"]) == ([], 3, 2)
    with closing(TextIndex(TextIndexParameters()).load(done.files)) as index:
        assert (index.texts, index.findable, found(index, "...")) == (3, 1, [])
    none = build(tmp_path / "none", snapshot(["...", "?!"]))
    assert none.failed == ["has_texts"]
    assert "no text has a word" in none.check("has_texts").detail


def test_texts_of_words_that_all_texts_have_pass_the_gates_and_are_found(tmp_path: Path) -> None:
    done = build(tmp_path, snapshot(["row"] * 1500 + ["what is known about the others"]))
    assert done.failed == []
    with closing(TextIndex(TextIndexParameters()).load(done.files)) as index:
        assert len(index.search("row", k=2000)) == 1500
        assert found(index, "known row") == ["e001500"]


@pytest.mark.parametrize("tokenizer", ["words", "english", "trigram"])
def test_a_text_of_words_that_most_have_is_found_by_them_and_not_beside_rarer_ones(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for others, beside_rarer in ((999, True), (1000, False)):
        texts = [*(f"of the place{number}" for number in range(others)), "of the"]
        done = build(tmp_path / str(others), snapshot(texts), tokenizer)
        own = f"e{others:06d}"
        assert done.failed == []
        kind = TextIndex(TextIndexParameters(tokenizer=tokenizer))
        with closing(kind.load(done.files)) as index:

            def is_found(question: str, index: TextSearch = index, own: str = own) -> bool:
                return own in {hit.id for hit in index.search(question, k=2000)}

            assert all(map(is_found, ("of the", "of", "the")))
            assert is_found("of the place7") == beside_rarer


def test_entries_without_a_text_are_counted_and_keep_their_payload(index: TextSearch) -> None:
    assert (len(index), index.texts) == (7, 6)
    assert "e000003" in index
    assert index.text("e000003") is None
    assert index.text("e000001") == TEXTS[1]
    assert index.payload("e000004") == {"row": 4}
    assert index.payload("e000003") is None
    with pytest.raises(UnknownEntryError, match="'nobody'"):
        index.payload("nobody")


def test_an_empty_collection_is_a_valid_index_that_finds_nothing(tmp_path: Path) -> None:
    done = build(tmp_path, snapshot([]))
    with closing(TextIndex(TextIndexParameters()).load(done.files)) as index:
        assert (done.failed, len(index), index.search("anything")) == ([], 0, [])


def test_equal_entries_make_equal_files(tmp_path: Path) -> None:
    texts = [f"word{row % 17} and word{row % 29}" for row in range(3000)]
    files = [build(tmp_path / name, snapshot(texts)).files[DATABASE] for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_threads_search_side_by_side_and_close_leaves_nothing_open(tmp_path: Path) -> None:
    texts = [f"word{row} common" for row in range(500)]
    index = TextIndex(TextIndexParameters()).load(build(tmp_path, snapshot(texts)).files)

    def ask(row: int) -> bool:
        return found(index, f"word{row}") == [f"e{row:06d}"]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(500)))
    connections = list(index._idle)
    assert 1 <= len(connections) <= 4
    index.close()
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("keep", [0, 50, 4096, -1, -4096])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    source = snapshot()
    kind = TextIndex(TextIndexParameters())
    job = make_job(tmp_path, source)
    built = kind.build(job)
    path = tmp_path / DATABASE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError):
        kind.load({DATABASE: path})
    assert [check.name for check in kind.verify(job, built, {DATABASE: path})] == ["reads_back"]


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(CorruptFileError, match="not a text index"):
        TextSearch(path)


def test_no_more_payloads_are_read_than_may_be(index: TextSearch) -> None:
    hits = index.search("read")
    size = sum(len(json.dumps(hit.payload)) for hit in hits if hit.payload is not None)
    assert size > 0
    assert index.search("read", max_payload_bytes=size) == hits
    with pytest.raises(InvalidQueryError, match=f"more than {size - 1} bytes; ask for fewer"):
        index.search("read", max_payload_bytes=size - 1)
    assert index.search("read") == hits, "the connection is as it was"


def test_a_page_is_checked_when_it_is_read_and_not_with_each_query(tmp_path: Path) -> None:
    path = build(tmp_path, snapshot()).files[DATABASE]
    with closing(open_database(path)) as connection:
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("trusted_schema", "cell_size_check", "mmap_size")
        ]
    assert found == [0, 1, 0], "each page of a mapped file would be checked whenever it is touched"
