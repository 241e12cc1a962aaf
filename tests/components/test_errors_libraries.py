"""What the operating system refuses is called that, and corruption is what a file holds.

In a program of its own: it takes descriptors, memory and permissions away from itself.
"""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components import errors
from indexrelay.components.errors import (
    CorruptFileError,
    InvalidQueryError,
    of_faiss,
    of_memory,
    of_sqlite,
)
from indexrelay.components.registry import kind_class
from indexrelay.components.served import checked_k
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from tests.components.jobs import make_job, make_snapshot, run

KINDS: dict[str, dict[str, Any]] = {
    "vector_index": {"index": "Flat"},
    "embedding_cache": {},
    "text_index": {},
    "projection": {"method": "pca"},
}
PROGRAM = """
import errno, json, os, resource, sys
from pathlib import Path
from indexrelay.components.registry import kind_class

kinds = {name: kind_class(name) for name in json.loads(sys.argv[2])}
loaders = {name: kind(kind.Parameters.model_validate(json.loads(sys.argv[2])[name]))
           for name, kind in kinds.items()}
files = {name: {file.name: file for file in Path(sys.argv[1], name).iterdir()} for name in kinds}

def attempt(name):
    try:
        loaders[name].load(files[name]).close()
    except Exception as error:
        return f"{type(error).__name__} {errno.errorcode.get(getattr(error, 'errno', 0), '')}"
    return "loaded"

def with_limit(which, limits, name):
    before = resource.getrlimit(which)
    found = []
    for limit in limits:
        resource.setrlimit(which, (limit, before[1]))
        found.append(attempt(name))
        resource.setrlimit(which, before)
        if found[-1] == "loaded":
            break
    return found

said = {}
for name in kinds:
    attempt(name)  # what is imported on the way opens files as well
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    few = range(used - 1, used + 12)
    said[f"descriptors {name}"] = with_limit(resource.RLIMIT_NOFILE, few, name)
    address = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    memory = [address + more for more in (0, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 30)]
    said[f"memory {name}"] = with_limit(resource.RLIMIT_AS, memory, name)
if os.geteuid() == 0:
    os.seteuid(65534)
for name in kinds:
    for file in files[name].values():
        said.setdefault(f"permission {name}", []).append(attempt(name))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of every kind, each in a folder of its name."""
    root = tmp_path_factory.mktemp("built")
    vectors = np.random.default_rng(3).random((300, 8), dtype=np.float32)
    source = make_snapshot(vectors, texts=[f"the song {row}" for row in range(300)])
    for name, keys in KINDS.items():
        folder = root / name
        folder.mkdir()
        kind = kind_class(name)
        done = run(kind(kind.Parameters.model_validate(keys)), make_job(folder, source))
        assert done.failed == []
    return root


def test_want_of_descriptors_memory_or_permission_is_never_called_corruption(built: Path) -> None:
    for name in KINDS:
        for file in (built / name).iterdir():
            file.chmod(0)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(built), json.dumps(KINDS)],
        capture_output=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    said = json.loads(ended.stdout)
    wanted = {
        "descriptors": {"OSError EMFILE"},
        "memory": {"OSError ENOMEM", "MemoryError "},
        "permission": {"PermissionError EACCES"},
    }
    for case, found in said.items():
        errors = [each for each in found if each != "loaded"]
        assert set(errors) <= wanted[case.split()[0]], case
        assert errors or case.startswith("memory"), case
        if not case.startswith("permission"):
            assert found[-1] == "loaded", case


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (
            "could not open x for reading: Too many open files",
            "[Errno 24] Too many open files: 'x'",
        ),
        ("could not mmap(): Cannot allocate memory", "[Errno 12] Cannot allocate memory: 'x'"),
        (
            "write error: 4 != 8 (No space left on device)",
            "[Errno 28] No space left on device: 'x'",
        ),
        ("std::bad_alloc", "x is corrupt: its header asks for more memory than there is"),
        ("Index type 0x62726167 not recognized", "x is corrupt: FAISS cannot read it: Index type"),
    ],
)
def test_errors_of_faiss_are_classified(said: str, means: str) -> None:
    assert str(of_faiss(Path("x"), RuntimeError(said))).startswith(means)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT, CorruptFileError),
        (sqlite3.SQLITE_NOTADB, CorruptFileError),
        (sqlite3.SQLITE_IOERR_SHORT_READ, CorruptFileError),
        (sqlite3.SQLITE_IOERR_READ, OSError),
        (sqlite3.SQLITE_CANTOPEN, OSError),
        (sqlite3.SQLITE_FULL, OSError),
        (sqlite3.SQLITE_READONLY, OSError),
        (sqlite3.SQLITE_BUSY, OSError),
        (sqlite3.SQLITE_NOMEM, CorruptFileError),
        (sqlite3.SQLITE_INTERRUPT, CorruptFileError),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError),
        (None, sqlite3.OperationalError),
    ],
)
def test_errors_of_sqlite_are_classified(code: int | None, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("whatever it says")
    if code is not None:
        error.sqlite_errorcode = code
    assert isinstance(of_sqlite(Path(__file__), error), kind)


def test_want_of_memory_is_the_files_fault_only_where_there_is_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(of_memory(Path("x")), CorruptFileError)
    monkeypatch.setattr(errors, "_SOME_BYTES", 1 << 60)
    assert isinstance(of_memory(Path("x")), MemoryError)
    assert isinstance(of_faiss(Path("x"), RuntimeError("std::bad_alloc")), MemoryError)


@pytest.mark.parametrize("k", [1, np.int64(1), np.int32(1), np.uint8(1), 10**30])
def test_k_may_be_any_whole_number(k: Any) -> None:
    assert type(checked_k(k)) is int


@pytest.mark.parametrize(
    "k", [0, -1, np.int64(0), True, np.True_, 1.0, np.float32(1), "3", None, [1]]
)
def test_what_is_no_whole_number_from_1_is_a_query_that_cannot_be_answered(
    k: Any, built: Path
) -> None:
    with pytest.raises(InvalidQueryError, match="k is a whole number and at least 1"):
        checked_k(k)


def test_every_search_takes_and_refuses_the_same_numbers(built: Path) -> None:
    vectors = VectorIndex(VectorIndexParameters()).load(files(built / "vector_index"))
    assert len(vectors.search(np.ones(8), k=np.int64(3))) == 3  # type: ignore[arg-type]
    assert len(vectors.search_by_id("e000001", k=np.int16(3))) == 3  # type: ignore[arg-type]
    assert len(vectors.search(np.ones(8), k=10**30)) == 300
    assert len(vectors.search_many(np.ones((2, 8)), k=10**30)[0]) == 300
    for wrong in (True, 1.5, "3", 0):
        with pytest.raises(InvalidQueryError):
            vectors.search(np.ones(8), k=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidQueryError):
            vectors.search_by_id("e000001", k=wrong)  # type: ignore[arg-type]
    vectors.close()
    texts = TextIndex(TextIndexParameters()).load(files(built / "text_index"))
    assert len(texts.search("song", k=np.int64(3))) == 3  # type: ignore[arg-type]
    assert len(texts.search("song", k=10**30)) == 300
    for wrong in (True, 1.5, "3", 0):
        with pytest.raises(InvalidQueryError):
            texts.search("song", k=wrong)  # type: ignore[arg-type]
    texts.close()


def files(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in folder.iterdir()}
