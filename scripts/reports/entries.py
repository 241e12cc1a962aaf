"""Section B: data at the doors, through `check_entries`, a table or a folder of files."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.schemas.urls import sqlite_url
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.sources import open_source
from indexrelay.storage.validation import check_entries, check_listed_ids
from scripts.reports.report import Attempt, reports

UNIT = [[1, 0], [0, 1]]
BATCH = "InvalidEntriesError: .*"
"""How a batch begins when it refuses; `TABLE` and `FILE` are the same of the two others."""
TABLE = "SourceError: .*"
FILE = r"SourceError: a\.npz: .*"


def batch(ids: Any, vectors: Any = UNIT, *columns: Any, metric: Metric = Metric.L2) -> Attempt:
    """What a batch does with its arguments, for a collection of two dimensions."""
    return lambda _: check_entries(ids, vectors, *columns, dimension=2, metric=metric).ids


def payload(value: Any) -> Attempt:
    """A batch of two entries, of which the second has ``value`` in its payload."""
    return batch(["a", "b"], UNIT, None, [{"year": 1}, {"year": value}])


def read(folder: Path, source: dict[str, Any]) -> str:
    """The entries of a source of two dimensions, and what it leaves out."""
    settings = CollectionSettings.model_validate({"dimension": 2, "metric": "l2", "source": source})
    with (
        closing(Catalog.open(sqlite_url(folder / "catalog.db"))) as catalog,
        open_source("tracks", settings, catalog).snapshot() as snapshot,
    ):
        ids = [id_ for chunk in snapshot.chunks() for id_ in chunk.ids]
        return f"{ids}, left out: {dict(snapshot.left_out)}"


def table(vector: Any, payload: str | None = None, **settings: Any) -> Attempt:
    """A table of two rows: a good one, and one with these columns."""
    good = np.ones(2, np.float32).tobytes()
    rows = [("good", good, "{}"), ("odd", good if vector is Ellipsis else vector, payload)]

    def attempt(folder: Path) -> str:
        file = folder / "rows.db"
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE t (id TEXT, vector, payload TEXT)")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        source = {"kind": "table", "url": sqlite_url(file), "table": "t"}
        return read(folder, {**source, "payload_column": "payload", **settings})

    return attempt


def files(*names: str, **arrays: Any) -> Attempt:
    """A folder of files that all hold the same: ``arrays``, or one vector."""

    def attempt(folder: Path) -> str:
        for name in names:
            target = folder / "files" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                if name.lower().endswith(".npy"):
                    np.save(file, arrays.get("vectors", np.ones((1, 2), np.float32)))
                elif name.lower().endswith(".npz"):
                    np.savez(file, allow_pickle=True, **(arrays or {"vectors": np.ones((1, 2))}))
        return read(folder, {"kind": "folder", "path": folder / "files"})

    return attempt


AB = ["a", "b"]
DEEP = "[" * 10_000 + "]" * 10_000
DOUBLE = np.ones(2).tobytes()
MASKED = np.ma.masked_equal(np.array([[1, 0], [0, 7]]), 7)
OBJECTS = np.array(["a"], dtype=object)
LENGTHS = tuple(
    (
        f"a vector of {value:g} under {metric.value}",
        rf"vector {said} than .*: row 1 \('b'\)",
        batch(AB, [[1, 0], [value, 0]], metric=metric),
    )
    for value, said in ((1e19, "longer"), (1e300, "longer"), (1e-30, "shorter"))
    for metric in Metric
)
REPORTS = (
    *reports(
        "B7",
        ("a set of ids beside a matrix", "ids must be .* not a set, whose order", batch({"a"})),
        ("the keys of a dict as ids", "ids must be .* not a dict_keys", batch({"a": 1}.keys())),
        ("a generator as ids", "ids must be .* not a generator", batch(c for c in "ab")),
        ("a dict of vectors by id", "vectors must be an array .* not a dict", batch(AB, {})),
        ("a vector that is a set", r"vector .*: row 1 \('b'\)", batch(AB, [[1, 0], {0, 1}])),
        ("a set of texts", "texts must be a sequence", batch(AB, UNIT, {"x", "y"})),
        ("a set of payloads", "payloads must be a", batch(AB, UNIT, None, frozenset({1, 2}))),
        says=BATCH,
    ),
    *reports(
        "B7",
        ("ids in an array of numpy", r"\['b', 'a'\]", batch(np.array(["b", "a"]))),
        ("a set of ids to delete", r"\['a'\]", lambda _: check_listed_ids({"a"})),
    ),
    *reports(
        "B8",
        ("half a surrogate pair", r"\$\.t: .* half a .*'odd'", table(..., r'{"t": "\ud83c"}')),
        ("NaN in a table's payload", "NaN has no place in .*'odd'", table(..., '{"n": NaN}')),
        ("1e400, read as infinity", r"\$\.n: inf has .*'odd'", table(..., '{"n": 1e400}')),
        ("a key twice in one object", "the key 'n' is given twice", table(..., '{"n":1,"n":2}')),
        ("lists in lists, 10,000 deep", "deeper than 100 levels.*: id 'odd'", table(..., DEEP)),
        says=TABLE,
    ),
    *reports("B9", *LENGTHS, says=BATCH),
    *reports("B10", ("no vector yet", r"\['good'\], left .*'without_vector': 1", table(None))),
    *reports(
        "B10",
        ("the same, as a failure", r"\(NULL\).*'odd'", table(None, on_missing_vector="fail")),
        ("null in a JSON array", r"null in place of a .* \(at 1\).*'odd'", table("[1, null]")),
        ("an empty blob as a vector", "vector of 0 bytes.*: id 'odd'", table(b"")),
        ("float64 values as a vector", "of 16 bytes.*are these float64.*'odd'", table(DOUBLE)),
        says=TABLE,
    ),
    *reports(
        "B11",
        ("numpy.int64", r"\$\.year: numpy\.int64 .*item\(\)\): row 1", payload(np.int64(7))),
        ("a datetime", r"\$\.year: datetime\.datetime .*isoformat", payload(datetime.now(UTC))),
        ("a Decimal", r"\$\.year: decimal\.Decimal", payload(Decimal(7))),
        ("NaN in a payload", r"\$\.year: nan has .* give None", payload(float("nan"))),
        ("a key that is a number", r"\$\.year: the key 7 .* str\(key\)", payload({7: "x"})),
        says=BATCH,
    ),
    *reports(
        "B12", ("a masked array", "vector with masked values: row 1", batch(AB, MASKED)), says=BATCH
    ),
    *reports("B12", ("X.NPY and others", r"\['X:0'\].*'subfolders': 1", files("X.NPY", "s/y.npy"))),
    *reports(
        "B12",
        ("no array 'vectors'", "there is no array 'vectors'.*'o'", files("a.npz", o=UNIT)),
        ("Python objects as ids", "unpickled", files("a.npz", vectors=UNIT[:1], ids=OBJECTS)),
        says=FILE,
    ),
)
