"""The keys of a ``kind = "text_index"`` table."""

from indexrelay.components.kind import KindParameters
from indexrelay.components.text_index.query import Tokenizer


class TextIndexParameters(KindParameters):
    """How texts become words, and whether there have to be any."""

    tokenizer: Tokenizer = "unicode61 remove_diacritics 2"
    """How FTS5 cuts texts into words: as they are, without accents and case (the default); the
    same with English endings cut off (``porter …``); or any three characters (``trigram``), for
    languages without spaces and for parts of words."""

    allow_empty: bool = False
    """Whether it may be released although no entry has a text: else a job that gives none would
    only be noticed by those who search."""
