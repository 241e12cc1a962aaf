"""What do live changes cost a search, and how soon is a write found elsewhere?

A reader with nothing live, and with 10,000 changed entries laid over its release, beside one that
serves the release alone; searches and durable writes in one process, beside the same FAISS index
behind one lock that is saved after each write; and how long it takes from a commit until a query in
another process could find it, beside a bare XADD that an XREAD waits for; the durable writes of
clients that share transactions, beside a commit for each; and searches over HTTP, beside an
endpoint that does nothing.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any

import faiss
import numpy as np

from indexrelay.components.vector_index.index_search import openmp_threads, search_parameters
from indexrelay.components.vector_index.version import BASE
from indexrelay.producers import Batch
from indexrelay.producers.changes import ChangeSender
from indexrelay.reloaders import Reloader
from indexrelay.storage.catalog import Commit
from indexrelay.storage.entries import Vectors
from measuring.arrays import COLLECTION, drawn
from measuring.companions import Companion, companion
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, Measured, at_least, at_most, joined
from measuring.installation import COMPONENT, Installation, installed
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.requests import asking, request
from measuring.rounds import Contender, Rounds, interleaved, on_two_threads
from measuring.servers import BenchServer, bench_server

CAVEATS = """\
- The index is a graph (HNSW32) in all parts. The shorter its search, the more weighs what live rows
  add: a search of inverted lists takes some 1 ms, and then nothing of it is seen.
- 10,000 live rows are entries of the same kind as those that are released: nine tenths are new, and
  one replaces what is released. What came last is compared, and has no codes yet.
- Two threads of one process hand the interpreter's lock to each other around each call of FAISS,
  which takes as long as a short search of a graph. What two threads gain with the bare index, whose
  answers nobody reads, stands beside ours: several processes (`indexrelay reader --workers`) use
  the processors instead.
- Recall is that of all entries, live ones included, for queries that are none of them.
- Both who writes and who searches is one thread here, which searches nine times and then writes
  one entry. Ours waits until the write is durable in SQLite and a query finds it. The plain one
  adds the vector to its copy of the same FAISS index in memory and writes that to a file, without
  fsync; it has no ids, no payloads and no deletes.
- From the commit, by its sender, until the view of the other process has the change, one at a time
  with 5 ms between. Two processes, the server and two cores: p99 is mostly the scheduler's.
- The clients that write are threads of one process, each with one entry at a time, without HTTP.
  With a commit for each write a thread also sends its changes and its event before the next
  one; shared transactions are announced by a thread of their own, after the answers.
- Over HTTP four connections, each of which waits for its answer, ask for ten hits with payloads by
  a vector in JSON. The empty endpoint gets the same bodies, and is one of a plain FastAPI
  application under uvicorn, without the limits of ours. One process serves both, each in its turn;
  the client is another, which writes bytes that it has and hardly reads what comes.
- Memory is what a fresh process grows by (anonymous pages) with the rows of a collection, beyond
  those of another one of the same size: vectors, ids of 14 characters, what finds them, and
  their codes. The C library returns large blocks at once, as in a reader service; by itself glibc
  keeps several times the vectors of what the growing of rows has freed.
"""
COUNT, REAL_COUNT, QUICK_COUNT = 200_000, 100_000, 3_000
DIMENSION = 128
LIVE, QUICK_LIVE = 10_000, 1_200
QUERIES, QUICK_QUERIES = 1_000, 100
MIXED, QUICK_MIXED = 200, 20
"""Operations of a round; one of ten is a write."""
SENT, QUICK_SENT = 200, 20
BETWEEN_SECONDS = 0.005
WRITERS = 8
WRITES, QUICK_WRITES = 50, 3
"""Of each writer, in a round."""
TOGETHER, ALONE = "clients together", "a commit each"
SEARCH, NO_WORK = "a search over HTTP", "an empty endpoint"
INDEX = "HNSW32"
NOTHING, EMPTY, FULL, TWO = "no live layer", "nothing live", "10,000 live", "two threads"
TWO_PLAIN = "two threads, no live layer"
BARE, TWO_BARE = "bare FAISS", "two threads, bare FAISS"


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is released, what becomes live, and what is asked."""

    name: str
    released: Vectors
    live: Vectors
    queries: Vectors


def synthetic(asked: Asked) -> Data:
    rows = QUICK_COUNT if asked.quick else COUNT
    more = QUICK_LIVE if asked.quick else LIVE
    queries = QUICK_QUERIES if asked.quick else QUERIES
    vectors = drawn(rows + more + queries, DIMENSION)
    return Data(
        name="synthetic",
        released=vectors[:rows],
        live=vectors[rows : rows + more],
        queries=vectors[rows + more :],
    )


def real(asked: Asked) -> Data:
    more = QUICK_LIVE if asked.quick else LIVE
    vectors, queries = real_texts(asked.say, quick=asked.quick).split(
        QUICK_QUERIES if asked.quick else QUERIES
    )
    rows = min(QUICK_COUNT if asked.quick else REAL_COUNT, len(vectors) - more)
    return Data(
        name="real embeddings",
        released=vectors[:rows],
        live=vectors[rows : rows + more],
        queries=queries,
    )


def searching(asked: Asked, server: BenchServer, data: Data) -> Findings:
    """Searches with nothing live and with all of it, beside a reader of the release alone."""
    name = "live_" + data.name.replace(" ", "_")
    with installed(server.url, data.released, name=name, index=INDEX, live=True) as there:
        there.fill(asked.say)
        plain = there.without_live_changes()
        before = interleaved(
            {NOTHING: queries_to(plain, data), EMPTY: queries_to(there.reader, data)},
            rounds=asked.rounds,
            say=asked.say,
        )
        mixed, over_http = None, Findings(figures=())
        if data.name == "synthetic":
            over_http = _over_http(asked, server, there, data)
            mixed = _mixed(asked, there, data)
        asked.say("committing what becomes live")
        live = lay_over(there, data)
        contenders = {NOTHING: queries_to(plain, data), FULL: queries_to(there.reader, data)}
        contenders[TWO] = on_two_threads(contenders[FULL])
        contenders[TWO_PLAIN] = on_two_threads(contenders[NOTHING])
        contenders[BARE] = bare_queries(plain, data)
        contenders[TWO_BARE] = on_two_threads(contenders[BARE])
        after = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        recall = recall_of(there.reader, data, live)
    empty, full = before.speed(EMPTY, NOTHING), after.speed(FULL, NOTHING)
    told = f" ({data.name})"
    asked_of = len(data.queries)
    figures = [
        Figure(name=f"nothing live ÷ no live layer{told}", value=empty, target=at_least(0.95)),
        Figure(
            name=f"10,000 live rows ÷ none{told}",
            value=full,
            target=at_least(0.7),
            note=f"recall@10 of all entries {recall:.3f}",
        ),
        Figure(
            name=f"two threads ÷ one, 10,000 live rows{told}",
            value=after.speed(TWO, FULL),
            target=at_least(1.8),
            note=f"without live rows {after.speed(TWO_PLAIN, NOTHING):.2f}, "
            f"bare FAISS {after.speed(TWO_BARE, BARE):.2f}",
        ),
    ]
    measured = [
        after.rates(each, asked_of, "queries/s", called=f"{each}{told}") for each in contenders
    ]
    plots: tuple[Bars, ...] = ()
    if mixed is not None:
        ratio = mixed.speed("ours", "one lock")
        figures.append(
            Figure(name="a tenth writes ÷ one lock and a save", value=ratio, target=at_least(10))
        )
        operations = QUICK_MIXED if asked.quick else MIXED
        measured += [mixed.rates(each, operations, "operations/s") for each in mixed.seconds]
        bars = tuple((each, asked_of / after.median(each)) for each in contenders)
        plots = (Bars(name="live", title="Searches a second", unit="queries/s", bars=bars),)
    whole = Findings(figures=tuple(figures), measured=tuple(measured), plots=plots)
    return joined([whole, over_http])


def _over_http(asked: Asked, server: BenchServer, there: Installation, data: Data) -> Findings:
    """Searches of a reader service, beside an endpoint that does nothing."""
    arguments = (str(there.folder), server.url, str(DIMENSION), there.name, INDEX)
    with companion("service", *arguments) as far:
        sockets = far.ask(do="serve")
        bodies = [json.dumps({"vector": each.tolist()}).encode() for each in data.queries]
        contenders = {
            SEARCH: asking(
                sockets["ours"],
                [request("POST", f"/v1/components/{COMPONENT}/search", each) for each in bodies],
            ),
            NO_WORK: asking(sockets["empty"], [request("POST", "/empty", each) for each in bodies]),
        }
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
    ratio = Figure(
        name="searches over HTTP ÷ an empty endpoint of FastAPI",
        value=rounds.speed(SEARCH, NO_WORK),
        target=at_least(0.5),
    )
    measured = tuple(rounds.rates(each, len(bodies), "requests/s") for each in contenders)
    return Findings(figures=(ratio,), measured=measured)


def queries_to(reader: Reloader, data: Data) -> Contender:
    """Every query, each in a snapshot of its own, as a web worker asks."""

    def turn() -> float:
        began = time.perf_counter()
        for query in data.queries:
            with reader.acquire() as snapshot:
                snapshot[COMPONENT].search(query)
        return time.perf_counter() - began

    return turn


def bare_queries(reader: Reloader, data: Data) -> Contender:
    """Every query to the FAISS index of the release alone: nobody makes hits of what it finds."""
    with reader.acquire() as snapshot:
        served = snapshot[COMPONENT]
        index = faiss.read_index(str(served.contents.base.paths[BASE]))
        parameters = search_parameters(index, served.facts.effort)
    queries = [each[None, :] for each in data.queries]

    def turn() -> float:
        began = time.perf_counter()
        with openmp_threads(1):
            for query in queries:
                index.search(query, 10, params=parameters)
        return time.perf_counter() - began

    return turn


def lay_over(there: Installation, data: Data) -> dict[str, int]:
    """Commit what becomes live in several batches; by id, its row in ``data.live``."""
    names = [f"live-{row:08d}" for row in range(len(data.live))]
    with there.reader.acquire() as snapshot:
        ids = snapshot[COMPONENT].ids
        replaced = [ids[row] for row in range(0, len(names), 10)]
    names[::10] = replaced
    step = max(1, len(names) // 10)
    for start in range(0, len(names), step):
        with there.producer.batch(COLLECTION) as batch:
            batch.upsert(names[start : start + step], data.live[start : start + step])
        there.reader.step()
    return {name: row for row, name in enumerate(names)}


def recall_of(reader: Reloader, data: Data, live: dict[str, int]) -> float:
    """How much of the nearest ten of all entries is found, by distance."""
    with reader.acquire() as snapshot:
        index = snapshot[COMPONENT]
        kept = [index.vector(each) for each in index.ids if each not in live]
        some = data.queries[:200]
        exact = faiss.IndexFlatL2(some.shape[1])
        exact.add(np.array(kept, dtype=np.float32))
        exact.add(data.live)
        limit = np.sqrt(exact.search(some, 10)[0][:, -1:]) * 1.0001
        found = [[hit.score for hit in index.search(query)] for query in some]
    return float(np.mean(np.array(found) <= limit))


class OneLock:
    """The same FAISS index in memory, behind one lock, saved after each write."""

    def __init__(self, reader: Reloader, file: Path) -> None:
        with reader.acquire() as snapshot:
            served = snapshot[COMPONENT]
            self._index = faiss.read_index(str(served.contents.base.paths[BASE]))
            self._parameters = search_parameters(self._index, served.facts.effort)
        self._file = file
        self._lock = threading.RLock()

    def search(self, query: Vectors) -> None:
        with self._lock, openmp_threads(1):
            self._index.search(query[None, :], 10, params=self._parameters)

    def write(self, vector: Vectors) -> None:
        with self._lock, openmp_threads(1):
            self._index.add(vector[None, :])
            faiss.write_index(self._index, str(self._file))


class Ours:
    """A producer and a reader in one process."""

    def __init__(self, there: Installation) -> None:
        self._there = there
        self._numbers = count()

    def search(self, query: Vectors) -> None:
        with self._there.reader.acquire() as snapshot:
            snapshot[COMPONENT].search(query)

    def write(self, vector: Vectors) -> None:
        with self._there.producer.batch(COLLECTION) as batch:
            batch.upsert([f"written-{next(self._numbers)}"], vector[None, :])
        self._there.reader.step()
        with self._there.reader.acquire() as snapshot:
            if snapshot.live[COLLECTION] < batch.commit.generation:
                raise RuntimeError("what was written is not found")


def _mixed(asked: Asked, there: Installation, data: Data) -> Rounds:
    operations = QUICK_MIXED if asked.quick else MIXED
    with tempfile.TemporaryDirectory(prefix="ir-") as folder:
        contenders = {
            name: mixture(each.search, each.write, data, operations)
            for name, each in (
                ("ours", Ours(there)),
                ("one lock", OneLock(there.reader, Path(folder) / "index.faiss")),
            )
        }
        return interleaved(contenders, rounds=asked.rounds, say=asked.say)


def mixture(
    search: Callable[[Vectors], None],
    write: Callable[[Vectors], None],
    data: Data,
    operations: int,
) -> Contender:
    """Nine searches and a write, again and again."""

    def turn() -> float:
        began = time.perf_counter()
        for number in range(operations):
            if number % 10:
                search(data.queries[number % len(data.queries)])
            else:
                write(data.live[number % len(data.live)])
        return time.perf_counter() - began

    return turn


@dataclass
class Sending:
    """A contender: sends one after the other, and compares when each came."""

    send: Callable[[], float]
    """When one was sent."""
    came: Callable[[], Sequence[float]]
    """When each of them came."""
    times: int
    p99: list[float] = field(default_factory=list)

    def turn(self) -> float:
        """The median, in seconds."""
        sent = []
        for _ in range(self.times):
            sent.append(self.send())
            time.sleep(BETWEEN_SECONDS)
        took = [at - began for began, at in zip(sent, self.came(), strict=True)]
        cut = quantiles(took, n=100)
        self.p99.append(cut[98])
        return cut[49]


def visible(asked: Asked, server: BenchServer) -> Findings:
    """How soon another process finds a commit, beside a message alone."""
    vectors = drawn(2_000, DIMENSION)
    times = QUICK_SENT if asked.quick else SENT
    with installed(server.url, vectors, name="live_visible", index="Flat", live=True) as there:
        there.fill(asked.say)
        arguments = (str(there.folder), server.url, str(DIMENSION), "live_visible", "Flat")
        with companion("live", *arguments) as far, stamped() as commits:
            far.ask(do="follow")
            contenders = {
                "a commit": Sending(
                    send=lambda: _committed(there, vectors, commits),
                    came=lambda: _came(far, commits),
                    times=times,
                ),
                "a bare message": _bare(server, far, times),
            }
            rounds = interleaved(
                {name: each.turn for name, each in contenders.items()},
                rounds=asked.rounds,
                say=asked.say,
            )
    p99 = Rounds(seconds={name: tuple(each.p99[1:]) for name, each in contenders.items()})
    return Findings(
        figures=tuple(
            Figure(
                name=f"a commit is found elsewhere ÷ XADD to XREAD, {name}",
                value=each.ratio("a commit", "a bare message"),
                target=at_most(4),
            )
            for name, each in (("p50", rounds), ("p99", p99))
        ),
        measured=tuple(
            Measured(
                name=f"{each}, {name}",
                unit="ms",
                values=tuple(1000 * value for value in found.seconds[each]),
            )
            for name, found in (("p50", rounds), ("p99", p99))
            for each in contenders
        ),
        servers=server.versions,
    )


Stamps = list[tuple[int, float]]
"""The generation of each commit, and when it was done."""


@contextmanager
def stamped() -> Iterator[Stamps]:
    """Takes down when each commit was durable, which is when its changes are sent."""
    stamps: Stamps = []
    send = ChangeSender.send

    def sent(self: ChangeSender, commits: Sequence[Commit]) -> None:
        stamps.append((commits[-1].generation, time.perf_counter()))
        send(self, commits)

    ChangeSender.send = sent  # type: ignore[method-assign]
    try:
        yield stamps
    finally:
        ChangeSender.send = send  # type: ignore[method-assign]


def _committed(there: Installation, vectors: Vectors, commits: Stamps) -> float:
    with there.producer.batch(COLLECTION) as batch:
        batch.upsert(["written"], vectors[:1])
    return commits[-1][1]


def _came(far: Companion, commits: Stamps) -> Sequence[float]:
    generations = [generation for generation, _ in commits]
    commits.clear()
    at: list[float] = far.ask(do="seen", generations=generations)["at"]
    return at


def _bare(server: BenchServer, far: Companion, times: int) -> Sending:
    client: Any = server.client()
    stream, message = "bare", b"x" * 1_000
    far.ask(do="listen", stream=stream)

    def send() -> float:
        began = time.perf_counter()
        client.xadd(stream, {"event": message})
        return began

    def came() -> Sequence[float]:
        at: list[float] = far.ask(do="heard", count=times)["at"]
        return at

    return Sending(send=send, came=came, times=times)


def writing(asked: Asked, server: BenchServer) -> Findings:
    """Durable writes of several clients that share transactions, beside a commit for each write."""
    vectors = drawn(2_000, DIMENSION)
    times = QUICK_WRITES if asked.quick else WRITES
    with installed(server.url, vectors, name="live_writing", index="Flat", live=True) as there:
        group = there.producer.group_commit()
        numbers = count()

        def change(batch: Batch) -> None:
            batch.upsert([f"written-{next(numbers)}"], vectors[:1])

        def write_together() -> None:
            group.submit(group.prepared(COLLECTION, None, change)).result()

        def write_alone() -> None:
            with there.producer.batch(COLLECTION) as batch:
                change(batch)

        contenders = {
            TOGETHER: by_writers(write_together, times),
            ALONE: by_writers(write_alone, times),
        }
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        group.close()
    ratio = Figure(
        name=f"durable writes of {WRITERS} clients ÷ a commit for each",
        value=rounds.speed(TOGETHER, ALONE),
        target=at_least(3),
    )
    measured = tuple(rounds.rates(each, WRITERS * times, "writes/s") for each in contenders)
    return Findings(figures=(ratio,), measured=measured, servers=server.versions)


def by_writers(write: Callable[[], None], times: int) -> Contender:
    """Several writers at a time, each of which waits for its commit before the next write."""

    def work() -> None:
        for _ in range(times):
            write()

    def turn() -> float:
        threads = [threading.Thread(target=work) for _ in range(WRITERS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    return turn


def memory(asked: Asked) -> Findings:
    """What live rows take, beside their vectors."""
    figures = []
    rows = QUICK_LIVE if asked.quick else LIVE
    for dimension in (DIMENSION, 384):
        asked.say(f"filling live rows of {dimension} dimensions")
        with companion("live", "", "unix:///nowhere", str(dimension), "memory", "Flat") as fresh:
            answer = fresh.ask(do="memory", count=rows, dimension=dimension)
        if not answer["codes"]:
            raise RuntimeError("there are no codes to be measured")
        figures.append(
            Figure(
                name=f"memory of live rows ÷ their vectors, {dimension} dimensions",
                value=answer["grown"] / answer["vectors"],
                target=at_most(1.5),
            )
        )
    return Findings(figures=tuple(figures))


def measure(asked: Asked) -> Findings:
    with bench_server() as server:
        return joined(
            [
                searching(asked, server, synthetic(asked)),
                searching(asked, server, real(asked)),
                visible(asked, server),
                writing(asked, server),
                memory(asked),
            ]
        )


PROGRAM = Program(name="live", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
