"""Texts as vectors: TF-IDF, then a truncated SVD, fitted once on the whole corpus.

This is latent semantic analysis (Deerwester et al., 1990): no download, no network, seconds on two
cores, and good enough that a question finds its docstring. Every vector has unit length; a text
that shares no word with the corpus has no direction and therefore no vector.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.console.errors import CorpusError
from indexrelay.storage.entries import Vectors

DIMENSION = 256
_SEED = 0
_NEGLIGIBLE = 1e-6
"""Lengths below this are rounding, not meaning."""


class Embedding:
    """A fitted embedding; safe to use from several threads."""

    def __init__(self, texts: Sequence[str], *, dimension: int = DIMENSION) -> None:
        """Fit on ``texts``; a small corpus gives fewer dimensions than asked for.

        Raises:
            CorpusError: the texts do not hold two different words.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words: Any = TfidfVectorizer(
            sublinear_tf=True, stop_words="english", max_df=0.5 if len(texts) > 10 else 1.0
        )
        try:
            weights = self._words.fit_transform(texts)
        except ValueError as error:
            raise CorpusError(f"the texts hold no words to tell them apart by: {error}") from error
        dimension = min(dimension, weights.shape[0] - 1, weights.shape[1] - 1)
        if dimension < 1:
            raise CorpusError("the texts hold fewer than two different words")
        self._svd: Any = TruncatedSVD(dimension, random_state=_SEED, n_iter=3)
        self._svd.fit(weights)
        self.dimension = dimension

    def __call__(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.bool_]]:
        """The vectors of ``texts``: shape ``(n, dimension)``, float32, unit length.

        The second array, shape ``(n,)``, is false where a text has no vector; its row is zero.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32), np.zeros(0, np.bool_)
        raw = self._svd.transform(self._words.transform(texts))
        lengths = np.linalg.norm(raw, axis=1)
        known = lengths > _NEGLIGIBLE
        unit = np.zeros_like(raw)
        np.divide(raw, lengths[:, None], out=unit, where=known[:, None])
        return np.ascontiguousarray(unit, dtype=np.float32), known
