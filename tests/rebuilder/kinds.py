"""Kinds that do what a build must not do, so that tests see what becomes of it."""

import ctypes
import errno
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import sqlalchemy as sa

from indexrelay.components.kind import Built, Goal, Improvable, Job, Kind, KindParameters
from indexrelay.components.layered import Full, build_details, incremental_or_full
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Entries

_SIGNALS = {"dies": signal.SIGSEGV, "killed": signal.SIGKILL, "bus_error": signal.SIGBUS}


def _talk(how: str) -> None:
    """Write to both outputs, in every way there is, and exit in the midst of it."""
    if how.startswith("talks"):
        _write_everywhere()
    if how.endswith("exits"):
        print("last words")  # noqa: T201 - as users do
        os._exit(0 if how == "content_exits" else 7)


def _write_everywhere() -> None:
    print("print")  # noqa: T201 - as users do
    sys.stderr.write("sys.stderr\n")
    os.write(1, b"os.write\n")
    ctypes.CDLL(None).puts(b"a C library")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["/bin/echo", "a child's child"], check=True)
    warnings.warn("a warning", UserWarning, stacklevel=1)


def _start_a_process(folder: Path, *, wait: bool) -> None:
    process = subprocess.Popen(["/bin/sleep", "600"])
    (folder / "left.pid").write_text(f"{process.pid}")
    if wait:
        process.wait()


def _meet_the_limit(*, ask: bool) -> None:
    if ask:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        raise ValueError("no limit" if soft == hard else f"limited to {soft}")
    held = [np.ones(10_000_000) for _ in range(100)]
    raise AssertionError(f"8 GB fitted: {len(held)}")


class Document:
    def __init__(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        pass


class Parameters(KindParameters):
    behaviour: str = "fine"
    colour: str = ""


class Behaving(Kind[Parameters, Document]):
    """Counts entries into a text file; ``behaviour`` says how it goes wrong."""

    def build(self, job: Job) -> Built:
        match self.parameters.behaviour:
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "raises":
                raise ValueError("the build raised")
            case "talks" | "talks_and_exits" | "exits" | "content_exits" as how:
                _talk(how)
            case "dies" | "killed" | "bus_error" as how:
                os.kill(os.getpid(), _SIGNALS[how])
            case "hangs":
                while True:
                    time.sleep(60)  # killed by the limit: nothing waits for it
            case "leaves_a_process" | "waits_for_a_process" as how:
                _start_a_process(job.workdir, wait=how == "waits_for_a_process")
            case "reports_numpy":
                job.progress(np.float32(0.25))  # type: ignore[arg-type] # as users will
            case "eats" | "asks_for_the_limit" as how:
                _meet_the_limit(ask=how != "eats")
        entries = sum(snapshot.count for snapshot in job.collections.values())
        entries += sum(parent.manifest.entries for parent in job.components.values())
        job.progress(0.5)
        file = job.workdir / "count.txt"
        file.write_text(f"{job.component}: {entries}\n")
        return Built(files={"count.txt": file}, entries=entries)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        match self.parameters.behaviour:
            case "no_check":
                return
            case "gate_raises":
                raise ValueError("the gate raised")
            case "gate_fails":
                yield Check(name="taste", passed=False, measured=0.1, limit=0.9)
        text = files["count.txt"].read_text()
        yield Check(name="count", passed=text.endswith(f"{built.entries}\n"))

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(files["count.txt"].read_text())


class Continuing(Kind[Parameters, Document]):
    """Has a gate that only a version fails that continues another."""

    def build(self, job: Job) -> Built:
        file = job.workdir / "count.txt"
        file.write_text(f"{job.collection.count}")
        return incremental_or_full(
            job,
            lambda _: self._built(job, file, None),
            lambda full: self._built(job, file, full),
        )

    def _built(self, job: Job, file: Path, full: Full | None) -> Built:
        return Built(
            files={"count.txt": file},
            entries=job.collection.count,
            extends=full is None,
            # Some kinds say nothing of how they were built.
            details={} if self.parameters.behaviour == "silent" else {"build": build_details(full)},
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        yield Check(name="taste", passed=not built.extends, detail="it tastes of yesterday")

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(files["count.txt"].read_text())


class ImprovingParameters(KindParameters):
    fails: str = ""
    """The goal of the builds that fail."""
    gate_fails: str = ""
    """The goal of the builds that fail their gate."""
    full_disk: str = ""
    """The goal of the builds that find no space."""
    hangs_beside: str = ""
    """A file; while it is there, improvements do not end."""
    continued_from: int = 1
    """The least generation from which a version may be continued."""


class Improving(Kind[ImprovingParameters, Document]):
    """Releases a quick version first; its base is a file that later versions name again."""

    has_quick_versions = True
    during_improvements: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    """What happens while a better version is built."""

    def build(self, job: Job) -> Built:
        if job.goal == self.parameters.fails:
            raise ValueError(f"no {job.goal} today")
        if job.goal == self.parameters.full_disk:
            raise OSError(errno.ENOSPC, "No space left on device")
        built = incremental_or_full(job, lambda _: self._extended(job), lambda _: self._full(job))
        if job.goal is Goal.IMPROVEMENT:
            type(self).during_improvements()
            while self.parameters.hangs_beside and Path(self.parameters.hangs_beside).exists():
                time.sleep(0.01)  # in a child process, until it is killed or the file is gone
        return built

    def _full(self, job: Job) -> Built:
        quality = "quick" if job.goal is Goal.QUICK else "best"
        base = job.workdir / "base.txt"
        base.write_text(f"{quality} at {job.collection.generation}: {secrets.token_hex(8)}")
        return self._built(job, base, quality, job.collection.generation, extends=False)

    def _extended(self, job: Job) -> Built | Full:
        assert job.previous is not None
        last = job.previous.manifest
        if last.details["base"] < self.parameters.continued_from:
            return Full("the base is too old")
        base, since = last.files["base.txt"], last.details["base"]
        return self._built(job, base, last.details["quality"], since, extends=True)

    def _built(
        self, job: Job, base: Path | BlobRef, quality: str, since: int, *, extends: bool
    ) -> Built:
        file = job.workdir / "ids.json"
        ids = [each for chunk in job.collection.chunks() for each in chunk.ids]
        file.write_text(json.dumps(sorted(ids)))
        return Built(
            files={"ids.json": file, "base.txt": base},
            entries=len(ids),
            extends=extends,
            details={"quality": quality, "base": since, "niceness": os.nice(0)},
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        passed = job.goal != self.parameters.gate_fails
        yield Check(name="taste", passed=passed, detail="" if passed else "no better than before")
        yield Check(
            name="ids", passed=len(json.loads(files["ids.json"].read_text())) == built.entries
        )

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(files["ids.json"].read_text())

    @classmethod
    def improvable(cls, manifest: VersionManifest) -> Improvable | None:
        if manifest.details["quality"] == "best":
            return None
        return Improvable(reason="it was made quickly", since={"tracks": manifest.details["base"]})

    @classmethod
    def improves(cls, built: VersionManifest, served: VersionManifest) -> bool:
        best = built.details["quality"] == "best"
        return best and bool(built.details["base"] >= served.details["base"])


class Sparse(Kind[KindParameters, Document]):
    """Writes through a map of a file that has a length and no space yet, as users may."""

    def build(self, job: Job) -> Built:
        file = job.workdir / "matrix.npy"
        shape = sum(snapshot.count for snapshot in job.collections.values()), 32
        matrix = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        matrix[:] = 1.0
        return Built(files={"matrix.npy": file}, entries=shape[0])

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        yield Check(name="rows", passed=len(np.load(files["matrix.npy"])) == built.entries)

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(f"{np.load(files['matrix.npy']).shape}")


def everything(inputs: Mapping[str, Any]) -> list[str]:
    """For a JSON cache: every payload there is."""
    return [json.dumps(entry.payload) for reader in inputs.values() for entry in reader]


class SteadyParameters(KindParameters):
    url: str = ""
    table: str = ""
    folder: str = ""


class Steady(Kind[SteadyParameters, Document]):
    """Something is committed while it is built, each time; it keeps the ids that it read."""

    def build(self, job: Job) -> Built:
        ids = [
            id_
            for snapshot in job.collections.values()
            for chunk in snapshot.chunks()
            for id_ in chunk.ids
        ]
        ids += [id_ for parent in job.components.values() for id_ in json.loads(parent.value.text)]
        self._produce()
        file = job.workdir / "ids.json"
        file.write_text(json.dumps(sorted(set(ids))))
        return Built(files={"ids.json": file}, entries=len(ids))

    def _produce(self) -> None:
        parameters = self.parameters
        id_ = secrets.token_hex(8)
        if parameters.folder:
            part = Path(parameters.folder, f"{id_}.part.npy")
            np.save(part.with_suffix(""), np.ones((1, 2), np.float32))
            part.rename(part.with_name(f"{id_}.npy"))
        elif parameters.table:
            url = parameters.url.replace("postgresql:", "postgresql+psycopg:")
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                row = sa.text(f"INSERT INTO {parameters.table} VALUES (:id, '[1, 1]')")  # noqa: S608 - a test's own
                connection.execute(row, {"id": id_})
        else:
            with closing(Catalog.open(parameters.url)) as catalog:
                entries = Entries(
                    ids=[id_],
                    vectors=np.ones((1, 2), dtype=np.float32),
                    texts=[None],
                    payloads=[None],
                )
                catalog.entries.commit("tracks", id_, upserts=[entries], deletes=())

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        yield Check(name="ids", passed=isinstance(json.loads(files["ids.json"].read_text()), list))

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(files["ids.json"].read_text())
