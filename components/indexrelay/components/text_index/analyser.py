"""Cuts a text into terms; the same function cuts texts and queries.

An entry is found by its own text because nothing else ever cuts anything: FTS5 stores the terms
that come out here as they are, and a query is the terms of what was typed. Each step sees one word
and not its neighbours, so a word alone is cut as it is within a text.

1. **Spelling.** NFKC: composed and decomposed, full-width and half-width forms become one.
   Invisible characters (variation selectors, marks of direction) are dropped.
2. **Words** are runs of letters and digits with the marks that belong to them (Hindi, Tamil). Where
   one character joins words (``snake_case``, ``don't``, ``e-mail``, ``1,000.5``, ``os.path``) there
   is a term for each and one for all of them together; so it is with the humps of ``camelCase``.
   ``C++``, ``C#`` and ``.NET`` are terms beside ``c`` and ``net``. Emoji and other symbols are
   terms; punctuation is none.
3. **Scripts that put no spaces between words**, and Korean, which glues endings to them, are cut
   into single characters and overlapping pairs, as Lucene's CJK analyser does. A dictionary would
   give better words, but other ones for a word alone than within a sentence.
4. **Folding.** Case is folded, digits of all scripts are 0 to 9. Marks that a writer may leave out
   are folded (accents of Latin and Greek, vowel points of Arabic and Hebrew), and the word as it is
   written is a second term: ``uber`` and ``über`` find both, and first what is written alike. Marks
   that make another letter (Hindi, Thai, Japanese, the Russian ``й``) are kept.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any, Final, Literal

from indexrelay.schemas.errors import require

Tokenizer = Literal["words", "english", "trigram"]
"""Words; words without their English endings; any three characters of words."""

Phrase = tuple[str, ...]
"""Terms that follow each other. One term, but for the pieces of a word under ``trigram``."""

REVISION: Final = 1
"""Increased when texts are cut in another way: versions of an earlier revision are built again."""

_LONGEST: Final = 64
"""Characters of a term; of longer words (encoded data, hashes) the first ones count."""
_MOST_PIECES: Final = 8
"""Words that are put together, and humps that are split; what has more is no natural word."""
_REMEMBERED: Final = 2**15
"""Words whose terms are kept in a process: some 7 MB at most."""

_JOINT: Final = r"_+|[-'.]|,(?=[0-9])"
_SUFFIX: Final = r"\+\+|[+#](?![A-Za-z0-9_])"
_ASCII_TOKEN: Final = re.compile(
    rf"(?:(?<![\w.\])])\.(?=[A-Za-z]))?[A-Za-z0-9]+(?:(?:{_JOINT})[A-Za-z0-9]+)*(?:{_SUFFIX})?"
)
_ASCII_HUMP: Final = re.compile(r"[A-Z0-9]+(?![a-z])|[A-Z]?[a-z0-9]+")

_TYPOGRAPHY: Final = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u02bb\u02bc\u00b4\u05f3", "'"),
        **dict.fromkeys("\u00ad\u2010\u2011\u058a\u05be\u00b7\u200c\u05f4", "-"),
        **dict.fromkeys("\u066b\u066c", ","),
        **dict.fromkeys("\u2012\u2013\u2014\u2015\u201c\u201d\u201e\u00ab\u00bb\u2026\u00a0", " "),
    }
)
"""Apostrophes and hyphens in all their shapes, and separators of texts that are ASCII otherwise."""
_LETTERS: Final = str.maketrans(
    {
        "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00e6": "ae", "\u0153": "oe", "\u00f0": "d",
        "\u00fe": "th", "\u0131": "i", "\u0127": "h", "\u0167": "t",
        "\u0451": "\u0435", "\u0450": "\u0435", "\u045d": "\u0438",
        "\u0649": "\u064a", "\u06cc": "\u064a", "\u06a9": "\u0643", "\u0629": "\u0647",
        "\u06c1": "\u0647", "\u06be": "\u0647", "\u0671": "\u0627", "\u0640": None,
    }
)  # fmt: skip
"""Letters that Unicode does not take apart, and that people write in two ways: ``ø``, ``ة``."""


@dataclass(frozen=True)
class Analyser:
    """One way of cutting; a value, equal to every other one of the same ``tokenizer``."""

    tokenizer: Tokenizer = "words"

    @property
    def identity(self) -> str:
        """What has to be equal for two processes to cut every text alike, to the last character.

        Characters that are new in a Unicode version may be cut differently by an earlier one.
        """
        regex_version = require("regex").__version__
        parts = [f"{self.tokenizer}/{REVISION}", f"unicode {unicodedata.unidata_version}"]
        parts.append(f"regex {regex_version}")
        if self.tokenizer == "english":
            parts.append(f"snowball {_stemmer_version()}")
        return ", ".join(parts)

    def terms(self, text: str) -> list[str]:
        """All terms of ``text`` in their order, repeated ones too: what is indexed."""
        if self.tokenizer == "words":
            return _words(text)
        return [term for phrase in self._phrases(text) for term in phrase]

    def phrases(self, text: str) -> list[Phrase]:
        """The same terms as a query asks for them, each once."""
        return list(dict.fromkeys(self._phrases(text)))

    def _phrases(self, text: str) -> Iterable[Phrase]:
        words = _words(text)
        if self.tokenizer == "trigram":
            return map(_trigrams, words)
        if self.tokenizer == "english":
            words = self._stem(words)
        return ((word,) for word in words)

    @cached_property
    def _stem(self) -> Callable[[list[str]], list[str]]:
        stem: Callable[[list[str]], list[str]] = _stemmer().stemWords
        return stem


def _trigrams(word: str) -> Phrase:
    if len(word) <= 3:
        return (word,)
    return tuple(word[start : start + 3] for start in range(len(word) - 2))


def _words(text: str) -> list[str]:
    """The terms of ``tokenizer = "words"``."""
    if not text.isascii():
        text = text.translate(_TYPOGRAPHY)
    if not text.isascii():
        return _unicode().words(text)
    return list(chain.from_iterable(map(_terms_of_token, _ASCII_TOKEN.findall(text))))


@lru_cache(maxsize=_REMEMBERED)
def _terms_of_token(token: str) -> tuple[str, ...]:
    """The terms of one word, or of several that are joined; remembered, since words come again."""
    if token.isascii() and token.isalpha() and (token.islower() or token[1:].islower()):
        return (token[:_LONGEST].lower(),)
    core = token.lstrip(".").rstrip("+#")
    pieces = re.split(_JOINT, core)
    humps_of: Callable[[str], list[str]] = _ASCII_HUMP.findall
    forms: Callable[[str], tuple[str, ...]] = _ascii_forms
    if not core.isascii():
        humps_of, forms = _unicode().humps, _unicode().forms
    terms: list[str] = []
    for piece in pieces:
        terms += forms(piece)
        humps = humps_of(piece)
        if 1 < len(humps) <= _MOST_PIECES:
            for hump in humps:
                terms += forms(hump)
    if 1 < len(pieces) <= _MOST_PIECES:
        terms += forms("".join(pieces))
    if token[-1] in "+#":
        last = forms(pieces[-1])[0]
        terms.append(last + token[len(token.rstrip("+#")) :])
    if token[0] == ".":
        terms.append("." + forms(pieces[0])[0])
    return tuple(dict.fromkeys(terms))


def _ascii_forms(word: str) -> tuple[str, ...]:
    return (word[:_LONGEST].lower(),)


class _Unicode:
    """The same rules for texts that are not ASCII alone; the patterns cover every script."""

    def __init__(self) -> None:
        regex = require("regex")
        scripts = "Han Hiragana Katakana Hangul Bopomofo Thai Lao Khmer Myanmar Tai_Le New_Tai_Lue"
        scripts += " Tai_Tham Tai_Viet Javanese Balinese Tangut Nushu Khitan_Small_Script"
        unspaced = "".join(rf"\p{{{script}}}" for script in scripts.split())
        dense = rf"[[{unspaced}\u3006\u30fc\u3031-\u3035]&&[\p{{L}}\p{{Nl}}\p{{No}}]]"
        letter = rf"[[\p{{L}}\p{{N}}]--{dense}]"
        word = rf"{letter}[{letter}\p{{M}}]*"
        suffix = r"\+\+|[+#](?![\p{L}\p{N}_])"
        symbol = r"[[\p{S}\p{Co}\p{Cn}]--[\x00-\x7f\p{Sk}\p{NChar}\u2044\ufffc\ufffd]]"
        flags = regex.VERSION1
        self._unseen = regex.compile(r"[\p{DI}--[\u200b]]+", flags)
        # What NFKC spells out as whole words or numbers is a word of its own: fractions, enclosed
        # numbers, currency signs, two Arabic formulas.
        spelled_out = r"\u00bc-\u00be\u2150-\u215f\u2189\u2460-\u249b\u3220-\u3247\u3251-\u325f"
        spelled_out += r"\u3280-\u3289\u32b1-\u32bf\ufdfa\ufdfb\U0001f100-\U0001f10c"
        self._apart = regex.compile(rf"[[\p{{So}}\p{{Sc}}{spelled_out}]--\p{{RI}}]", flags)
        self._gershayim = regex.compile(r"(?<=\p{Hebrew})\"(?=\p{Hebrew})")
        self._digit = regex.compile(r"[\p{Nd}--[0-9]]", flags)
        self._token = regex.compile(
            rf"(?P<word>(?:(?<![\w.\])])\.(?=\p{{L}}))?{word}(?:(?:{_JOINT}){word})*(?:{suffix})?)"
            rf"|(?P<dense>(?:{dense}\p{{M}}*)+)"
            rf"|(?P<symbol>\p{{RI}}{{2}}|({symbol})\4*)",
            flags,
        )
        self._unit = regex.compile(rf"{dense}\p{{M}}*", flags)
        self._hump = regex.compile(r"[\p{Lu}\p{N}]+(?!\p{Ll})|\p{Lu}?[^\p{Lu}]+", flags)
        self.humps: Callable[[str], list[str]] = self._hump.findall
        self._cyrillic = regex.compile(r"\p{Cyrillic}")
        self._mark = regex.compile(
            "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"
            "\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
            "\u0711\u0730-\u074a]+"
        )

    def words(self, text: str) -> list[str]:
        """The terms of a text of any script."""
        text = self._unseen.sub("", self._apart.sub(r" \g<0> ", text))
        text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
        text = self._gershayim.sub("-", self._digit.sub(_ascii_digit, text))
        terms: list[str] = []
        for found in self._token.finditer(text):
            token, group = found.group(), found.lastgroup
            if group == "word":
                terms += _terms_of_token(token)
            elif group == "dense":
                terms += self._grams(token.casefold())
            else:
                terms.append(token if len(token) == 2 and token[0] != token[1] else token[0])
        return terms

    def forms(self, word: str) -> tuple[str, ...]:
        """A word folded, and as it is written where that is something else."""
        written = unicodedata.normalize("NFC", word.casefold())[:_LONGEST]
        # й and ї are letters of their own: of Cyrillic only marks that stand by themselves go.
        parts = written
        if not self._cyrillic.search(written):
            parts = unicodedata.normalize("NFD", written)
        bare = unicodedata.normalize("NFC", self._mark.sub("", parts).translate(_LETTERS))
        return (written,) if bare in ("", written) else (bare, written)

    def _grams(self, run: str) -> list[str]:
        """Every character, with its marks, and every two that follow each other."""
        units = self._unit.findall(run)
        return [*units, *map("".join, pairwise(units))]


@cache
def _unicode() -> _Unicode:
    return _Unicode()


def _ascii_digit(found: Any) -> str:
    digit = unicodedata.decimal(found.group(), None)
    return found.group() if digit is None else str(digit)


@cache
def _stemmer() -> Any:
    # Used by all threads: it keeps the interpreter's lock while it works.
    return require("Stemmer").Stemmer("english")


def _stemmer_version() -> str:
    return str(require("Stemmer").version())
