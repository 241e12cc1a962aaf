"""What is read of the artifacts, and how long anybody waits for them."""

import errno
import fcntl
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.text_index import TextIndex, TextIndexParameters, database
from indexrelay.components.text_index import search as text_search
from indexrelay.reloaders import sandbox
from indexrelay.reloaders.sandbox import Sandbox
from indexrelay.schemas.versions import BlobRef, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore, StoreBusyError
from indexrelay.storage.artifacts.files import MOST_BYTES, open_file
from tests.components.jobs import clustered, make_job, make_snapshot, run
from tests.security.artifacts.trusting import CONTENT, KIND, Trusting
from tests.security.limits.table import Row, exercises
from tests.storage.artifacts.samples import MOMENT, MovedClock, make_version


@exercises("bytes of a manifest and of a release in the artifacts")
def _document(row: Row, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue("tmp_path") / "document"
    assert row.number == MOST_BYTES
    with path.open("wb") as file:
        file.truncate(row.number)  # and takes no room
    open_file(path, most_bytes=MOST_BYTES).close()
    with path.open("ab") as file:
        file.write(b"1")
    with pytest.raises(OSError, match="at most") as refused:
        open_file(path, most_bytes=MOST_BYTES)
    assert refused.value.errno == errno.EFBIG


def asked(folder: Path, answer: dict[str, Any], size: int) -> tuple[dict[str, Any], Exception]:
    """What a sandbox is asked about a file of that size, and what it makes of the answer."""
    path = folder / "content"
    with path.open("wb") as file:
        file.truncate(size)
    requests: list[bytes] = []

    class Answering(Sandbox):
        def _ask(self, request: bytes) -> dict[str, Any]:
            requests.append(request)
            return answer

    manifest = VersionManifest(
        component="it",
        kind=KIND,
        definition="0" * 64,
        covers={},
        epochs={},
        files={CONTENT: BlobRef(digest="0" * 64, size=size)},
        entries=1,
        created_at=MOMENT,
    )
    kind = Trusting(Trusting.Parameters())
    with pytest.raises(CorruptFileError) as corrupt:
        Answering().open_first(kind, manifest, {CONTENT: path}, [CONTENT])
    question: dict[str, Any] = json.loads(requests[0])
    return question, corrupt.value


@exercises("seconds of the sandbox, beside those for reading what is in the files")
def _sandbox_seconds(row: Row, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("tmp_path")
    question, error = asked(folder, {"signal": 14}, 10 * sandbox.BYTES_PER_SECOND)
    assert question["seconds"] == row.number + 10
    assert "does not end" in str(error)


@exercises("bytes of memory of the sandbox, beside four times what is in the files")
def _sandbox_memory(row: Row, request: pytest.FixtureRequest) -> None:
    question, error = asked(request.getfixturevalue("tmp_path"), {"memory": True}, 1000)
    assert question["memory_bytes"] == row.number + 4 * 1000
    assert "memory" in str(error)


@exercises("seconds of one question to a text index")
def _question(row: Row, request: pytest.FixtureRequest) -> None:
    monkeypatch = request.getfixturevalue("monkeypatch")
    folder: Path = request.getfixturevalue("tmp_path")
    assert row.number == database.QUERY_SECONDS == vars(text_search)["QUERY_SECONDS"]
    source = make_snapshot(clustered(3, 2), texts=["a", "b", "c"])
    kind = TextIndex(TextIndexParameters())
    index = kind.load(run(kind, make_job(folder / "work", source)).files)
    clock = MovedClock()
    monkeypatch.setattr("indexrelay.components.text_index.database.time.monotonic", clock.monotonic)
    monkeypatch.setattr(database, "_STEPS", 1)
    with index._connection() as connection:
        clock.advance(row.number - 0.1)
        connection.set_progress_handler(connection._is_late, 1)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (3,)
        clock.advance(0.2)
        with pytest.raises(Exception, match="interrupted"):
            connection.execute("SELECT count(*) FROM entries").fetchone()
    index.close()


def waited(row: Row, request: pytest.FixtureRequest, how: int, *, collects: bool) -> None:
    clock = MovedClock()
    store = ArtifactStore(
        request.getfixturevalue("tmp_path") / "store", clock=clock, pause=clock.advance
    )
    make_version(store, "voyager", b"1")
    act = partial(store.collect_garbage, keep_releases=1, used_versions=(), grace_seconds=0.0)
    with (store.root / "lock").open("rb") as held:
        fcntl.flock(held, how)
        with pytest.raises(StoreBusyError, match=f"for {row.number} s"):
            act() if collects else make_version(store, "voyager", b"2")
    assert row.number <= clock.ahead < row.number + 1


@exercises("seconds that a writer waits for the artifacts' lock")
def _writer(row: Row, request: pytest.FixtureRequest) -> None:
    waited(row, request, fcntl.LOCK_EX, collects=False)


@exercises("seconds that a garbage collection waits for it")
def _garbage_collection(row: Row, request: pytest.FixtureRequest) -> None:
    waited(row, request, fcntl.LOCK_SH, collects=True)
