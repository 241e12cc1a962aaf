"""How fast do entries go into the catalog and come out again, over bare sqlite3 on the same schema?

A million entries of 128 dimensions with an id and a small payload: written new, overwritten, and
read whole. Both sides start from the same ids, array and payloads, and leave the same rows behind.
"""

import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.producers import Producer
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.database import CACHE_KIB
from indexrelay.streams import Connection
from measuring.findings import Figure, Findings, at_least
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import Rounds, interleaved, prepared, timed
from measuring.servers import BenchServer, bench_server

CAVEATS = """\
- Both databases are files on the same disk, with write-ahead log, `synchronous = FULL` and the same
  cache, and both write one transaction a round: a fifth of the entries. So the collection grows
  from nothing to a million while it is measured, and then every row is overwritten once.
- Ours is what a job calls: `producer.batch()`, which checks ids, vectors and payloads, keeps count
  of live entries, takes a generation and announces the batch. Bare sqlite3 checks nothing.
- New ids come in order, which is the fastest for SQLite and so the hardest for us. Overwriting
  takes them in a random one: ours sorts a batch by id before it writes, bare sqlite3 writes as it
  is told.
- Reading gives arrays of 10,000 rows with us, and plain rows with bare sqlite3.
- SQLite only. PostgreSQL takes whole columns at a time; there the server sets the pace.
"""
DIMENSION = 128
_UPSERT = """
INSERT INTO indexrelay_entries (collection, generation, deleted, id, vector, text, payload)
VALUES (1, ?, 0, ?, ?, NULL, ?)
ON CONFLICT (collection, id) DO UPDATE SET
  generation = excluded.generation, deleted = 0,
  vector = excluded.vector, text = excluded.text, payload = excluded.payload
"""
_SELECT = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = 1 AND NOT deleted ORDER BY id
"""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a job has at hand."""

    ids: list[str]
    vectors: NDArray[np.float32]
    payloads: list[Any]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, numbers: Sequence[int]) -> "Rows":
        """Some of them."""
        return Rows(
            ids=[self.ids[number] for number in numbers],
            vectors=self.vectors[list(numbers)],
            payloads=[self.payloads[number] for number in numbers],
        )


def made(count: int) -> Rows:
    vectors = np.random.default_rng(5).standard_normal((count, DIMENSION), np.float32)
    return Rows(
        ids=[f"track-{number:07d}" for number in range(count)],
        vectors=vectors,
        payloads=[
            {"title": f"Track {number}", "year": 1950 + number % 70} for number in range(count)
        ],
    )


class Ours:
    """A job and a build."""

    def __init__(self, folder: Path, server: BenchServer) -> None:
        settings = Settings.model_validate(
            {
                "data_dir": folder,
                "producer": {"max_backlog": None},
                "collections": {"tracks": {"dimension": DIMENSION}},
            }
        )
        self._catalog = Catalog.open(settings.catalog_url)
        self._connection = Connection.open(server.url)
        self._producer = Producer(settings, catalog=self._catalog, connection=self._connection)

    def write(self, rows: Rows) -> None:
        with self._producer.batch("tracks") as batch:
            batch.upsert(rows.ids, rows.vectors, payloads=rows.payloads)

    def read(self) -> int:
        with self._catalog.entries.snapshot("tracks") as snapshot:
            return sum(len(chunk) for chunk in snapshot.chunks())

    def close(self) -> None:
        self._producer.close()
        self._connection.close()
        self._catalog.close()


class Bare:
    """The standard library's driver, on tables that are made alike."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        file = folder / "bare.db"
        Catalog.open(f"sqlite:///{file}").close()
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._generation = 0

    def write(self, rows: Rows) -> None:
        self._generation += 1
        generation = self._generation
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            _UPSERT,
            (
                (generation, id_, vector.tobytes(), json.dumps(payload))
                for id_, vector, payload in zip(rows.ids, rows.vectors, rows.payloads, strict=True)
            ),
        )
        self._connection.execute("COMMIT")

    def read(self) -> int:
        cursor = self._connection.execute(_SELECT)
        found = 0
        while chunk := cursor.fetchmany(10_000):
            found += len(chunk)
        return found

    def close(self) -> None:
        self._connection.close()


Side = Ours | Bare


def writing(side: Side, portions: Sequence[Rows]) -> Callable[[], float]:
    """A contender whose every turn writes the next portion."""
    left = iter(portions)
    return prepared(lambda: next(left), side.write)


def reading(side: Side, count: int) -> Callable[[], float]:
    def work() -> None:
        if (found := side.read()) != count:
            raise RuntimeError(f"{found} of {count} entries were read")

    return timed(work)


@contextmanager
def sides() -> Iterator[tuple[Ours, Bare, BenchServer]]:
    with (
        tempfile.TemporaryDirectory(prefix="ir-bench-") as folder,
        bench_server() as server,
        closing(Ours(Path(folder, "ours"), server)) as ours,
        closing(Bare(Path(folder, "bare"))) as bare,
    ):
        yield ours, bare, server


def portions(rows: Rows, rounds: int, order: Sequence[int]) -> list[Rows]:
    """As many equal parts as there are rounds."""
    size = len(rows) // rounds
    return [rows.only(order[start : start + size]) for start in range(0, size * rounds, size)]


def measure(asked: Asked) -> Findings:
    count = (20_000 if asked.quick else 1_000_000) // asked.rounds * asked.rounds
    rows = made(count)
    shuffled = np.random.default_rng(6).permutation(count).tolist()
    with sides() as (ours, bare, server):

        def wrote(order: Sequence[int]) -> Rounds:
            parts = portions(rows, asked.rounds, order)
            contenders = {"ours": writing(ours, parts), "sqlite3": writing(bare, parts)}
            return interleaved(contenders, rounds=asked.rounds, say=asked.say, warm_up=False)

        inserted = wrote(range(count))
        overwritten = wrote(shuffled)
        read = interleaved(
            {"ours": reading(ours, count), "sqlite3": reading(bare, count)},
            rounds=asked.rounds,
            say=asked.say,
        )
    share = count // asked.rounds
    works = (
        ("bulk upsert, new rows", inserted, share),
        ("bulk upsert, overwriting", overwritten, share),
        ("reading everything", read, count),
    )
    measured = tuple(
        rounds.rates(side, amount, "rows/s", called=f"{name}, {side}")
        for name, rounds, amount in works
        for side in ("ours", "sqlite3")
    )
    bars = tuple((each.name, each.median) for each in measured)
    title = f"{count:,} entries of {DIMENSION} dimensions in SQLite"
    return Findings(
        figures=tuple(
            Figure(
                name=f"{name} ÷ sqlite3",
                value=rounds.speed("ours", "sqlite3"),
                target=at_least(0.7),
            )
            for name, rounds, _ in works
        ),
        measured=measured,
        plots=(Bars(name="entries", title=title, unit="rows/s", bars=bars),),
        servers=server.versions,
    )


PROGRAM = Program(name="entries", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
