"""The vectors themselves, by id: matrices and a table of ids, all mapped.

For services that compute with embeddings rather than search them. It holds what the collection
holds, bit for bit: nothing is normalised. All processes of a host share its pages.

A version that follows a small batch names the base of the one before it again, and writes a delta
and tombstones beside it (`indexrelay.components.layers`): its cost follows the batch.
"""

from indexrelay.components.embedding_cache.kind import EmbeddingCache
from indexrelay.components.embedding_cache.parameters import EmbeddingCacheParameters
from indexrelay.components.embedding_cache.served import Embeddings

__all__ = ["EmbeddingCache", "EmbeddingCacheParameters", "Embeddings"]
