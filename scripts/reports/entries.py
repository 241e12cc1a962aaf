"""Section B: data at the doors, through `check_entries`, a table or a folder of files."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.schemas.database_url import sqlite_url
from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Entries
from indexrelay.storage.sources import open_source
from indexrelay.storage.validation import check_entries, check_listed_ids
from scripts.reports.report import Report

UNIT = [[1, 0], [0, 1]]
REFUSED = "InvalidEntriesError: "


def check(
    ids: Any, vectors: Any, texts: Any = None, payloads: Any = None, metric: Metric = Metric.L2
) -> Entries:
    """What a batch does with its arguments, for a collection of two dimensions."""
    return check_entries(ids, vectors, texts, payloads, dimension=2, metric=metric)


def long_or_short(value: float, metric: Metric, _folder: Path) -> Entries:
    """A batch of two entries, of which the second's vector has this number in it."""
    return check(["a", "b"], [[1, 0], [value, 0]], metric=metric)


def payload(value: Any) -> Entries:
    """A batch of two entries, of which the second has ``value`` in its payload."""
    return check(["a", "b"], UNIT, None, [{"year": 1}, {"year": value}])


def read(folder: Path, source: dict[str, Any]) -> str:
    """The entries of a source of two dimensions, and what it leaves out."""
    settings = CollectionSettings.model_validate({"dimension": 2, "metric": "l2", "source": source})
    with (
        closing(Catalog.open(sqlite_url(folder / "catalog.db"))) as catalog,
        open_source("tracks", settings, catalog).snapshot() as snapshot,
    ):
        ids = [id_ for chunk in snapshot.chunks() for id_ in chunk.ids]
        return f"{ids}, left out: {dict(snapshot.left_out)}"


def table(folder: Path, vector: Any, payload: str | None = None, **settings: Any) -> str:
    """A table of two rows: a good one, and one with these columns."""
    file = folder / "rows.db"
    good = np.ones(2, np.float32).tobytes()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE t (id TEXT, vector, payload TEXT)")
        rows = [("good", good, "{}"), ("odd", good if vector is Ellipsis else vector, payload)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    source = {"kind": "table", "url": sqlite_url(file), "table": "t", "payload_column": "payload"}
    return read(folder, {**source, **settings})


def files(folder: Path, *names: str, **arrays: Any) -> str:
    """A folder of files that all hold the same: ``arrays``, or one vector."""
    there = folder / "files"
    for name in names:
        target = there / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            if name.lower().endswith(".npy"):
                np.save(file, arrays.get("vectors", np.ones((1, 2), np.float32)))
            elif name.lower().endswith(".npz"):
                np.savez(file, allow_pickle=True, **(arrays or {"vectors": np.ones((1, 2))}))
    return read(folder, {"kind": "folder", "path": there})


REPORTS = (
    Report(
        item="B7",
        tried="a set of ids beside a matrix",
        wanted=rf"{REFUSED}ids must be a sequence, .* not a set, whose order",
        attempt=lambda _: check({"a", "b"}, UNIT),
    ),
    Report(
        item="B7",
        tried="the keys of a dict as ids",
        wanted=rf"{REFUSED}ids must be a sequence, .* not a dict_keys",
        attempt=lambda _: check({"a": 1, "b": 2}.keys(), UNIT),
    ),
    Report(
        item="B7",
        tried="a generator as ids",
        wanted=rf"{REFUSED}ids must be a sequence, .* not a generator",
        attempt=lambda _: check((id_ for id_ in "ab"), UNIT),
    ),
    Report(
        item="B7",
        tried="a dict of vectors by id",
        wanted=rf"{REFUSED}vectors must be an array .* not a dict",
        attempt=lambda _: check(["a", "b"], {"a": UNIT[0], "b": UNIT[1]}),
    ),
    Report(
        item="B7",
        tried="a vector that is a set",
        wanted=rf"{REFUSED}vector .*: row 1 \('b'\)",
        attempt=lambda _: check(["a", "b"], [[1.0, 0.0], {0.0, 1.0}]),
    ),
    Report(
        item="B7",
        tried="sets of texts and payloads",
        wanted=rf"{REFUSED}texts must be a sequence",
        attempt=lambda _: check(["a", "b"], UNIT, {"x", "y"}, frozenset({1, 2})),
    ),
    Report(
        item="B7",
        tried="ids and texts in arrays of numpy",
        wanted=r"\['b', 'a'\]",
        attempt=lambda _: check(np.array(["b", "a"]), UNIT, np.array(["x", "y"])).ids,
    ),
    Report(
        item="B7",
        tried="a set of ids to delete, where no order is needed",
        wanted=r"\['a', 'b'\]",
        attempt=lambda _: sorted(check_listed_ids({"a", "b"})),
    ),
    Report(
        item="B8",
        tried="half a surrogate pair in a table's payload",
        wanted=r"SourceError: .*\$\.title: .* half a character.*: id 'odd'",
        attempt=lambda folder: table(folder, ..., r'{"title": "\ud83c"}'),
    ),
    Report(
        item="B8",
        tried="NaN in a table's payload",
        wanted=r"SourceError: .*NaN has no place in JSON.*: id 'odd'",
        attempt=lambda folder: table(folder, ..., '{"n": NaN}'),
    ),
    Report(
        item="B8",
        tried="1e400 in a table's payload, which reads as infinity",
        wanted=r"SourceError: .*\$\.n: inf has no place in JSON.*: id 'odd'",
        attempt=lambda folder: table(folder, ..., '{"n": 1e400}'),
    ),
    Report(
        item="B8",
        tried="a key that is given twice in a table's payload",
        wanted=r"SourceError: .*the key 'n' is given twice.*: id 'odd'",
        attempt=lambda folder: table(folder, ..., '{"n": 1, "n": 2}'),
    ),
    Report(
        item="B8",
        tried="lists in lists, 100,000 deep, in a table's payload",
        wanted=r"SourceError: .*nested deeper than 100 levels.*: id 'odd'",
        attempt=lambda folder: table(folder, ..., "[" * 100_000 + "]" * 100_000),
    ),
    *(
        Report(
            item="B9",
            tried=f"a vector of {value:g} under {metric.value}",
            wanted=rf"{REFUSED}vector {said} than .*: row 1 \('b'\)",
            attempt=partial(long_or_short, value, metric),
        )
        for value, said in ((1e19, "longer"), (1e300, "longer"), (1e-30, "shorter"))
        for metric in Metric
    ),
    Report(
        item="B10",
        tried="a row that has no vector yet",
        wanted=r"\['good'\], left out: {'without_vector': 1}",
        attempt=lambda folder: table(folder, None),
    ),
    Report(
        item="B10",
        tried='the same with on_missing_vector = "fail"',
        wanted=r"SourceError: .*no vector \(NULL\).*: id 'odd'",
        attempt=lambda folder: table(folder, None, on_missing_vector="fail"),
    ),
    Report(
        item="B10",
        tried="null in a JSON array",
        wanted=r"SourceError: .*has null in place of a number \(at 1\): id 'odd'",
        attempt=lambda folder: table(folder, "[1, null]"),
    ),
    Report(
        item="B10",
        tried="an empty blob as a vector",
        wanted=r"SourceError: .*vector of 0 bytes.*: id 'odd'",
        attempt=lambda folder: table(folder, b""),
    ),
    Report(
        item="B10",
        tried="float64 values as a vector",
        wanted=r"SourceError: .*vector of 16 bytes.*are these float64 values.*: id 'odd'",
        attempt=lambda folder: table(folder, np.ones(2).tobytes()),
    ),
    Report(
        item="B11",
        tried="numpy.int64 in a payload",
        wanted=rf"{REFUSED}.*\(\$\.year: numpy\.int64 .* give value\.item\(\)\): row 1 \('b'\)",
        attempt=lambda _: payload(np.int64(7)),
    ),
    Report(
        item="B11",
        tried="a datetime in a payload",
        wanted=rf"{REFUSED}.*\$\.year: datetime\.datetime .* give value\.isoformat\(\)",
        attempt=lambda _: payload(datetime.now(UTC)),
    ),
    Report(
        item="B11",
        tried="a Decimal in a payload",
        wanted=rf"{REFUSED}.*\$\.year: decimal\.Decimal",
        attempt=lambda _: payload(Decimal(7)),
    ),
    Report(
        item="B11",
        tried="NaN in a payload",
        wanted=rf"{REFUSED}.*\$\.year: nan has no place in JSON; give None",
        attempt=lambda _: payload(float("nan")),
    ),
    Report(
        item="B11",
        tried="a key that is a number",
        wanted=rf"{REFUSED}.*\$\.year: the key 7 is not a string; give str\(key\)",
        attempt=lambda _: payload({7: "x"}),
    ),
    Report(
        item="B12",
        tried="a masked array of vectors",
        wanted=rf"{REFUSED}vector with masked values: row 1 \('b'\)",
        attempt=lambda _: check(["a", "b"], np.ma.masked_equal(np.array([[1, 0], [0, 7]]), 7)),
    ),
    Report(
        item="B12",
        tried="X.NPY, a subfolder and a text file",
        wanted=r"\['X:0'\], left out: {'subfolders': 1, 'other_files': 1}",
        attempt=lambda folder: files(folder, "X.NPY", "2026/y.npy", "notes.txt"),
    ),
    Report(
        item="B12",
        tried="an .npz file without an array 'vectors'",
        wanted=r"SourceError: a\.npz: there is no array 'vectors' in it; it has 'embeddings'",
        attempt=lambda folder: files(folder, "a.npz", embeddings=np.ones((1, 2))),
    ),
    Report(
        item="B12",
        tried="Python objects as ids of an .npz file",
        wanted=r"SourceError: a\.npz: .*'ids' holds Python objects .* never unpickled",
        attempt=lambda folder: files(
            folder, "a.npz", vectors=np.ones((1, 2)), ids=np.array(["a"], dtype=object)
        ),
    ),
)
