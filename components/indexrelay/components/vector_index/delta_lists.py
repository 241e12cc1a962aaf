"""When a delta is searched as an index, and the inverted lists in which one beside a graph is.

A few rows are scanned. More of them are an index of the base's type, with its trained centroids or
codebooks. A graph has none: a row is linked when it is added, and as every build writes the delta
again, each small batch would pay seconds for it. So beside a graph a delta of many rows lies in
lists that are trained with the base. Rows keep theirs from build to build, and the cost of a build
follows its batch. How many lists a query searches is tuned on random entries, as many as a delta
may have.
"""

from typing import Final

from indexrelay.components.vector_index.candidates import list_count
from indexrelay.components.vector_index.index_build import IndexFiles, build_index
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.sample import Dataset
from indexrelay.components.vector_index.spec import Effort, Factory, IndexFacts, parse_factory
from indexrelay.components.vector_index.tuner import Tuner

_SCANNED_ROWS: Final = 10_000
"""Beside what has no lists; a scan of as many rows of 128 takes 0.1 ms."""
_SCANNED_BESIDE_LISTS: Final = 1_000
"""… and of so many 15 µs, where `SharedLists` takes 5."""


def is_indexed(facts: IndexFacts, rows: int) -> bool:
    """Whether a delta of so many rows is searched as an index.

    Behind a transform the base measures other distances than a scan does, so their answers cannot
    be compared; a refinement measures the true ones again.
    """
    factory = parse_factory(facts.factory)
    in_lists = factory.lists or has_delta_lists(factory)
    scanned = _SCANNED_BESIDE_LISTS if in_lists else _SCANNED_ROWS
    return rows > scanned or (rows > 0 and factory.transformed and not factory.refined)


def has_delta_lists(base: Factory) -> bool:
    """Whether a delta of many rows beside it is searched in lists, which it has not itself."""
    return base.graph == "HNSW" and (base.refined or not base.transformed)


def train_delta_lists(files: IndexFiles, dataset: Dataset, effort: Effort) -> Effort:
    """Replace the trained base by trained lists, and return ``effort`` with their ``nprobe``.

    Where no delta will have so many rows, the trained base is deleted and nothing takes its place.

    Args:
        files: of the base, a graph.
        dataset: what the base was built over.
        effort: what the base is searched with.
    """
    files.trained.unlink()
    most = int(dataset.spec.parameters.max_delta * dataset.spec.count)
    if most <= _SCANNED_BESIDE_LISTS:
        return effort
    part, filled = dataset.part(most), files.beside().index
    lists = parse_factory(f"IVF{list_count(part.spec)},Flat")
    tried = IndexFiles(index=filled, trained=files.trained)
    build_index(tried, part.vectors, lists, part.spec, lambda _share: None)
    trial = Tuner(index=open_index(filled), dataset=part).tune(refined=False)
    filled.unlink()
    return effort if trial is None else effort.model_copy(update={"nprobe": trial.effort.nprobe})
