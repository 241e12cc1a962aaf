"""How long until there is an index with recall@10 ≥ 0.95 that nobody had to choose?

A folder of 200,000 vectors of 128 dimensions, in one `.npy`. Our `auto` and autofaiss each read it,
choose, build, tune, and write the index. Then both files answer the same queries, one by one on
one thread: autofaiss's as it was tuned by itself, and again at the recall that is asked of ours.
autofaiss runs twice, once told to take inverted lists, which it fills faster than what it chooses.
"""

import os
import sys
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
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
from indexrelay.components.vector_index.spec import Effort, IndexSpec
from indexrelay.components.vector_index.tuner import Tuner
from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Vectors
from indexrelay.storage.sources import open_source
from measuring.companions import PeerMissingError, peer
from measuring.findings import Figure, Findings, Measured, at_least, at_most
from measuring.plots import Bars, Line, Lines
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, Rounds, interleaved

CAVEATS = """\
- From the folder to the written index on both sides. Ours also writes ids and payloads, the exact
  neighbours of a query sample and the measured trade-off. Hashing and the gates are not in here,
  nor is what autofaiss measures after it has written. The time of our gates is beside it.
- autofaiss is left at its defaults, and asks for the most recall within 10 ms a query: it looks
  much farther than 0.95 needs. It chooses a graph (HNSW32), which takes long to build and, turned
  down, answers faster than lists: `auto` builds one only where lists are too slow. "At the same
  recall" turns that graph down by hand to the least effort that reaches 0.95, as nobody does who
  uses it: there the two indexes are compared, and not how they are tuned.
- The vectors lie on a curved surface of 24 dimensions, in 500 overlapping heaps, with noise: lists
  alone do not separate them, as with real embeddings. On vectors in tight clusters one list in a
  thousand is enough, and on pure noise a third of all.
- Recall is counted by distance, over 400 entries that ask for their nearest ten, and are left out
  of their own answer.
"""
COUNT, QUICK_COUNT = 200_000, 25_000
LISTS, QUICK_LISTS = 1024, 512
TOLD = "autofaiss, told to take lists"
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
    built: Built | None = None
    gate_seconds: list[float] = field(default_factory=list)

    def build(self) -> float:
        """Into a new work folder, from a new look at the source; then the gates, not timed."""
        settings = CollectionSettings.model_validate(
            {
                "dimension": DIMENSION,
                "metric": "l2",
                "source": {"kind": "folder", "path": self.source},
            }
        )
        kind = VectorIndex(VectorIndexParameters(min_recall=RECALL))
        workdir = self.folder / "ours"
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

    def asked(self) -> "Asking":
        """What it wrote, as it was tuned."""
        if self.built is None:
            raise RuntimeError("nothing was built")
        index = open_index(Path(str(self.built.files["base.faiss"])))
        effort = Effort.model_validate(self.built.details["effort"])
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-auto-")))
        source = folder / "vectors"
        source.mkdir()
        np.save(source / "vectors.npy", curved(count))
        ours = Ours(folder, source)
        contenders: dict[str, Contender] = {"indexrelay": ours.build}
        missing = ""
        chosen: dict[str, Any] = {}
        try:
            autofaiss = stack.enter_context(peer("autofaiss_build"))
            question = {"folder": str(source), "cores": cores()}
            told = f"IVF{QUICK_LISTS if asked.quick else LISTS},Flat"

            def build() -> float:
                file = str(folder / "peer")
                chosen.update(autofaiss.ask(**question, file=file, index=None))
                return float(chosen["seconds"])

            contenders["autofaiss"] = build
            contenders[TOLD] = lambda: autofaiss.seconds(
                **question, file=str(folder / "told"), index=told
            )
        except PeerMissingError as error:
            missing = str(error)
        # autofaiss takes ten seconds for any number of vectors: a cold start would not show.
        builds = interleaved(contenders, rounds=asked.rounds, say=asked.say, warm_up=False)
        return found(asked, ours, builds, missing=missing, peers_choice=chosen, folder=folder)


def found(
    asked: Asked,
    ours: Ours,
    builds: Rounds,
    *,
    missing: str,
    peers_choice: dict[str, Any],
    folder: Path,
) -> Findings:
    """Ask what was built, and put it all together."""
    if ours.built is None:
        raise RuntimeError("nothing was built")
    # In the order of our rows, which is that of the ids' bytes.
    vectors = np.load(folder / "vectors" / "vectors.npy")
    sample = drawn_queries(vectors)
    order = np.argsort(np.arange(len(vectors)).astype(str), kind="stable")
    own_sample = drawn_queries(vectors[order])
    asking = {"indexrelay": ours.asked()}
    recalls = {"indexrelay": asking["indexrelay"].recall(own_sample, vectors[order])}
    if not missing:
        index = faiss.read_index(str(folder / "peer"))
        asking["autofaiss"] = Asking(index)
        asking[TOLD] = Asking(faiss.read_index(str(folder / "told")))
        spec = IndexSpec(
            parameters=VectorIndexParameters(min_recall=RECALL),
            metric=Metric.L2,
            dimension=DIMENSION,
            count=len(vectors),
        )
        dataset = Dataset(spec=spec, vectors=vectors, sample=sample)
        tuner = Tuner(index=index, dataset=dataset)
        trial = tuner.tune(refined=False)
        effort = Effort() if trial is None else trial.effort
        asking["autofaiss at the same recall"] = Asking(index, search_parameters(index, effort))
        for name in ("autofaiss", TOLD, "autofaiss at the same recall"):
            recalls[name] = asking[name].recall(sample, vectors)
    faiss.omp_set_num_threads(1)
    turns = {name: each.contender(sample.vectors[:TIMED]) for name, each in asking.items()}
    queries = interleaved(turns, rounds=asked.rounds, say=asked.say)
    return Findings(
        figures=(
            against("time", builds, "autofaiss", 0.3, missing),
            against("time", builds, TOLD, 0.3, missing),
            against("latency", queries, "autofaiss", 1.0, missing),
            against("latency", queries, TOLD, 1.0, missing),
            against("latency", queries, "autofaiss at the same recall", None, missing),
            Figure(name="recall@10", value=recalls["indexrelay"], target=at_least(RECALL)),
        ),
        measured=(
            *(builds.durations(name) for name in builds.seconds),
            Measured(name="our gates", unit="s", values=tuple(ours.gate_seconds)),
            *(
                Measured(
                    name=f"one query: {name} (recall {recalls[name]:.3f})",
                    unit="ms",
                    values=tuple(1000 * seconds for seconds in queries.seconds[name]),
                )
                for name in queries.seconds
            ),
        ),
        plots=(
            Bars(
                name="auto",
                title=f"To an index over {len(vectors):,} vectors: "
                f"{ours.built.details['index']}, {peers_choice.get('index', 'no peer')}",
                unit="seconds, less is better",
                bars=tuple((name, builds.median(name)) for name in builds.seconds),
            ),
            trade_off(ours.built.details["trials"]),
        ),
    )


def against(what: str, rounds: Rounds, other: str, bound: float | None, missing: str) -> Figure:
    """One of ours over theirs; without a ``bound`` for orientation."""
    name, target = f"{what} ÷ {other}", None if bound is None else at_most(bound)
    if missing:
        return Figure(name=name, value=None, target=target, note=missing)
    return Figure(name=name, value=rounds.ratio("indexrelay", other), target=target)


def trade_off(trials: list[dict[str, float]]) -> Lines:
    """What the tuner saw."""
    points = sorted((trial["milliseconds"], trial["recall"]) for trial in trials)
    return Lines(
        name="auto_trade_off",
        title="What effort buys, as the version's details tell it",
        x="ms a query",
        y="recall@10",
        lines=(Line(label="indexrelay", points=tuple(points)),),
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
