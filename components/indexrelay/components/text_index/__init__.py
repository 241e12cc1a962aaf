"""BM25 over the texts of one collection, in one immutable SQLite file."""

from indexrelay.components.text_index.kind import TextIndex
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.search import TextSearch

__all__ = ["TextIndex", "TextIndexParameters", "TextSearch"]
