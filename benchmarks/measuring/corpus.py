"""Real texts, and their embeddings: the docstrings of everything that is installed here.

Synthetic vectors flatter inverted lists, so what is said of an index is also measured on these. The
texts are the docstrings of the standard library and of every installed package, and their sentences
one by one, each once. The vectors are the demo's: static word vectors, 256 dimensions, unit length.
Reading and embedding take a minute, so both are kept in ``benchmarks/.corpus`` under the digest of
what is installed; a folder of another installation is removed.
"""

import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from shutil import rmtree
from typing import Final

import numpy as np

from indexrelay.console.demo.corpus import standard_library
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.errors import CorpusError
from indexrelay.storage.entries import Vectors
from measuring.rounds import Say

_KEPT: Final = Path(__file__).parents[1] / ".corpus"
_FORMAT: Final = "2"
"""Counted up when other texts are taken, or embedded otherwise."""
_SENTENCE: Final = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`\"'(])|\n\s*\n|\n\s*[-*>]+\s")
_FEWEST_CHARACTERS: Final = 25
_MOST_CHARACTERS: Final = 1_000
_EMBEDDED_AT_ONCE: Final = 20_000
_SEED: Final = 29
_QUICK: Final = 6_000


@dataclass(frozen=True)
class RealTexts:
    """Texts in an order drawn once, and the vector of each."""

    texts: Sequence[str]
    vectors: Vectors
    """Shape ``(len(texts), 256)``, float32, unit length."""

    def split(self, queries: int) -> tuple[Vectors, Vectors]:
        """The vectors to index, and ``queries`` others to ask with."""
        return self.vectors[:-queries], self.vectors[-queries:]


def real_texts(say: Say, *, quick: bool = False) -> RealTexts:
    """Everything that there is: 229,859 texts where this was written.

    Args:
        say: told how far it is.
        quick: some thousands of the standard library's alone, embedded each time.
    """
    if quick:
        texts = _drawn(sorted(set(_sentences([sysconfig.get_path("stdlib")]))))[:_QUICK]
        return RealTexts(texts, Embedding()(texts)[0])
    folder = _KEPT / _digest()
    if not (folder / "vectors.npy").exists():
        rmtree(_KEPT, ignore_errors=True)
        folder.mkdir(parents=True)
        say("reading every docstring that is installed")
        roots = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
        texts = _drawn(sorted(set(_sentences(roots))))
        embedding = Embedding()
        pieces = []
        for start in range(0, len(texts), _EMBEDDED_AT_ONCE):
            say(f"embedding {start} of {len(texts)} texts")
            pieces.append(embedding(texts[start : start + _EMBEDDED_AT_ONCE])[0])
        (folder / "texts").write_text("\0".join(texts), encoding="utf-8")
        np.save(folder / "written.npy", np.concatenate(pieces))
        (folder / "written.npy").rename(folder / "vectors.npy")
    return RealTexts(
        texts=(folder / "texts").read_text(encoding="utf-8").split("\0"),
        vectors=np.load(folder / "vectors.npy"),
    )


def _sentences(roots: Sequence[str]) -> Iterator[str]:
    for root in roots:
        try:
            documents = standard_library(Path(root)).documents
        except CorpusError:
            continue
        for document in documents:
            whole = " ".join(document.text.split())
            for text in (whole[:_MOST_CHARACTERS], *_SENTENCE.split(document.text)):
                line = " ".join(text.split())
                if _FEWEST_CHARACTERS <= len(line) <= _MOST_CHARACTERS and "\0" not in line:
                    yield line


def _drawn(texts: list[str]) -> list[str]:
    order = np.random.default_rng(_SEED).permutation(len(texts))
    return [texts[place] for place in order.tolist()]


def _digest() -> str:
    names = sorted(f"{each.name}=={each.version}" for each in distributions())
    return hashlib.sha256("\n".join([_FORMAT, sys.version, *names]).encode()).hexdigest()[:16]
