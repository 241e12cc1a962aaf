"""What does a text index cost beside bare FTS5, and does it find better?

The texts are the docstrings of the running Python's standard library. A text index cuts them by
its own analyser and lets FTS5 keep the terms; bare FTS5 cuts them by its `unicode61`, with the same
rows beside it, which is what a text index was before there was an analyser. Speed is measured on
100,000 short texts (lines of the docstrings). Finding is measured on whole docstrings: the first
paragraph is taken off and asked for as a question, and the rest of its docstring is what should
come first.
"""

import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count as counting
from pathlib import Path
from time import perf_counter

import numpy as np

from indexrelay.components.text_index import TextSearch
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.changes import change_database
from indexrelay.components.text_index.database import write_database
from indexrelay.console.demo.corpus import standard_library
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries
from measuring.findings import Figure, Findings, Measured, at_least, at_most
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import interleaved

CAVEATS = """\
- Bare FTS5 is what a text index was before: entries, an index of their ids, one FTS5 table with its
  texts, `optimize`. Its queries are the runs of letters and digits, joined by OR.
- Nothing is read from a source, judged or released: the gates and the way around are in other
  programs (`full_build`, `small_batch`).
- The texts are English and code. What the analyser is for, other scripts, bare FTS5 does not find
  at all; `tests/components/text_index/test_analyser_languages.py` proves that, it is not measured
  here.
- Queries are one at a time on one thread. A query costs what its commonest words cost: FTS5 scores
  every text that has any of them, on both sides.
"""
TEXTS, QUICK_TEXTS = 100_000, 2_000
BATCH = 1_000
QUERIES, QUICK_QUERIES = 300, 40
JUDGED, QUICK_JUDGED = 2_000, 100
OURS, BARE = "text index", "bare FTS5"
QUICK_FOLDER = "asyncio"
_RUN = re.compile(r"[^\W_]+")
_SEARCH = """
    SELECT entries.id FROM (
        SELECT rowid, rank FROM texts WHERE texts MATCH ? ORDER BY rank, rowid LIMIT ?
    ) AS found JOIN entries ON entries.row = found.rowid ORDER BY found.rank, found.rowid
"""
Search = Callable[[str], list[str]]


@dataclass(frozen=True)
class Corpus:
    """Real texts, of one machine."""

    short: list[str]
    titles: list[str]
    """The first paragraphs of `bodies`."""
    bodies: list[str]


def corpus(*, quick: bool) -> Corpus:
    root = Path(re.__file__).parents[1] / QUICK_FOLDER if quick else None
    texts = [document.text for document in standard_library(root).documents]
    lines = (line.strip() for text in texts for line in text.splitlines())
    short = [line for line in dict.fromkeys(lines) if len(line) > 20]
    wanted = QUICK_TEXTS if quick else TEXTS
    # A standard library has some 40,000 lines; halves of others make up for the rest.
    halves = (line[len(line) // 2 :] for line in short if len(line) > 40)
    short = [*short, *(half.strip() for half in halves)][:wanted]
    parts = [text.partition("\n\n") for text in texts]
    long = [(title, body) for title, _, body in parts if len(title) > 20 and len(body) > 100]
    long = long[: QUICK_JUDGED if quick else JUDGED]
    return Corpus(short, [title for title, _ in long], [body for _, body in long])


def rows_of(texts: Sequence[str], first: int = 0) -> Entries:
    return Entries(
        ids=[f"{row:08d}" for row in range(first, first + len(texts))],
        vectors=np.zeros((len(texts), 1), dtype=np.float32),
        texts=list(texts),
        payloads=[None] * len(texts),
    )


def chunks(texts: Sequence[str]) -> Iterator[tuple[int, Entries]]:
    for first in range(0, len(texts), CHUNK_ROWS):
        yield first, rows_of(texts[first : first + CHUNK_ROWS], first)


def write_bare(path: Path, texts: Sequence[str]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            """
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;
            CREATE TABLE entries (row INTEGER PRIMARY KEY, id TEXT NOT NULL, payload TEXT);
            CREATE VIRTUAL TABLE texts USING
                fts5 (body, tokenize = 'unicode61 remove_diacritics 2');
            """
        )
        for first, chunk in chunks(texts):
            rows = range(first, first + len(chunk))
            entries = zip(rows, chunk.ids, chunk.payloads, strict=True)
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", entries)
            bodies = zip(rows, chunk.texts, strict=True)
            connection.executemany("INSERT INTO texts (rowid, body) VALUES (?, ?)", bodies)
        connection.execute("CREATE INDEX entries_by_id ON entries (id)")
        connection.execute("INSERT INTO texts (texts) VALUES ('optimize')")
        connection.execute("COMMIT")


def change_bare(path: Path, last: Path, changed: Entries) -> None:
    path.write_bytes(last.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;")
        rows = [int(each) for each in changed.ids]
        for entry_id in changed.ids:
            connection.execute("SELECT row FROM entries WHERE id = ?", (entry_id,)).fetchone()
        gone = ((row,) for row in rows)
        connection.executemany("DELETE FROM texts WHERE rowid = ?", gone)
        bodies = zip(rows, changed.texts, strict=True)
        connection.executemany("INSERT INTO texts (rowid, body) VALUES (?, ?)", bodies)
        connection.execute("COMMIT")


def bare_search(path: Path, stack: ExitStack) -> Search:
    connection = stack.enter_context(closing(sqlite3.connect(path)))

    def search(text: str) -> list[str]:
        runs = list(dict.fromkeys(_RUN.findall(text)))[:64]
        asked = " OR ".join(f'"{run}"' for run in runs)
        return [found for (found,) in connection.execute(_SEARCH, (asked, 10))]

    return search


def our_search(path: Path, stack: ExitStack) -> Search:
    served = stack.enter_context(closing(TextSearch(path)))
    return lambda text: [hit.id for hit in served.search(text, k=10)]


def found_at(search: Search, texts: Corpus) -> tuple[float, float]:
    """Mean reciprocal rank of what was asked for, and the share among the first ten."""
    ranks = []
    for row, title in enumerate(texts.titles):
        found = search(title)
        wanted = f"{row:08d}"
        ranks.append(1 / (found.index(wanted) + 1) if wanted in found else 0.0)
    return float(np.mean(ranks)), float(np.mean([rank > 0 for rank in ranks]))


def measure(asked: Asked) -> Findings:
    asked.say("reading the standard library")
    texts = corpus(quick=asked.quick)
    with tempfile.TemporaryDirectory(prefix="indexrelay-bench-") as name, ExitStack() as stack:
        return _measured(asked, texts, Path(name), stack)


def _measured(asked: Asked, texts: Corpus, folder: Path, stack: ExitStack) -> Findings:
    numbers = counting()
    analyser = Analyser()

    def fresh() -> Path:
        return folder / f"{next(numbers)}.db"

    def timed_file(write: Callable[[Path], object]) -> Callable[[], float]:
        def turn() -> float:
            path = fresh()
            began = perf_counter()
            write(path)
            took = perf_counter() - began
            path.unlink()
            return took

        return turn

    ours, bare = fresh(), fresh()
    write_database(ours, chunks(texts.short), analyser=analyser)
    write_bare(bare, texts.short)
    builds = interleaved(
        {
            OURS: timed_file(
                lambda path: write_database(path, chunks(texts.short), analyser=analyser)
            ),
            BARE: timed_file(lambda path: write_bare(path, texts.short)),
        },
        rounds=asked.rounds,
        say=asked.say,
    )
    step = max(1, len(texts.short) // BATCH)
    places = range(0, len(texts.short), step)
    changed = Entries(
        ids=[f"{row:08d}" for row in places],
        vectors=np.zeros((len(places), 1), dtype=np.float32),
        texts=[texts.short[row - 1] for row in places],
        payloads=[None] * len(places),
    )
    batch = [Changes(upserts=changed, deletes=[])]
    batches = interleaved(
        {
            OURS: timed_file(
                lambda path: change_database(
                    path, ours, batch, analyser=analyser, before=0, most=len(places)
                )
            ),
            BARE: timed_file(lambda path: change_bare(path, bare, changed)),
        },
        rounds=asked.rounds,
        say=asked.say,
    )
    number = QUICK_QUERIES if asked.quick else QUERIES
    questions = texts.short[:: max(1, len(texts.short) // number)][:number]
    searches = {OURS: our_search(ours, stack), BARE: bare_search(bare, stack)}

    def asking(search: Search) -> Callable[[], float]:
        def turn() -> float:
            began = perf_counter()
            for question in questions:
                search(question)
            return perf_counter() - began

        return turn

    queries = interleaved(
        {name: asking(search) for name, search in searches.items()},
        rounds=asked.rounds,
        say=asked.say,
    )
    asked.say("asking for docstrings by their first paragraphs")
    write_database(judged := fresh(), chunks(texts.bodies), analyser=analyser)
    write_bare(judged_bare := fresh(), texts.bodies)
    our_rank, our_hits = found_at(our_search(judged, stack), texts)
    bare_rank, bare_hits = found_at(bare_search(judged_bare, stack), texts)
    each = {
        f"{name}, {what}": tuple(1000 * seconds / per for seconds in rounds.seconds[name])
        for what, rounds, per in (
            ("build", builds, 1),
            ("batch", batches, 1),
            ("query", queries, len(questions)),
        )
        for name in (OURS, BARE)
    }
    return Findings(
        figures=(
            Figure(name="build ÷ bare FTS5", value=builds.ratio(OURS, BARE), target=at_most(2.5)),
            Figure(
                name="batch of 1,000 ÷ bare FTS5",
                value=batches.ratio(OURS, BARE),
                target=at_most(3),
            ),
            Figure(name="query ÷ bare FTS5", value=queries.ratio(OURS, BARE), target=at_most(1.2)),
            Figure(name="file ÷ bare FTS5's", value=ours.stat().st_size / bare.stat().st_size),
            Figure(
                name="mean reciprocal rank ÷ bare FTS5's",
                value=our_rank / bare_rank,
                target=at_least(0.99),
            ),
            Figure(name="mean reciprocal rank", value=our_rank),
            Figure(name="mean reciprocal rank, bare FTS5", value=bare_rank),
            Figure(name="among the first ten", value=our_hits),
            Figure(name="among the first ten, bare FTS5", value=bare_hits),
        ),
        measured=tuple(
            Measured(name=name, unit="ms", values=values) for name, values in each.items()
        ),
        plots=(
            Bars(
                name="text",
                title="One query on 100,000 short texts",
                unit="ms",
                bars=tuple((name, each[f"{name}, query"][0]) for name in (OURS, BARE)),
            ),
        ),
    )


PROGRAM = Program(name="text", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
