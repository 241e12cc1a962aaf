"""A program that forks with a running reader, after it searched a batch on two FAISS threads.

``python -m tests.reloaders.fork_program FOLDER [URL]``: the child must serve what is released
after the fork, as a reader of its own, and search a batch. Prints what both have to say as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexrelay.reloaders import Reloader
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import LogSettings
from indexrelay.streams import Connection, Keys, Presence
from tests.reloaders.bench import Bench, Swaps, make_settings, texts
from tests.streams.polling import eventually

PATIENCE_SECONDS = 30


def _batch(index: Any) -> int:
    """The rows that a batch finds for themselves; large enough that FAISS divides it up."""
    queries = np.random.default_rng(0).normal(size=(256, 32)).astype(np.float32)
    _, rows = index.search(queries, 3)
    return int(rows.shape[0])


def main(folder: Path, url: str | None) -> None:
    signal.alarm(3 * PATIENCE_SECONDS)  # ends this process, whatever hangs
    configure_logs(LogSettings())
    bench = Bench(folder)
    index = faiss.IndexFlatL2(32)
    index.add(np.random.default_rng(1).normal(size=(2000, 32)).astype(np.float32))
    bench.publish(voyager="v1")
    swaps = Swaps()
    settings = make_settings(folder, poll_seconds=0.02, block_seconds=0.05)
    if url is not None:
        settings = type(settings).model_validate(
            settings.model_dump() | {"redis": {"url": url}, "components": settings.components}
        )
    reader = Reloader(settings, reader_id="web", store=bench.store, after_swap=[swaps])
    reader.start()
    assert reader.wait_ready(PATIENCE_SECONDS)
    faiss.omp_set_num_threads(2)
    _batch(index)
    ours, theirs = os.pipe()
    looked, has_looked = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_SECONDS)
        with reader.acquire() as snapshot:
            inherited = snapshot["voyager"].read()
        swaps.wait_for(2)
        said = {
            "inherited": inherited,
            "served": texts(reader),
            "reader": reader.reader_id,
            "member": reader.state.member,
            "pid": os.getpid(),
            "ready": reader.ready,
            "batch": _batch(index),
            "threads": faiss.omp_get_max_threads(),
        }
        os.write(theirs, json.dumps(said).encode())
        os.read(looked, 1)  # until the parent has looked at the presence of both
        reader.stop()
        os._exit(0)
    bench.publish(voyager="v2")
    child = json.loads(os.read(ours, 65536) or b"null")
    swaps.wait_for(2)
    present: list[str] = []
    if url is not None:
        with Connection.open(url) as connection:
            presence = Presence(connection, Keys("test"), "reader")
            eventually(lambda: len(presence.all()) == 2)
            present = sorted(presence.all())
    os.write(has_looked, b"x")
    answer = {
        "child": child,
        "parent": texts(reader),
        "member": reader.state.member,
        "present": present,
    }
    sys.stdout.write(json.dumps(answer))
    reader.stop()
    assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
