"""Kinds that do what a build must not do, so that tests see what becomes of it."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.schemas.versions import Check


class Document:
    def __init__(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        pass


class Parameters(KindParameters):
    behaviour: str = "fine"
    colour: str = ""


class Behaving(Kind[Document]):
    """Counts entries into a text file; ``behaviour`` says how it goes wrong."""

    Parameters = Parameters

    def build(self, job: Job) -> Built:
        match self.parameters.behaviour:  # type: ignore[attr-defined]
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "raises":
                raise ValueError("the build raised")
            case "exits":
                os._exit(7)
            case "dies":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hangs":
                while True:
                    time.sleep(60)  # killed by the limit: nothing waits for it
            case "leaves_a_process":
                subprocess.Popen(["/bin/sleep", "600"])
            case "reports_numpy":
                job.progress(np.float32(0.25))  # type: ignore[arg-type] # as users will
            case "eats":
                held = [np.ones(10_000_000) for _ in range(100)]
                raise AssertionError(f"8 GB fitted: {len(held)}")
        entries = sum(snapshot.count for snapshot in job.collections.values())
        entries += sum(parent.manifest.entries for parent in job.components.values())
        job.progress(0.5)
        file = job.workdir / "count.txt"
        file.write_text(f"{job.component}: {entries}\n")
        return Built(files={"count.txt": file}, entries=entries)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:  # noqa: ARG002 - the contract
        match self.parameters.behaviour:  # type: ignore[attr-defined]
            case "gate_raises":
                raise ValueError("the gate raised")
            case "gate_fails":
                yield Check(name="taste", passed=False, measured=0.1, limit=0.9)
        text = files["count.txt"].read_text()
        yield Check(name="count", passed=text.endswith(f"{built.entries}\n"))

    def load(self, files: Mapping[str, Path]) -> Document:
        return Document(files["count.txt"].read_text())
