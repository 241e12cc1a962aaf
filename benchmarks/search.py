"""How many queries a second does a snapshot answer, beside bare FAISS on the same index?

One vector at a time, k = 10, with everything that a user gets: the query is checked, hits have
string ids and payloads. IVF and HNSW, without and with payloads, and with 5 % tombstones and a 2 %
delta; over synthetic vectors, and IVF and HNSW also over embeddings of real texts. Graphs are also
asked 64 vectors at a time, for hits and for arrays, and their instructions are counted.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexrelay.components.kind import Job, PreviousVersion
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.components.vector_index.index_search import search_parameters
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, VersionManifest
from indexrelay.storage.entries import Changes, Entries, Vectors
from measuring.arrays import COLLECTION, ArrayCollection, drawn, entry_id
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, at_least
from measuring.instructions import CounterMissingError, counted
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, interleaved, on_two_threads

CAVEATS = """\
- Both sides search the same mapped index with the same effort, on one thread each. Bare FAISS is
  its Python `search` of one row, and gives row numbers; nothing is checked.
- With tombstones and a delta, bare FAISS searches the base as it was built: what a full build would
  have to be searched at.
- The shorter the query, the more what is around it weighs: here an IVF query takes some 0.1 ms.
- A graph answers in 40 to 60 µs. What surrounds a query is its check (1 µs), the call of FAISS, ten
  ids out of a mapped file (3) and ten hits (2). Bare FAISS's own Python function takes 4, which
  ours goes past.
- 64 vectors at a time: both sides make one call of FAISS. Ours then reads 640 ids out of the file;
  hits are made of them when somebody reads them, which "read" does (id and score of each), or at
  once arrays of ids and scores.
- Instructions are those that callgrind counts of one query; they are the same in every run, and say
  nothing about how long memory is waited for.
- Real embeddings are static word vectors of docstrings and their sentences (256 dimensions,
  cosine); the queries are texts that are not in the index. An index needs more effort there for the
  same recall, so what surrounds a query weighs less.
- Python runs one thread at a time; only FAISS lets go of the interpreter. What surrounds a query
  therefore costs more beside a second thread, which the last two figures show.
"""
IVF_COUNT, HNSW_COUNT, DIMENSION = 500_000, 100_000, 128
REAL_COUNT = 100_000
QUICK_COUNT = 20_000
QUERIES, QUICK_QUERIES = 2_000, 100
AT_A_TIME = 64
COUNTED = 200
"""Queries whose instructions are counted."""
CHANGED, GONE = 0.02, 0.03
"""Shares of the entries: what changed is a tombstone and a row of the delta."""


@dataclass(frozen=True, kw_only=True)
class Thinned(ArrayCollection):
    """A collection of which some entries went, one generation later."""

    gone: tuple[int, ...] = ()
    """Their rows."""

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self.vectors) - len(self.gone)

    @property
    def left_out(self) -> Mapping[str, int]:
        return {}

    def changes(self, after: int, rows: int = 10_000) -> Iterator[Changes] | None:
        """What came, and then what went."""
        none = Entries(
            ids=[],
            vectors=np.empty((0, self.dimension), dtype=np.float32),
            texts=[],
            payloads=[],
        )
        went = Changes(upserts=none, deletes=[entry_id(row) for row in self.gone])
        return chain(super().changes(after, rows) or (), [went])


@dataclass(frozen=True, kw_only=True)
class WithoutPayloads(ArrayCollection):
    """A collection of bare vectors."""

    def chunks(self, rows: int = 10_000) -> Iterator[Entries]:
        """Every entry, with nothing beside its vector."""
        for chunk in super().chunks(rows):
            yield replace(chunk, payloads=[None] * len(chunk))


@dataclass(frozen=True)
class Version:
    """A built version, opened as a reader has it."""

    queries: Vectors
    """What it is asked."""
    job: Job
    files: Mapping[str, Path]
    details: Mapping[str, Any]
    entries: int
    served: VectorSearch

    def bare(self) -> tuple[Any, Any]:
        """Its base, and FAISS's parameters for the same effort."""
        index = self.served.contents.base.index
        return index, search_parameters(index, self.served.facts.effort)


class Workshop:
    """Builds versions into one folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def build(
        self,
        source: ArrayCollection,
        name: str,
        queries: Vectors,
        *,
        previous: Version | None = None,
        **keys: Any,
    ) -> Version:
        """Build one version, continuing ``previous`` where there is one; without its gates."""
        kind = VectorIndex(VectorIndexParameters(**keys))
        workdir = self._folder / name
        workdir.mkdir()
        job = Job(
            component="similar",
            collections={COLLECTION: source},
            components={},
            previous=None if previous is None else _as_previous(previous),
            workdir=workdir,
            threads=len(os.sched_getaffinity(0)),
            progress=lambda _share: None,
        )
        built = kind.build(job)
        if built.extends != (previous is not None):
            raise RuntimeError(f"not built as it was meant to be: {built.details['build']}")
        before = {} if previous is None else previous.files
        files = {
            given: file if isinstance(file, Path) else before[given]
            for given, file in built.files.items()
        }
        served = kind.load(files)
        self._stack.callback(served.close)
        return Version(queries, job, files, built.details, built.entries, served)


def _as_previous(version: Version) -> PreviousVersion:
    source = version.job.collections[COLLECTION]
    manifest = VersionManifest(
        component="similar",
        kind="vector_index",
        definition="0" * 64,
        covers={COLLECTION: source.generation},
        epochs={COLLECTION: source.epoch},
        files={name: BlobRef(digest="0" * 64, size=0) for name in version.files},
        entries=version.entries,
        details=dict(version.details),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return PreviousVersion(manifest=manifest, files=version.files)


def ours(version: Version) -> Contender:
    return _each(version.served.search, version.queries)


def bare(version: Version) -> Contender:
    index, parameters = version.bare()
    return _each(lambda query: index.search(query[None, :], 10, params=parameters), version.queries)


def ours_together(version: Version) -> Contender:
    return _blocks(version.served.search_many, version.queries)


def read_together(version: Version) -> Contender:
    search_many = version.served.search_many
    return _blocks(
        lambda block: [(hit.id, hit.score) for hits in search_many(block) for hit in hits],
        version.queries,
    )


def arrays_together(version: Version) -> Contender:
    return _blocks(version.served.search_arrays, version.queries)


def bare_together(version: Version) -> Contender:
    index, parameters = version.bare()
    return _blocks(lambda block: index.search(block, 10, params=parameters), version.queries)


def _blocks(ask: Callable[[Vectors], object], queries: Vectors) -> Contender:
    starts = range(0, len(queries) - AT_A_TIME + 1, AT_A_TIME)
    return _each(ask, [queries[start : start + AT_A_TIME] for start in starts])


def instructions(version: Version, folder: Path) -> tuple[float, float]:
    """How many one query of ours takes, and one of bare FAISS."""
    np.save(folder / "queries.npy", version.queries[:COUNTED])
    description = folder / "description.json"
    description.write_text(
        json.dumps(
            {
                "files": {name: str(path) for name, path in version.files.items()},
                "queries": str(folder / "queries.npy"),
                "times": COUNTED,
            }
        ),
        encoding="utf-8",
    )
    mine, theirs, nothing = counted("queries", str(description), parts=3)
    times = min(COUNTED, len(version.queries))
    return (mine - nothing) / times, (theirs - nothing) / times


def _each(ask: Callable[[Vectors], object], queries: Iterable[Vectors]) -> Contender:
    def turn() -> float:
        faiss.omp_set_num_threads(1)
        began = time.perf_counter()
        for query in queries:
            ask(query)
        return time.perf_counter() - began

    return turn


def measure(asked: Asked) -> Findings:
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, ExitStack() as stack:
        workshop = Workshop(Path(folder), stack)
        versions = _synthetic(asked, workshop) | _real(asked, workshop)
        contenders: dict[str, Contender] = {}
        for name, version in versions.items():
            contenders[name] = ours(version)
            contenders[f"{name}, bare"] = bare(version)
        for name in ("IVF", "IVF, bare"):
            contenders[f"{name}, two threads"] = on_two_threads(contenders[name])
        graphs = [name for name in versions if name.startswith("HNSW")]
        for name in graphs:
            contenders[f"{name}, {AT_A_TIME} at a time"] = ours_together(versions[name])
            contenders[f"{name}, {AT_A_TIME} at a time, read"] = read_together(versions[name])
            contenders[f"{name}, {AT_A_TIME} at a time, arrays"] = arrays_together(versions[name])
            contenders[f"{name}, {AT_A_TIME} at a time, bare"] = bare_together(versions[name])
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        targets = {
            "IVF": 0.85,
            "HNSW": 0.85,
            "IVF with payloads": 0.7,
            "IVF with 5 % tombstones and a 2 % delta": 0.7,
            "IVF on real embeddings": 0.85,
            "HNSW on real embeddings": 0.85,
        }
        asked_of = len(versions["IVF"].queries)
        alone = rounds.speed("IVF, two threads", "IVF")
        beside = rounds.speed("IVF, bare, two threads", "IVF, bare")
        return Findings(
            figures=(
                *(
                    Figure(
                        name=f"{name} ÷ bare",
                        value=rounds.speed(name, f"{name}, bare"),
                        target=at_least(bound),
                    )
                    for name, bound in targets.items()
                ),
                *(
                    Figure(
                        name=f"{name}, {AT_A_TIME} at a time{form} ÷ bare",
                        value=rounds.speed(
                            f"{name}, {AT_A_TIME} at a time{form}",
                            f"{name}, {AT_A_TIME} at a time, bare",
                        ),
                        target=None if form == ", read" else at_least(0.95),
                    )
                    for name in graphs
                    for form in ("", ", read", ", arrays")
                ),
                *(_instructions(name, versions[name], Path(folder), asked) for name in graphs),
                Figure(
                    name="gain of a second thread ÷ what it gains bare",
                    value=alone / beside,
                    target=at_least(0.9),
                    note=f"ours {alone:.2f}, bare {beside:.2f}",
                ),
            ),
            measured=tuple(
                rounds.rates(name, _asked(name, asked_of), "queries/s") for name in contenders
            ),
            plots=(
                Bars(
                    name="search",
                    title="Queries a second, one at a time",
                    unit="queries/s",
                    bars=tuple(
                        (name, asked_of / rounds.median(name))
                        for name in contenders
                        if "at a time" not in name
                    ),
                ),
            ),
        )


def _asked(name: str, queries: int) -> int:
    """How many queries of so many a contender asks: 64 at a time, the last few are left out."""
    return queries // AT_A_TIME * AT_A_TIME if "at a time" in name else queries


def _instructions(name: str, version: Version, folder: Path, asked: Asked) -> Figure:
    asked.say(f"counting the instructions of {name}")
    called = f"{name}: instructions of one query ÷ bare"
    try:
        mine, theirs = instructions(version, folder)
    except CounterMissingError as error:
        return Figure(name=called, value=None, note=str(error))
    note = f"ours {mine:,.0f}, bare {theirs:,.0f}: {mine - theirs:,.0f} more"
    return Figure(name=called, value=mine / theirs, note=note)


def _synthetic(asked: Asked, workshop: Workshop) -> dict[str, Version]:
    count = QUICK_COUNT if asked.quick else IVF_COUNT
    graph_count = QUICK_COUNT // 4 if asked.quick else HNSW_COUNT
    lists: dict[str, Any] = {
        "index": "IVF128,Flat" if asked.quick else "IVF1024,Flat",
        "nprobe": 16,
        "min_recall": 0.0,
    }
    vectors = drawn(count, DIMENSION)
    queries = drawn(QUICK_QUERIES if asked.quick else QUERIES, DIMENSION, seed=11)
    asked.say(f"building IVF over {count}")
    plain = workshop.build(WithoutPayloads(vectors=vectors), "plain", queries, **lists)
    source = ArrayCollection(vectors=vectors)
    with_payloads = workshop.build(source, "payloads", queries, **lists)
    asked.say("building what continues it")
    moved = source.with_changes(int(CHANGED * count), seed=5)
    kept = np.setdiff1d(np.arange(count), [row for row, _ in moved.changed])
    gone = np.random.default_rng(6).choice(kept, size=int(GONE * count), replace=False)
    thinned = Thinned(
        vectors=moved.vectors,
        generation=moved.generation,
        changed=moved.changed,
        gone=tuple(gone.tolist()),
    )
    layered = workshop.build(thinned, "layered", queries, previous=with_payloads, **lists)
    asked.say(f"building HNSW over {graph_count}")
    graph = workshop.build(
        WithoutPayloads(vectors=vectors[:graph_count]),
        "graph",
        queries,
        index="HNSW32",
        min_recall=0.95,
    )
    return {
        "IVF": plain,
        "HNSW": graph,
        "IVF with payloads": with_payloads,
        "IVF with 5 % tombstones and a 2 % delta": layered,
    }


def _real(asked: Asked, workshop: Workshop) -> dict[str, Version]:
    texts = real_texts(asked.say, quick=asked.quick)
    vectors, queries = texts.split(QUICK_QUERIES if asked.quick else QUERIES)
    source = WithoutPayloads(vectors=vectors[:REAL_COUNT], metric=Metric.COSINE)
    versions = {}
    for name, index in (
        ("IVF on real embeddings", "IVF64,Flat" if asked.quick else "IVF512,Flat"),
        ("HNSW on real embeddings", "HNSW32"),
    ):
        asked.say(f"building {index} over {source.count} real embeddings")
        versions[name] = workshop.build(
            source, index.partition(",")[0], queries, index=index, min_recall=0.95
        )
    return versions


PROGRAM = Program(name="search", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
