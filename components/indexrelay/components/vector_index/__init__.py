"""A FAISS index over the vectors of one collection, opened by mapping it.

The way of a build: `reading` brings the collection into files once, `choice` picks what to build,
`building` makes it, `sample` draws the queries, `tuning` finds the effort. `gates` judges the files
against the collection. `search` is what a reader serves. FAISS is imported when one of these runs.
"""

from indexrelay.components.vector_index.kind import VectorIndex
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.search import VectorSearch

__all__ = ["VectorIndex", "VectorIndexParameters", "VectorSearch"]
