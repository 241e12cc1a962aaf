"""Makes hostile files out of good ones, the same ones for the same seed.

What a digest protects from, chance, is the least of it: whoever crafts a file computes its digest.
So besides bytes at random these know where numbers stand that say how much to read, how often to
loop, and where: headers of FAISS, NumPy and string tables, JSON, and the schema of SQLite.
"""

import gzip
import json
import random
import re
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

_HEAD: Final = 600
_WHOLE: Final = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_HOSTILE_JSON: Final[tuple[Any, ...]] = (
    -1, 0, 1, 2**31, 2**63, 2**200, 1e308, -1e-308, None, True, "", "x" * 5000, [], {}, "NaN",
    [[[[[]]]]], {"a": {"b": {}}},
)  # fmt: skip

Files = dict[str, bytes]
_Mutation = Callable[[bytes, random.Random], bytes]


def mutated(files: Mapping[str, bytes], rng: random.Random) -> tuple[str, Files]:
    """A hostile version of ``files``; what was done to which, and all files."""
    changed = dict(files)
    label = rng.choice(sorted(changed))
    for _ in range(rng.choice((1, 1, 1, 2))):
        how, mutation = rng.choice(_ways(label))
        changed[label] = mutation(changed[label], rng)
        if how == "exchanged" and len(changed) > 1:
            other = rng.choice(sorted(changed.keys() - {label}))
            changed[label], changed[other] = changed[other], changed[label]
        if how == "left out" and len(changed) > 1:
            del changed[label]
            break
    if label == "document.json" and label in changed and rng.random() < 0.7:
        # Whoever changes the document packs it as well.
        changed["document.json.gz"] = gzip.compress(changed[label])
    return f"{how} {label}", changed


def _ways(label: str) -> list[tuple[str, _Mutation]]:
    ways: list[tuple[str, _Mutation]] = [
        ("bits of the head of", _head_bits),
        ("bytes of", _bytes),
        ("numbers of the head of", _head_numbers),
        ("numbers of the head of", _head_numbers),
        ("numbers of", _numbers),
        ("cut short", _cut),
        ("made longer", _longer),
        ("moved in", _moved),
        ("emptied", lambda _, __: b""),
        ("exchanged", lambda data, _: data),
        ("left out", lambda data, _: data),
    ]
    if label.endswith(".json"):
        ways += [("JSON of", _json)] * 12 + [("nested", _nested)] * 2
    if label.endswith(".npy"):
        ways += [("header of", _npy_header)] * 6
    if label.endswith(".db"):
        ways += [("SQL in", _sql)] * 25
    if label.endswith(".gz"):
        ways += [("a bomb as", _bomb)] * 3
    return ways


def _head_bits(data: bytes, rng: random.Random) -> bytes:
    return _with_bits(data, rng, min(len(data), _HEAD))


def _with_bits(data: bytes, rng: random.Random, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if end:
            changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 24)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _head_numbers(data: bytes, rng: random.Random) -> bytes:
    return _number(data, rng, min(len(data), rng.choice((64, _HEAD))))


def _numbers(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 6)):
        data = _number(data, rng, len(data))
    return data


def _number(data: bytes, rng: random.Random, end: int) -> bytes:
    width, code = rng.choice(((4, "<I"), (8, "<Q"), (8, ">Q"), (2, ">H")))
    if end <= width:
        return data
    value = rng.choice((*_WHOLE, len(data), len(data) + 1, rng.randrange(2**16)))
    at = rng.randrange(0, end - width)
    if rng.random() < 0.5:
        at -= at % 4
    packed = struct.pack(code, value % 2 ** (8 * width))
    return data[:at] + packed + data[at + width :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _longer(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 8, 4096)))


def _moved(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 40:
        return data
    size = rng.randrange(4, 33)
    start, end = rng.randrange(len(data) - size), rng.randrange(len(data) - size)
    return data[:end] + data[start : start + size] + data[end + size :]


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        part = pending.pop()
        keys = part.keys() if isinstance(part, dict) else range(len(part))
        for key in keys:
            places.append((part, key))
            if isinstance(part[key], dict | list):
                pending.append(part[key])
    if places:
        part, key = rng.choice(places)
        part[key] = rng.choice(_HOSTILE_JSON)
    text = json.dumps(value)
    return text.replace('"NaN"', rng.choice(("NaN", "Infinity", '"NaN"'))).encode()


def _nested(_: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((1000, 40_000))
    return b"[" * depth + b"]" * depth


def _npy_header(data: bytes, rng: random.Random) -> bytes:
    header = rng.choice(
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (%d, %d), }",
            "{'descr': '<i8', 'fortran_order': True, 'shape': (%d,), }",
            "{'descr': [('a', '<f4', (%d,))], 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-%d, 8), }",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': %d, }",
            "__import__('os').abort() #%d",
            "{'descr': '<f4', 'shape': ((((((%d,",
        )
    )
    numbers = tuple(
        rng.choice((0, 1, 8, 300, 2**31, 2**62, 2**80)) for _ in range(header.count("%d"))
    )
    text = (header % numbers).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data[128:]


def _bomb(_: bytes, rng: random.Random) -> bytes:
    return gzip.compress(b"0" * rng.choice((200_000, 50_000_000)), 6)


_ENDLESS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
_STATEMENTS: Final = re.split(
    r"\n(?! )",
    f"""\
ALTER TABLE facts RENAME TO f; CREATE VIEW facts AS SELECT 1 AS entries, 1 AS texts, 1 AS
    findable, 'words' AS tokenizer, (SELECT max(i) FROM ({_ENDLESS})) AS analyser
ALTER TABLE facts RENAME TO f; CREATE VIEW facts AS SELECT i AS entries, i AS texts, i AS
    findable, 'words' AS tokenizer, '' AS analyser FROM ({_ENDLESS}) WHERE i < 0
ALTER TABLE entries RENAME TO e; CREATE VIEW entries AS SELECT row, id, payload, text FROM
    e WHERE row > (SELECT count(*) FROM ({_ENDLESS}))
CREATE VIEW extra AS {_ENDLESS}
CREATE TRIGGER t AFTER INSERT ON facts BEGIN {_ENDLESS}; END
CREATE TABLE other (x); INSERT INTO other VALUES (1)
CREATE TABLE terms_other (x)
CREATE INDEX slow ON entries (abs(row))
CREATE UNIQUE INDEX partial ON entries (id) WHERE row > 0
DROP INDEX entries_by_id
DROP TABLE entries
DROP TABLE facts
DROP TABLE frequencies
DELETE FROM facts
INSERT INTO facts SELECT * FROM facts
UPDATE facts SET entries = -1
UPDATE facts SET entries = 'many', texts = x'00', findable = NULL
UPDATE facts SET entries = 9223372036854775807, findable = 9223372036854775807
UPDATE facts SET tokenizer = 'no such'
UPDATE facts SET tokenizer = x'ff'
UPDATE entries SET payload = '[' || payload
UPDATE entries SET payload = replace(hex(zeroblob(20000)), '00', '[')
UPDATE entries SET payload = x'ff00'
UPDATE entries SET id = x'ff00' WHERE row % 2
UPDATE entries SET id = cast(x'ff00' AS TEXT)
UPDATE entries SET id = 'e000001'
UPDATE entries SET text = 7
UPDATE entries SET row = -row
DELETE FROM entries WHERE row % 2
UPDATE frequencies SET texts = 'x'
UPDATE frequencies SET texts = -5
UPDATE terms_data SET block = noise(length(block))
UPDATE terms_data SET block = zeroblob(100)
UPDATE terms_data SET block = substr(block, 1, length(block) / 2)
UPDATE terms_data SET block = 'text'
DELETE FROM terms_data WHERE id > 10
UPDATE terms_docsize SET sz = noise(9)
DELETE FROM terms_docsize
UPDATE terms_config SET v = 99
INSERT INTO terms_config VALUES ('rank', 'load_extension(''x'')')
INSERT INTO terms_config VALUES ('pgsz', 1)
DELETE FROM terms_idx
UPDATE terms_idx SET pgno = pgno * 1000
PRAGMA user_version = 99
PRAGMA user_version = 1
PRAGMA application_id = 1
SCHEMA UPDATE sqlite_master SET sql = 'CREATE TABLE entries (a)' WHERE name = 'entries'
SCHEMA UPDATE sqlite_master SET rootpage = 2 WHERE type = 'table'
SCHEMA UPDATE sqlite_master SET rootpage = 1000000 WHERE name = 'entries'
SCHEMA UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'no_such_module')
SCHEMA UPDATE sqlite_master SET sql = replace(sql, 'ascii', 'none') WHERE name = 'terms'
SCHEMA UPDATE sqlite_master SET sql = 'CREATE TABLE facts (entries DEFAULT
    (abs(-9223372036854775808)))' WHERE name = 'facts'
SCHEMA DELETE FROM sqlite_master WHERE name LIKE 'terms_%'""",  # noqa: S608 - on purpose
)
"""One begins with each line that is not indented."""


def _sql(data: bytes, rng: random.Random) -> bytes:
    statement = rng.choice(_STATEMENTS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        path.write_bytes(data)
        # What SQLite itself refuses to do to a file that was made hostile before, is left.
        with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(path)) as connection:
            connection.create_function("noise", 1, lambda size: rng.randbytes(size or 0))
            ends_at = time.monotonic() + 0.3  # a view that was made before may have no end
            connection.set_progress_handler(lambda: time.monotonic() > ends_at, 10_000)
            connection.execute("PRAGMA journal_mode = OFF")
            if statement.startswith("SCHEMA "):
                connection.execute("PRAGMA writable_schema = ON")
                statement = statement.removeprefix("SCHEMA ")
            connection.executescript(statement)
            connection.commit()
        return path.read_bytes()
