"""How long until there is an index with recall@10 ≥ 0.95 that nobody had to choose, and how fast?

A folder of vectors, in one `.npy`: 200,000 of 128 dimensions on a curved surface, and as many
embeddings of real texts as there are, at most 200,000. Our `auto` reads it twice, once for the
index that answers soonest, and once for the one that is ready soonest; autofaiss reads it twice,
once told to take inverted lists. Each chooses, builds, tunes, and writes the index. Then the files
answer the same queries, one by one on one thread: autofaiss's as it was tuned by itself, and again
at the recall that is asked of ours.
"""

import os
import sys
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from indexrelay.components.kind import Built, Job
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.components.vector_index.index_search import search_parameters
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.metrics import without_itself
from indexrelay.components.vector_index.sample import Dataset, QuerySample, draw_sample
from indexrelay.components.vector_index.spec import Effort, IndexSpec, Prefer
from indexrelay.components.vector_index.tuner import Tuner
from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Vectors
from indexrelay.storage.sources import open_source
from measuring.companions import PeerMissingError, peer
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, Measured, at_least, at_most
from measuring.plots import Bars, Line, Lines
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, Rounds, interleaved

CAVEATS = """\
- From the folder to the written index on both sides. Ours also writes ids and payloads, the exact
  neighbours of a query sample and what was measured of every candidate. Hashing and the gates are
  not in here, nor is what autofaiss measures after it has written. The time of our gates is beside
  it.
- autofaiss is left at its defaults, and asks for the most recall within 10 ms a query: it looks
  much farther than 0.95 needs. It chooses a graph (HNSW32). "At the same recall" turns that graph
  down by hand to the least effort that reaches 0.95, as nobody does who uses it: there the two
  indexes are compared, and not how they are tuned.
- The curved vectors lie on a surface of 24 dimensions, in 500 overlapping heaps, with noise. The
  real ones are docstrings and their sentences, embedded by static word vectors (256 dimensions):
  they separate into lists less well, and a graph gains more.
- Recall is counted by distance, over 400 entries that ask for their nearest ten, and are left out
  of their own answer.
"""
COUNT, QUICK_COUNT = 200_000, 6_000
LISTS, QUICK_LISTS = 1024, 128
FASTEST, SOONEST = "indexrelay", "indexrelay, ready soonest"
PREFERRED = {FASTEST: Prefer.LATENCY, SOONEST: Prefer.BUILD}
PEER, TOLD = "autofaiss", "autofaiss, told to take lists"
TURNED_DOWN = "autofaiss at the same recall"
DIMENSION = 128
RECALL = 0.95
TIMED = 200
"""Of the queries, in each round."""


def curved(count: int) -> Vectors:
    """Vectors on a curved surface of 24 dimensions, shape ``(count, 128)``, float32."""
    rng = np.random.default_rng(7)
    heaps = rng.standard_normal((500, 24), dtype=np.float32)
    outwards = rng.standard_normal((24, 96), dtype=np.float32) / np.sqrt(np.float32(24))
    onwards = rng.standard_normal((96, DIMENSION), dtype=np.float32) / np.sqrt(np.float32(96))
    inside = heaps[rng.integers(500, size=count)]
    inside += 0.8 * rng.standard_normal((count, 24), dtype=np.float32)
    vectors: Vectors = np.tanh(1.5 * inside @ outwards) @ onwards
    vectors += 0.1 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return vectors


@dataclass
class Ours:
    """The kind, on a collection that is a folder."""

    folder: Path
    source: Path
    dimension: int
    prefer: Prefer
    built: Built | None = None
    gate_seconds: list[float] = field(default_factory=list)

    def build(self) -> float:
        """Into a new work folder, from a new look at the source; then the gates, not timed."""
        settings = CollectionSettings.model_validate(
            {
                "dimension": self.dimension,
                "metric": "l2",
                "source": {"kind": "folder", "path": self.source},
            }
        )
        kind = VectorIndex(VectorIndexParameters(min_recall=RECALL, prefer=self.prefer))
        workdir = self.folder / f"ours-{self.prefer}"
        rmtree(workdir, ignore_errors=True)
        workdir.mkdir()
        with closing(Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}")) as catalog:
            began = perf_counter()
            with open_source("tracks", settings, catalog).snapshot() as snapshot:
                job = Job(
                    component="similar",
                    collections={"tracks": snapshot},
                    components={},
                    previous=None,
                    workdir=workdir,
                    threads=cores(),
                    progress=lambda _share: None,
                )
                self.built = kind.build(job)
                seconds = perf_counter() - began
                began = perf_counter()
                files = {name: Path(str(file)) for name, file in self.built.files.items()}
                failed = [each for each in kind.verify(job, self.built, files) if not each.passed]
                self.gate_seconds.append(perf_counter() - began)
        if failed:
            raise RuntimeError(f"a gate failed: {failed}")
        return seconds

    @property
    def details(self) -> dict[str, Any]:
        """What the last build says of its choice."""
        if self.built is None:
            raise RuntimeError("nothing was built")
        return self.built.details

    def asked(self) -> "Asking":
        """What it wrote, as it was tuned."""
        if self.built is None:
            raise RuntimeError("nothing was built")
        index = open_index(Path(str(self.built.files["base.faiss"])))
        effort = Effort.model_validate(self.details["effort"])
        return Asking(index, search_parameters(index, effort))


@dataclass(frozen=True)
class Asking:
    """An index, and how hard it is searched."""

    index: Any
    parameters: Any = None
    """``None``: as its file says."""

    def recall(self, sample: QuerySample, vectors: Vectors) -> float:
        """Of the sample."""
        _, rows = self.index.search(sample.vectors, 11, params=self.parameters)
        others = without_itself(rows, sample.rows)
        apart = vectors[others] - sample.vectors[:, None, :]
        return sample.recall(np.square(apart, dtype=np.float64).sum(axis=2))

    def contender(self, queries: Vectors) -> Contender:
        """Median seconds of one query."""

        def turn() -> float:
            seconds = []
            for query in queries:
                began = perf_counter()
                self.index.search(query[None, :], 10, params=self.parameters)
                seconds.append(perf_counter() - began)
            return float(np.median(seconds))

        return turn


def measure(asked: Asked) -> Findings:
    count = QUICK_COUNT if asked.quick else COUNT
    corpora = {
        "curved": curved(count),
        "real": real_texts(asked.say, quick=asked.quick).vectors[:count],
    }
    parts = [measured(asked, name, vectors) for name, vectors in corpora.items()]
    return Findings(
        figures=tuple(figure for part in parts for figure in part.figures),
        measured=tuple(each for part in parts for each in part.measured),
        plots=tuple(plot for part in parts for plot in part.plots),
    )


def measured(asked: Asked, corpus: str, vectors: Vectors) -> Findings:
    """Everything of one corpus."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-auto-")))
        source = folder / "vectors"
        source.mkdir()
        np.save(source / "vectors.npy", vectors)
        ours = {
            name: Ours(folder, source, vectors.shape[1], prefer)
            for name, prefer in PREFERRED.items()
        }
        contenders: dict[str, Contender] = {name: each.build for name, each in ours.items()}
        missing = ""
        try:
            autofaiss = stack.enter_context(peer("autofaiss_build"))
            question = {"folder": str(source), "cores": cores()}
            told = f"IVF{QUICK_LISTS if asked.quick else LISTS},Flat"
            for name, index in ((PEER, None), (TOLD, told)):
                contenders[name] = partial(
                    autofaiss.seconds, **question, file=str(folder / name), index=index
                )
        except PeerMissingError as error:
            missing = str(error)
        # autofaiss takes ten seconds for any number of vectors: a cold start would not show.
        builds = interleaved(contenders, rounds=asked.rounds, say=asked.say, warm_up=False)
        return found(asked, corpus, ours, builds, missing=missing, folder=folder)


def found(
    asked: Asked,
    corpus: str,
    ours: dict[str, Ours],
    builds: Rounds,
    *,
    missing: str,
    folder: Path,
) -> Findings:
    """Ask what was built, and put it all together."""
    # In the order of our rows, which is that of the ids' bytes.
    vectors = np.load(folder / "vectors" / "vectors.npy")
    sample = drawn_queries(vectors)
    order = np.argsort(np.arange(len(vectors)).astype(str), kind="stable")
    own_sample = drawn_queries(vectors[order])
    asking = {name: each.asked() for name, each in ours.items()}
    recalls = {name: each.recall(own_sample, vectors[order]) for name, each in asking.items()}
    if not missing:
        theirs = {name: Asking(faiss.read_index(str(folder / name))) for name in (PEER, TOLD)}
        spec = IndexSpec(
            parameters=VectorIndexParameters(min_recall=RECALL),
            metric=Metric.L2,
            dimension=vectors.shape[1],
            count=len(vectors),
        )
        dataset = Dataset(spec=spec, vectors=vectors, sample=sample)
        index = theirs[PEER].index
        trial = Tuner(index=index, dataset=dataset).tune(refined=False)
        effort = Effort() if trial is None else trial.effort
        theirs[TURNED_DOWN] = Asking(index, search_parameters(index, effort))
        recalls |= {name: each.recall(sample, vectors) for name, each in theirs.items()}
        asking |= theirs
    faiss.omp_set_num_threads(1)
    turns = {name: each.contender(sample.vectors[:TIMED]) for name, each in asking.items()}
    queries = interleaved(turns, rounds=asked.rounds, say=asked.say)
    fastest, soonest = (ours[name].details for name in (FASTEST, SOONEST))
    return Findings(
        figures=(
            against(corpus, "ready soonest", builds, (SOONEST, PEER), 0.3, missing),
            against(corpus, "ready soonest", builds, (SOONEST, TOLD), 0.3, missing),
            against(corpus, "time", builds, (FASTEST, PEER), 1.2, missing),
            against(corpus, "latency", queries, (FASTEST, PEER), 1.0, missing),
            against(corpus, "latency", queries, (FASTEST, TOLD), 1.0, missing),
            against(corpus, "latency", queries, (FASTEST, TURNED_DOWN), 1.1, missing),
            *(
                Figure(
                    name=f"{corpus}: recall@10 of {name}",
                    value=recalls[name],
                    target=at_least(RECALL),
                )
                for name in PREFERRED
            ),
        ),
        measured=(
            *(
                Measured(name=f"{corpus}: {name}", unit="s", values=builds.seconds[name])
                for name in builds.seconds
            ),
            *(
                Measured(
                    name=f"{corpus}: gates of {name}", unit="s", values=tuple(each.gate_seconds)
                )
                for name, each in ours.items()
            ),
            *(
                Measured(
                    name=f"{corpus}: one query: {name} (recall {recalls[name]:.3f})",
                    unit="ms",
                    values=tuple(1000 * seconds for seconds in queries.seconds[name]),
                )
                for name in queries.seconds
            ),
        ),
        plots=(
            Bars(
                name=f"auto_{corpus}",
                title=f"To an index over {len(vectors):,} {corpus} vectors: {fastest['index']}, "
                f"and soonest {soonest['index']}",
                unit="seconds, less is better",
                bars=tuple((name, builds.median(name)) for name in builds.seconds),
            ),
            front(corpus, fastest["attempts"]),
        ),
    )


def against(
    corpus: str,
    what: str,
    rounds: Rounds,
    names: tuple[str, str],
    bound: float,
    missing: str,
) -> Figure:
    """The first over the second."""
    name, target = f"{corpus}: {what} ÷ {names[1]}", at_most(bound)
    if missing:
        return Figure(name=name, value=None, target=target, note=missing)
    return Figure(name=name, value=rounds.ratio(*names), target=target)


def front(corpus: str, attempts: list[dict[str, Any]]) -> Lines:
    """What every candidate takes, as the version's details have it; each is a line of one point."""
    return Lines(
        name=f"auto_front_{corpus}",
        title=f"What auto measured of its candidates: {corpus} vectors",
        x="MB",
        y="ms a query",
        lines=tuple(
            Line(
                label=attempt["index"],
                points=((attempt["bytes"] / 1e6, attempt["milliseconds"]),),
            )
            for attempt in attempts
        ),
    )


def drawn_queries(vectors: Vectors) -> QuerySample:
    """Other entries than those by which ours was tuned, and their exact neighbours."""
    samples = [
        draw_sample(vectors, Metric.L2, seed=seed, progress=lambda _share: None)
        for seed in (91, 92)
    ]
    return QuerySample(
        **{
            name: np.concatenate([getattr(sample, name) for sample in samples])
            for name in ("rows", "vectors", "neighbours", "distances")
        }
    )


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


PROGRAM = Program(name="auto", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
