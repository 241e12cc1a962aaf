"""A FAISS index over the vectors of one collection, opened by mapping it.

`kind` is the class. `full_build` reads the collection and draws the query `sample`; `selection`
builds candidates by `index_build`, which learns the `centroids` of lists, and measures them by the
`tuner`. `incremental_build` continues the last version. `gates` judge what was built. `version`
opens the files, and `search` is what a reader serves, by `index_search` in each `mapped_index`.
FAISS is imported when one of these runs.
"""

from indexrelay.components.query import VectorKeywords
from indexrelay.components.vector_index.kind import VectorIndex
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.spec import VectorIndexParameters

__all__ = ["VectorIndex", "VectorIndexParameters", "VectorKeywords", "VectorSearch"]
