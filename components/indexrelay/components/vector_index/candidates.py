"""Which indexes `auto` may build: ways to keep vectors, in lists, in a graph, or in neither.

A **scan** is exact, and needs neither training nor tuning. **Inverted lists** are about three times
the square root of the rows, in a power of two: twice as many take four times as long to build, and
a query compares as much. A **graph** compares the fewest vectors, takes ten times as long to build,
and has links beside the vectors.

In each of them vectors may be kept in fewer bits. What is coarser than sixteen bits may also
compare the best candidates' full vectors (``RFlat``), which stay in a mapped file and of which a
query reads a few dozen. All of these can be mapped, and searched around tombstones; a test holds
that. Decision 023 says what else FAISS has, and why it is not here.
"""

from dataclasses import dataclass
from math import log2, sqrt
from typing import Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.index_build import searched_bytes, trainable_rows
from indexrelay.components.vector_index.spec import AUTO, Factory, IndexSpec, Prefer, parse_factory


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that may be built, and why."""

    form: str
    """Its factory string, with ``IVF*`` where the number of lists follows that of the rows."""
    reason: str
    unless: str = ""
    """Another form; if that one falls short of nothing, this one is not tried."""

    def factory(self, spec: IndexSpec) -> Factory:
        """As it is built over the rows of ``spec``."""
        return parse_factory(self.form.replace("IVF*", f"IVF{list_count(spec)}"))

    def bytes(self, spec: IndexSpec) -> int:
        """Of what a query may read any part of; see ``max_bytes``."""
        return searched_bytes(self.factory(spec), spec)


_SCANNED_ROWS: Final = 10_000
_SCANNED_VALUES: Final = 20_000 * 128
"""Up to here one thread scans everything in under 0.4 ms (2.2 ms for 10,000 rows of 1536)."""
_AT_ONCE_VALUES: Final = 400_000
"""Up to here in 0.04 ms, which is about what a graph takes: nothing else is tried."""
_POINTS_PER_LIST: Final = 39
"""What k-means needs for each list."""
_FEWEST_LISTS: Final = 16
"""With fewer lists than this, finding the right ones costs what it saves."""
_ENCODINGS: Final = ("Flat", "SQfp16", "SQ8", "SQ8,RFlat", "SQ4,RFlat", "RaBitQ,RFlat")
"""Ways to keep a vector, the most exact first."""
_GRAPHS: Final = ("HNSW24,SQfp16", "HNSW24", "HNSW24,SQ8,RFlat")
"""24 links: as fast as 32 with a tenth less to keep, and faster than 16 near a recall of 0.99."""


def candidates(spec: IndexSpec) -> tuple[Candidate, ...]:
    """What may be built within ``max_bytes``, and what is ready soonest first.

    Raises:
        MemoryLimitError: nothing that `auto` may choose is as small as ``max_bytes``.
    """
    parameters, count = spec.parameters, spec.count
    if parameters.index != AUTO:
        return (_named(parse_factory(parameters.index), count),)
    values = count * spec.dimension
    at_once, lists_to_find = values <= _AT_ONCE_VALUES, list_count(spec)
    scans: list[Candidate] = []
    lists: list[Candidate] = []
    graphs: list[Candidate] = []
    if count <= _SCANNED_ROWS or values <= _SCANNED_VALUES:
        scans = _kept("", f"scanning {count} entries is exact")
    if not scans or (not at_once and lists_to_find >= _FEWEST_LISTS):
        lists = _kept("IVF*,", f"{lists_to_find} lists suit {count} entries")
    if not at_once and parameters.nprobe is None:
        why = f"a graph over {count} entries looks at the fewest vectors for each query"
        # Full vectors are slower over many entries, which a part of them does not show. They are
        # for what sixteen bits cannot hold.
        graphs = [
            Candidate(graph, why, unless=_GRAPHS[0] if graph == _GRAPHS[1] else "")
            for graph in _GRAPHS
        ]
    limit = parameters.max_bytes
    if limit is None:
        fitting = [scans, lists, graphs]
    else:
        fitting = [
            [each for each in some if each.bytes(spec) <= limit] for some in (scans, lists, graphs)
        ]
        if not any(fitting):
            smallest = min(each.bytes(spec) for each in (*scans, *lists, *graphs))
            raise MemoryLimitError(
                f"{count} vectors of length {spec.dimension} need {smallest} bytes even in the "
                f"smallest index; raise max_bytes ({limit}), or name an index that keeps less of "
                "each vector"
            )
    if parameters.prefer is not Prefer.MEMORY:  # then what keeps less of each vector gains nothing
        fitting[:2] = (_most_exact(some) for some in fitting[:2])
        fitting[2] = fitting[2][: len(_GRAPHS) - 1]  # a second look is what makes the last slower
    return tuple(candidate for some in fitting for candidate in some)


def _named(factory: Factory, count: int) -> Candidate:
    if count >= max(factory.needed_rows, 1):
        return Candidate(factory.text, "asked for")
    return Candidate(
        "Flat",
        f"{factory.text} needs {factory.needed_rows} entries to train; there are {count}",
    )


def _kept(lists: str, reason: str) -> list[Candidate]:
    """Every way to keep vectors, the most exact first."""
    return [Candidate(f"{lists}{encoding}", reason) for encoding in _ENCODINGS]


def _most_exact(of: list[Candidate]) -> list[Candidate]:
    """The first, and the same with a second look at full vectors."""
    return [each for each in of[:2] if each is of[0] or each.form == f"{of[0].form},RFlat"]


def list_count(spec: IndexSpec) -> int:
    """About 3·√n, as a power of two, and no more than can be trained within the build's memory."""
    if not spec.count:
        return 0
    trained = min(spec.count, trainable_rows(spec.dimension, spec.memory))
    lists: int = 2 ** round(log2(3 * sqrt(spec.count)))
    while lists > 1 and lists * _POINTS_PER_LIST > trained:
        lists //= 2
    return lists
