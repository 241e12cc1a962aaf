"""The vectors themselves, by id: a matrix and a table of ids, both mapped.

For services that compute with embeddings rather than search them. The matrix holds what the
collection holds, bit for bit: nothing is normalised. All processes of a host share its pages.
"""

from indexrelay.components.embedding_cache.kind import EmbeddingCache
from indexrelay.components.embedding_cache.served import Embeddings

__all__ = ["EmbeddingCache", "Embeddings"]
