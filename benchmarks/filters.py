"""How well does a filtered search find, and how long does it take beside an unfiltered one?

Embeddings of real texts, in a graph and in inverted lists, each tuned to recall@10 0.95 without a
filter. The filters match 50, 10, 1 and 0.1 % of the entries: by a range of numbers, drawn at
random. Recall is that of the matches, against comparing all of them; latency is that of one query
with its hits, ids and payloads, on one thread.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from indexrelay.components.kind import Job
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, Vectors
from measuring.arrays import COLLECTION, ArrayCollection, entry_id
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, at_least, at_most
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, interleaved

CAVEATS = """\
- Static word vectors of docstrings and their sentences (256 dimensions, cosine); the queries are
  texts that are not in the index. Index, filter and unfiltered search have the same entries.
- The filters are independent of the vectors. One whose matches lie far from the query is met less
  often than its share says, and found less well where it matches many.
- A reader keeps what its last filters matched, as here after the first query. "New each time" is a
  range that was never asked for before: all of its columns are read again.
- An unfiltered search does less around FAISS than a filtered one; the shorter it takes, the more
  the 30 µs of reading the filter and planning weigh.
"""
COUNT, QUICK_COUNT = 100_000, 4_000
QUERIES, QUICK_QUERIES = 500, 40
MIN_RECALL: Final = 0.95
SHARES: Final = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}
K: Final = 10


@dataclass(frozen=True, kw_only=True)
class Drawn(ArrayCollection):
    """Entries with a number between 0 and 1 each, by which they are filtered."""

    metric: Metric = Metric.COSINE
    numbers: Sequence[float] = field(default_factory=list)

    def _entries(self, places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Entries:
        rows = places.tolist()
        return Entries(
            ids=[entry_id(row) for row in rows],
            vectors=np.ascontiguousarray(self.vectors[places]),
            texts=[None] * len(rows),
            payloads=[f'{{"title":"Track {row}","number":{self.numbers[row]}}}' for row in rows],
        )


@dataclass(frozen=True)
class Version:
    """A built version, opened as a reader has it."""

    served: VectorSearch
    queries: Vectors

    def asked(self, asked: Mapping[str, Any] | None) -> Contender:
        """Every query once, with one filter."""

        def turn() -> float:
            faiss.omp_set_num_threads(1)
            began = time.perf_counter()
            for query in self.queries:
                self.served.search(query, k=K, filter=asked)
            return time.perf_counter() - began

        return turn

    def asked_anew(self, share: float) -> Contender:
        """Every query once, each with a filter that was never asked for before."""
        step = iter(range(1, 1 << 40))

        def turn() -> float:
            faiss.omp_set_num_threads(1)
            began = time.perf_counter()
            for query in self.queries:
                limit = share * (1 + next(step) * 1e-9)
                self.served.search(query, k=K, filter={"number": {"$lt": limit}})
            return time.perf_counter() - began

        return turn


def built(folder: Path, source: Drawn, index: str, queries: Vectors) -> Version:
    """One version, without its gates."""
    parameters = {"index": index, "min_recall": MIN_RECALL, "filterable": {"number": "number"}}
    kind = VectorIndex(VectorIndexParameters.model_validate(parameters))
    folder.mkdir()
    made = kind.build(
        Job(
            component="similar",
            collections={COLLECTION: source},
            components={},
            previous=None,
            workdir=folder,
            threads=2,
            progress=lambda _share: None,
        )
    )
    return Version(kind.load({name: Path(str(file)) for name, file in made.files.items()}), queries)


def recall(version: Version, source: Drawn, limit: float) -> float:
    """Recall@10 of the entries below ``limit``, by distance: duplicates count for each other."""
    matching = np.array(source.numbers) < limit
    true = np.sort(np.where(matching, version.queries @ source.vectors.T, -np.inf), axis=1)
    # The scores of both sides differ by rounding.
    worst = true[:, -min(K, int(matching.sum()))] - 1e-5
    found = 0
    for query, least in zip(version.queries, worst, strict=True):
        hits = version.served.search(query, k=K, filter={"number": {"$lt": limit}})
        found += sum(1 for hit in hits if hit.score >= least)
    return found / (len(worst) * min(K, int(matching.sum())))


def measure(asked: Asked) -> Findings:
    texts = real_texts(asked.say, quick=asked.quick)
    vectors, queries = texts.split(QUICK_QUERIES if asked.quick else QUERIES)
    vectors = np.ascontiguousarray(vectors[: QUICK_COUNT if asked.quick else COUNT])
    numbers = np.random.default_rng(17).random(len(vectors)).tolist()
    source = Drawn(vectors=vectors, numbers=numbers)
    indexes = {
        "HNSW": "HNSW32",
        "IVF": "IVF64,Flat" if asked.quick else "IVF512,Flat",
    }
    figures: list[Figure] = []
    contenders: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, ExitStack() as stack:
        versions: dict[str, Version] = {}
        for name, index in indexes.items():
            asked.say(f"building {index} over {len(vectors)} real embeddings")
            versions[name] = built(Path(folder) / name, source, index, queries)
            stack.callback(versions[name].served.close)
            contenders[name] = versions[name].asked(None)
            for share, limit in SHARES.items():
                contenders[f"{name}, {share}"] = versions[name].asked({"number": {"$lt": limit}})
            contenders[f"{name}, 10 % new each time"] = versions[name].asked_anew(0.1)
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        for name, version in versions.items():
            for share, limit in SHARES.items():
                asked.say(f"{name}: recall at {share}")
                explained = version.served.search(
                    queries[0], k=K, filter={"number": {"$lt": limit}}, explain=True
                ).explanation
                figures += [
                    Figure(
                        name=f"{name}: recall@10 at {share} matches",
                        value=recall(version, source, limit),
                        target=at_least(MIN_RECALL),
                        note="" if explained is None else explained.plan,
                    ),
                    Figure(
                        name=f"{name}: latency at {share} ÷ unfiltered",
                        value=rounds.ratio(f"{name}, {share}", name),
                        target=at_most(2),
                    ),
                ]
            figures.append(
                Figure(
                    name=f"{name}: latency at 10 %, a new filter each time ÷ unfiltered",
                    value=rounds.ratio(f"{name}, 10 % new each time", name),
                )
            )
    return Findings(
        figures=tuple(figures),
        measured=tuple(rounds.rates(name, len(queries), "queries/s") for name in contenders),
        plots=(
            Bars(
                name="filters",
                title="Queries a second, by the share of the entries that match",
                unit="queries/s",
                bars=tuple((name, len(queries) / rounds.median(name)) for name in contenders),
            ),
        ),
    )


PROGRAM = Program(name="filters", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
