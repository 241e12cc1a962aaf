"""The keys of a ``kind = "text_index"`` table."""

from typing import Any, Final

from pydantic import field_validator

from indexrelay.components.kind import KindParameters
from indexrelay.components.text_index.analyser import Tokenizer

_FORMER: Final = {
    "unicode61 remove_diacritics 2": "words",
    "porter unicode61 remove_diacritics 2": "english",
}
"""Values that earlier releases took, and what says the same now."""


class TextIndexParameters(KindParameters):
    """How texts become words, and whether there have to be any."""

    tokenizer: Tokenizer = "words"
    """What is looked up of a text: its words, without case and accents, whatever the script
    (``words``, the default); the same with English endings cut off (``english``); or any three
    characters of a word (``trigram``), so that parts of words are found."""

    allow_empty: bool = False
    """Whether it may be released although no entry has a text with a word in it: else a job that
    gives none would only be noticed by those who search."""

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _name_successor(cls, value: Any) -> Any:
        if isinstance(value, str) and (successor := _FORMER.get(value)):
            raise ValueError(
                f'FTS5 no longer cuts the texts: write tokenizer = "{successor}", or leave it out'
                if successor == "words"
                else f'FTS5 no longer cuts the texts: write tokenizer = "{successor}"'
            )
        return value
