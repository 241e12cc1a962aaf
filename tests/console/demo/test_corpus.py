"""The demo's texts: the standard library's docstrings, or a folder of files."""

from pathlib import Path

import pytest

from indexrelay.console.demo.corpus import Document, standard_library, text_folder
from indexrelay.console.errors import CorpusError

SOURCE = '''
"""A module."""

class Shelf:
    """Holds books."""

    def add(self):
        """Put one on it.

        At the end.
        """

    def remove(self):
        pass

    async def wait(self):
        """Holds books."""

if True:
    def twice():
        "First."
else:
    def twice():
        "Second."
'''


def test_docstrings_are_found_and_repeats_and_empty_ones_are_dropped_and_counted(
    tmp_path: Path,
) -> None:
    (tmp_path / "shelf.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_shelf.py").write_text('def f():\n    "Not documentation."\n')
    corpus = standard_library(tmp_path)
    assert [(each.id, each.text) for each in corpus.documents] == [
        ("shelf:Shelf", "Holds books."),
        ("shelf:Shelf.add", "Put one on it.\n\nAt the end."),
        ("shelf:twice", "First."),
        ("shelf:twice#2", "Second."),
    ]
    assert (corpus.found, corpus.empty, corpus.repeated, corpus.unreadable) == (6, 1, 1, 1)
    assert corpus.documents[1].summary == "Put one on it."
    assert [each.kind for each in corpus.documents] == ["class", *["function"] * 3]


def test_source_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text('raise SystemExit\ndef f():\n    "Harmless."\n')
    assert standard_library(tmp_path).documents[0].text == "Harmless."


def test_the_running_standard_library_is_large_and_has_no_text_twice() -> None:
    documents = standard_library().documents
    assert len(documents) > 4000
    assert len({document.text for document in documents}) == len(documents)
    assert len({document.id for document in documents}) == len(documents)
    assert any(document.id == "shutil:copytree" for document in documents)


def test_a_folder_gives_one_entry_for_each_text_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("alpha\n")
    (tmp_path / "deep" / "b.md").write_text("beta")
    (tmp_path / "same.txt").write_text("alpha")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    corpus = text_folder(tmp_path)
    assert [(each.id, each.text) for each in corpus.documents] == [
        ("a.txt", "alpha"),
        ("deep/b.md", "beta"),
    ]
    assert (corpus.found, corpus.empty, corpus.repeated, corpus.unreadable) == (4, 1, 1, 2)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no text was found"):
        text_folder(tmp_path)
    with pytest.raises(CorpusError, match="not a folder"):
        text_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("csv:DictReader.__init__", "csv Dict Reader init"),
        ("http.client:HTTPConnection", "http client HTTP Connection"),
        ("os:get_terminal_size", "os get terminal size"),
    ],
)
def test_the_words_of_a_name_are_searched_too(name: str, words: str) -> None:
    assert Document(id=name, text="Text.", place="x").searched == f"{words}\nText."
