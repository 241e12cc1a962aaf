"""How long does one query take, beside what people search vectors with today?

Embeddings of all real texts that there are, each with a string id and a payload, and one query at a
time on one thread: ours as `auto` builds it, through what a snapshot holds; hnswlib and USearch
with the ids in a list and the payloads in a dict; a LanceDB table; PostgreSQL with pgvector. Each
with the least effort that reaches a recall@10 of 0.95, and of 0.99. Beside it how long the index
takes to build, and the memory of eight processes that serve it.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexrelay.components.kind import Goal
from indexrelay.components.vector_index import VectorIndex, VectorSearch
from indexrelay.components.vector_index.index_search import knob_of
from indexrelay.components.vector_index.spec import Effort
from indexrelay.reloaders import Reloader
from indexrelay.reloaders.snapshot import Snapshot
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from measuring.arrays import ArrayCollection, entry_id
from measuring.companions import Companion, PeerMissingError, companion, peer
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, Measured, Target, at_most
from measuring.machine import pss
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.releasing import COMPONENT, Publisher, StoredVersion, publishing, reader_settings
from measuring.rounds import Contender, Rounds, interleaved
from measuring.servers import bench_server

CAVEATS = """\
- The texts are docstrings and their sentences, some 230,000, the vectors static word vectors (256
  dimensions, cosine); the queries are texts that are not in the index.
- Ours is what `auto` chose for the asked recall. Its build tunes the effort on entries, and these
  queries are other texts: where it reaches less on them ("as built"), the effort is raised by
  tenths until it reaches the recall. Where it reaches more, it stays. The others have the least
  effort, within a tenth, that reaches the recall on these same queries.
- hnswlib has M = 16 and ef_construction = 200, as its examples do, USearch its defaults, LanceDB a
  graph over scalar-quantized vectors with a second look at twice as many full ones, pgvector its
  defaults. Nothing else of them is tuned.
- A payload is a small JSON object. hnswlib and USearch have it parsed in a dict of each process's
  own, pgvector's driver parses it, LanceDB's text is parsed. Ours is parsed when somebody reads it:
  the figures are without that, and "every payload read" beside them is with it.
- LanceDB and PostgreSQL are databases: they also write, filter and survive a crash. PostgreSQL is
  asked over a local socket, with a prepared statement, by a client of the same machine.
- Indexes are built once each, on all cores. Ours writes ids, payloads and a tuned effort with it,
  puts the files into the store, releases them and waits until a reader answers; the gates are not
  in it. hnswlib's time is that of its `add_items`, of saving it, and of the dicts.
- Memory is the proportional set size of whole processes, interpreter and libraries included: a page
  that eight processes map counts for each with an eighth.
"""
QUICK_COUNT = 5_000
QUERIES, QUICK_QUERIES = 500, 100
LEVELS = (0.95, 0.99)
PROCESSES = 8
PEERS = ("hnswlib", "usearch", "lancedb", "pgvector")
TARGETS: dict[str, Target] = {
    "hnswlib": at_most(1.25),
    "usearch": at_most(0.8),
    "lancedb": at_most(0.1),
    "pgvector": at_most(0.1),
}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Material:
    """What everybody indexes, and is asked."""

    source: ArrayCollection
    queries: Vectors
    nearest: Vectors
    """For each query the inner product of its tenth nearest."""
    folder: Path
    """The same as files."""

    def recall(self, ask: Callable[[Vectors], Sequence[Any]]) -> float:
        """Of what ``ask`` finds, by what is as near as the tenth nearest."""
        found = 0
        for query, tenth in zip(self.queries, self.nearest, strict=True):
            rows = [int(hit.id.rpartition("-")[2]) for hit in ask(query)]
            found += int((self.source.vectors[rows] @ query >= tenth - 1e-5).sum())
        return found / (10 * len(self.queries))


def material(asked: Asked, folder: Path) -> Material:
    texts = real_texts(asked.say, quick=asked.quick)
    vectors, queries = texts.split(QUICK_QUERIES if asked.quick else QUERIES)
    vectors = np.ascontiguousarray(vectors[:QUICK_COUNT] if asked.quick else vectors)
    queries = np.ascontiguousarray(queries)
    source = ArrayCollection(vectors=vectors, metric=Metric.COSINE)
    asked.say("searching exactly, to know the nearest")
    near, _ = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    payloads = [payload for chunk in source.chunks() for payload in chunk.payloads]
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "nearest.npy", near[:, -1])
    for name, rows in (("ids", map(entry_id, range(len(vectors)))), ("payloads", payloads)):
        (folder / f"{name}.json").write_text(json.dumps(list(rows)), encoding="utf-8")
    return Material(source, queries, near[:, -1], folder)


class Serving:
    """A reader in this process; each level's snapshot stays borrowed."""

    def __init__(self, settings: Any, stack: ExitStack) -> None:
        self._swapped = threading.Condition()
        self._release = 0
        self._stack = stack
        self._reloader = Reloader(settings, after_swap=[self._after_swap])
        self._reloader.start()
        stack.callback(self._reloader.stop)

    def of(self, release: int) -> Snapshot:
        """The snapshot of a release, once it is served."""
        with self._swapped:
            if not self._swapped.wait_for(lambda: self._release >= release, PATIENCE_SECONDS):
                raise TimeoutError(f"release {release} did not come")
        return self._stack.enter_context(self._reloader.acquire())

    def _after_swap(self, _old: Snapshot, new: Snapshot) -> None:
        with self._swapped:
            self._release = new.release
            self._swapped.notify_all()


@dataclass(frozen=True)
class Ours:
    """What was built for one recall, served."""

    version: StoredVersion
    snapshot: Snapshot
    recall: float
    as_built: float
    """Its recall with the effort that its build chose; if it was too little, that was raised."""
    build_seconds: float

    @property
    def index(self) -> str:
        """What `auto` chose."""
        return str(self.version.manifest.details["index"])

    def asking(self, queries: Vectors, *, read: bool = False) -> Contender:
        snapshot = self.snapshot

        def turn() -> float:
            began = time.perf_counter()
            for query in queries:
                hits = snapshot[COMPONENT].search(query, k=10)
                if read:
                    for hit in hits:
                        hit.payload  # noqa: B018 - reading parses it
            return time.perf_counter() - began

        return turn


def built(level: float, given: Material, publisher: Publisher, serving: Serving) -> Ours:
    snapshot, version, seconds = _released(given, publisher, serving, level, Goal.BEST)
    served: VectorSearch = snapshot[COMPONENT]
    as_built = recall = given.recall(served.search)
    for effort in _efforts_from(served):
        if recall >= level:
            break
        version = publisher.with_effort(version, effort)
        release = publisher.commit(version)
        publisher.announce(release)
        snapshot = serving.of(release.number)
        recall = given.recall(snapshot[COMPONENT].search)
    return Ours(version, snapshot, recall, as_built, seconds)


def _efforts_from(served: VectorSearch) -> Iterator[Effort]:
    """More and more, by a tenth each time."""
    knob, effort = knob_of(served.contents.base.index), served.facts.effort
    while knob is not None:
        value = min(int(1.1 * getattr(effort, knob.name)) + 1, knob.most)
        effort = effort.model_copy(update={knob.name: value})
        yield effort
        if value == knob.most:
            return


def _released(
    given: Material, publisher: Publisher, serving: Serving, level: float, goal: Goal
) -> tuple[Snapshot, StoredVersion, float]:
    """What is served then, its version, and the seconds until it answered."""
    began = time.perf_counter()
    version = publisher.build(given.source, goal=goal, index="auto", min_recall=level)
    release = publisher.commit(version)
    publisher.announce(release)
    snapshot = serving.of(release.number)
    snapshot[COMPONENT].search(given.queries[0])
    return snapshot, version, time.perf_counter() - began


@dataclass(frozen=True)
class Tuned:
    """A peer at one recall."""

    companion: Companion
    effort: int
    recall: float

    def asking(self) -> Contender:
        return partial(self.companion.seconds, do="ask", effort=self.effort)


def peers(given: Material, stack: ExitStack) -> dict[str, Companion]:
    """Every peer, running; none where they are not installed."""
    try:
        return {
            name: stack.enter_context(peer("engines", name, str(given.folder))) for name in PEERS
        }
    except PeerMissingError:
        return {}


def tuned_to(level: float, engine: Companion) -> Tuned | None:
    """A peer with the least effort that reaches it; ``None``: none does."""
    answer = engine.ask(do="tune", recall=level)
    effort = answer["effort"]
    return None if effort is None else Tuned(engine, effort, answer["recall"])


@dataclass(frozen=True)
class Race:
    """The contenders, and how long each took."""

    ours: dict[float, Ours]
    tuned: dict[tuple[str, float], Tuned | None]
    """By peer and level; empty where none is installed."""
    rounds: Rounds
    queries: int

    def ratio(self, name: str, level: float, *, read: bool = False) -> Figure:
        """Our time for a query ÷ a peer's."""
        mine = f"ours at {level}" + (", every payload read" if read else "")
        called = f"one query at {level} ÷ {name}" + (", every payload read" if read else "")
        if not self.tuned:
            return Figure(name=called, value=None, note=str(PeerMissingError()))
        theirs = self.tuned[name, level]
        if theirs is None:
            return Figure(name=called, value=None, note=f"{name} does not reach that recall")
        return Figure(
            name=called,
            value=self.rounds.ratio(mine, f"{name} at {level}"),
            target=None if read else TARGETS[name],
            note=f"recall {self.ours[level].recall:.3f} and {theirs.recall:.3f}",
        )

    def measured(self) -> Iterator[Measured]:
        """Milliseconds of one query."""
        for name, seconds in self.rounds.seconds.items():
            per_query = tuple(1e3 * each / self.queries for each in seconds)
            yield Measured(name=f"one query: {name}", unit="ms", values=per_query)


def race(
    asked: Asked, given: Material, ours: dict[float, Ours], running: dict[str, Companion]
) -> Race:
    tuned: dict[tuple[str, float], Tuned | None] = {}
    contenders: dict[str, Contender] = {}
    for level, mine in ours.items():
        contenders[f"ours at {level}"] = mine.asking(given.queries)
        contenders[f"ours at {level}, every payload read"] = mine.asking(given.queries, read=True)
        for name, engine in running.items():
            asked.say(f"tuning {name} to {level}")
            tuned[name, level] = found = tuned_to(level, engine)
            if found is not None:
                contenders[f"{name} at {level}"] = found.asking()
    faiss.omp_set_num_threads(1)
    rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
    return Race(ours, tuned, rounds, len(given.queries))


def memory_of(processes: Sequence[Companion], *, serve: dict[str, Any], ask: dict[str, Any]) -> int:
    """Bytes that they take together, once each serves and has answered."""

    def answer(process: Companion) -> None:
        process.ask(**serve)
        process.ask(**ask)

    with ThreadPoolExecutor(len(processes)) as pool:
        list(pool.map(answer, processes))
    return pss(each.process.pid for each in processes)


def memory_of_ours(given: Material, release: int, url: str, data: Path) -> int:
    """Of eight readers."""
    arguments = ["reader", str(data), url, "0", str(given.folder / "queries.npy")]
    with ExitStack() as stack:
        return memory_of(
            [stack.enter_context(companion(*arguments)) for _ in range(PROCESSES)],
            serve={"do": "served", "release": release},
            ask={"do": "ask", "count": len(given.queries)},
        )


def memory_of_hnswlib(given: Material, effort: int) -> int:
    """Of as many processes that load its file, the ids and the payloads."""
    with ExitStack() as stack:
        engine = partial(peer, "engines", "hnswlib", str(given.folder))
        return memory_of(
            [stack.enter_context(engine()) for _ in range(PROCESSES)],
            serve={"do": "open"},
            ask={"do": "ask", "effort": effort},
        )


def measure(asked: Asked) -> Findings:
    with (
        tempfile.TemporaryDirectory(prefix="ir-") as name,
        bench_server() as server,
        publishing(server) as (publisher, data),
        ExitStack() as stack,
    ):
        given = material(asked, Path(name))
        running = peers(given, stack)
        serving = Serving(reader_settings(data, server.url), stack)
        build_seconds: dict[str, float] = {}
        if VectorIndex.has_quick_versions:
            asked.say("building our first release")
            # Something is served already: what starts in a process at its first load is not timed.
            few = replace(given, source=ArrayCollection(vectors=given.queries))
            _released(few, publisher, serving, LEVELS[0], Goal.BEST)
            *_, seconds = _released(given, publisher, serving, LEVELS[0], Goal.QUICK)
            build_seconds["ours, the first release"] = seconds
        ours = {}
        for level in sorted(LEVELS, reverse=True):  # what is served last is measured in processes
            asked.say(f"building ours for a recall of {level}")
            ours[level] = built(level, given, publisher, serving)
        build_seconds["ours"] = ours[LEVELS[0]].build_seconds
        for each, engine in running.items():
            asked.say(f"building {each}")
            build_seconds[each] = engine.seconds(do="build")
        found = race(asked, given, ours, running)
        hnswlib = found.tuned.get(("hnswlib", LEVELS[0]))
        memory: dict[str, float] = {}
        asked.say(f"serving ours in {PROCESSES} processes")
        release = publisher.newest()
        memory["ours"] = memory_of_ours(given, release, server.url, data) / 1e6
        if hnswlib is not None:
            asked.say(f"serving hnswlib in {PROCESSES} processes")
            memory["hnswlib"] = memory_of_hnswlib(given, hnswlib.effort) / 1e6
        return Findings(
            figures=(
                *(found.ratio(each, level) for level in LEVELS for each in PEERS),
                *(found.ratio("hnswlib", level, read=True) for level in LEVELS),
                _against(
                    "build until the first release answers ÷ hnswlib's build",
                    build_seconds,
                    "ours, the first release",
                    at_most(0.25),
                ),
                _against("build ÷ hnswlib's build", build_seconds, "ours", at_most(1.2)),
                _against(
                    f"memory of {PROCESSES} processes ÷ hnswlib's", memory, "ours", at_most(0.25)
                ),
            ),
            measured=(
                *found.measured(),
                *(
                    Measured(name=f"build: {each}", unit="s", values=(seconds,))
                    for each, seconds in build_seconds.items()
                ),
                *(
                    Measured(name=f"{PROCESSES} processes: {each}", unit="MB", values=(megabytes,))
                    for each, megabytes in memory.items()
                ),
                *(
                    Measured(
                        name=f"recall of ours at {level}, as built ({mine.index})",
                        unit="",
                        values=(mine.as_built,),
                    )
                    for level, mine in ours.items()
                ),
            ),
            plots=(
                Bars(
                    name="peers",
                    title=f"One query at a recall of {LEVELS[0]}",
                    unit="ms",
                    bars=tuple(
                        (each, 1e3 * found.rounds.median(f"{each} at {LEVELS[0]}") / found.queries)
                        for each in ("ours", *PEERS)
                        if f"{each} at {LEVELS[0]}" in found.rounds.seconds
                    ),
                ),
            ),
            servers=server.versions,
        )


def _against(called: str, values: dict[str, float], mine: str, target: Target) -> Figure:
    """What we took ÷ what hnswlib took."""
    if mine not in values:
        return Figure(name=called, value=None, note="this kind builds no quick version first")
    if "hnswlib" not in values:
        return Figure(name=called, value=None, note=str(PeerMissingError()))
    return Figure(name=called, value=values[mine] / values["hnswlib"], target=target)


PROGRAM = Program(name="peers", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
