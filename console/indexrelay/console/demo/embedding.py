"""Text embeddings without a network: the static word vectors that the wheel ``wordllama`` ships.

A text's vector is the sum of its tokens' vectors, each times the square root of how often it comes
up, scaled to unit length: a word that a text repeats says less each time. The vectors were trained
by wordllama's authors from the token embeddings of Llama 2 (MIT licence; 32,000 tokens, 256
dimensions, https://github.com/dleemiller/WordLlama). Weights and tokenizer are read from the
installed files: wordllama's own loader asks a network for what is there already, so the package is
found and never imported.

In settings it is ``embedder = "indexrelay.console.demo.embedding:embed"``, for a collection of 256
dimensions.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.schemas.errors import EXTRAS, MissingExtraError
from indexrelay.storage.entries import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSION: Final = 256
_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
_TENSOR: Final = "embedding.weight"


class Embedding:
    """Static embeddings; safe to use from several threads once made."""

    dimension: Final = DIMENSION

    def __init__(self) -> None:
        """Find the installed files.

        Raises:
            MissingExtraError: the extra ``demo`` is not installed.
        """
        spec = find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise MissingExtraError("wordllama", EXTRAS["wordllama"])
        self._root = Path(spec.origin).parent

    def __call__(self, texts: Sequence[str]) -> tuple[Vectors, NDArray[np.bool_]]:
        """The vectors of ``texts``: shape ``(n, 256)``, float32, unit length.

        The second array, shape ``(n,)``, is false where a text has no token; its row is zero.
        """
        vectors = np.zeros((len(texts), DIMENSION), np.float32)
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for row, encoding in zip(vectors, encodings, strict=True):
            if encoding.ids:
                tokens, counts = np.unique(encoding.ids, return_counts=True)
                each = self._weights[tokens].astype(np.float32)
                row[:] = np.sqrt(counts, dtype=np.float32) @ each
        lengths = np.linalg.norm(vectors, axis=1)
        known = lengths > 0
        np.divide(vectors, lengths[:, None], out=vectors, where=known[:, None])
        return vectors, known

    @cached_property
    def _weights(self) -> NDArray[np.float16]:
        """The tokens' vectors, shape ``(32000, 256)``."""
        from safetensors.numpy import load_file

        weights: NDArray[np.float16] = load_file(self._root / _WEIGHTS)[_TENSOR]
        return weights

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._root / _TOKENIZER))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def embed(texts: Sequence[str]) -> Vectors:
    """The vectors of ``texts``, for settings; of a text without a token it is zero, and refused.

    Raises:
        MissingExtraError: the extra ``demo`` is not installed.
    """
    vectors, _ = _embedding()(texts)
    return vectors


@cache
def _embedding() -> Embedding:
    return Embedding()
