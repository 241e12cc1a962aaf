"""Asks an index, to have its instructions counted: ``queries.py DESCRIPTION``.

The description is a JSON file: ``files`` of a version by name, ``queries`` (a ``.npy``), and how
many ``times`` one is asked. It marks three pieces of work: our search, bare FAISS at the same
effort, and a call that does nothing.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np

from indexrelay.components.vector_index import VectorSearch
from indexrelay.components.vector_index.index_search import search_parameters
from measuring.instructions import mark

WARM_UP = 20
"""The interpreter makes faster code of what ran a few times."""


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    served = VectorSearch({name: Path(path) for name, path in given["files"].items()})
    index = served.contents.base.index
    parameters = search_parameters(index, served.facts.effort)
    queries = list(np.load(given["queries"])[: given["times"]])
    faiss.omp_set_num_threads(1)
    for ask in (
        served.search,
        lambda query: index.search(query[None, :], 10, params=parameters),
        lambda _query: None,
    ):
        for query in queries[:WARM_UP]:
            ask(query)
        mark()
        for query in queries:
            ask(query)
        mark()


if __name__ == "__main__":
    main()
