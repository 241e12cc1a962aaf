"""Live changes: what readers lay over a release, while what carries it there fails.

F25: by turns a job is killed between its commit and its changes, the server comes back empty, it
stalls, and one reader is cut off from it. Nothing is rebuilt meanwhile, so all that readers find
beyond the release is live. Besides the one whose link is cut there is a reader that cannot open the
catalog, and one with another key. Who can look into the catalog finds everything while the fault
lasts; the one that cannot finds what messages brought, and the rest with the next release. At the
end all readers equal the catalog, and on the way none of them ever went back.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from faults.bench import COMPONENTS, Bench
from faults.recorder import COLLECTION
from faults.rows import Row

KEY, OTHER_KEY = "k" * 32, "o" * 32
LIVE = f'live = true\n[live]\nkeys = ["{KEY}"]\n'
"""More of the settings, which end in the table of the collection."""
SIMILAR: Mapping[str, Any] = {"kind": "vector_index", "from": [COLLECTION], "index": "Flat"}
NEAR, FAR, STRANGER = "reader-near", "reader-far", "reader-stranger"
WITH_CATALOG = (NEAR, STRANGER)
_FOUND_SECONDS = 4.0
"""The time-out of a command (1 s), a look into the catalog each 0.5 s, and a busy machine."""
_HEALED_SECONDS = 8.0
"""The longest pause of a client, a reconciliation, and a build."""


def follow_through(program: Path, row: Row, runs: int) -> None:
    """One fault after the other, on one installation."""
    with Bench(
        program, components={**COMPONENTS, "similar": SIMILAR}, tables=LIVE, linked=("live",)
    ) as bench:
        start(bench)
        for number, what in zip(range(runs), cycle(FAULTS), strict=False):
            with row.run(f"{what}, run {number}"):
                _once(bench, row, FAULTS[what])
        # The files of a real index do not say what it holds; that was compared with the catalog.
        row.broke([each for each in bench.violations() if "similar" not in each])


def start(bench: Bench) -> None:
    whole = bench.config.read_text(encoding="utf-8")
    elsewhere = bench.folder / "far.toml"
    nowhere = f'[catalog]\nurl = "sqlite:///{bench.folder}/nowhere/catalog.db"\n'
    elsewhere.write_text(whole + nowhere, encoding="utf-8")
    foreign = bench.folder / "stranger.toml"
    foreign.write_text(whole.replace(KEY, OTHER_KEY), encoding="utf-8")
    bench.start("live", NEAR)
    bench.start("live", FAR, config=elsewhere)
    bench.start("live", STRANGER, config=foreign)
    bench.start("producer", "producer-1")
    bench.bring_up(readers=0)


def _once(bench: Bench, row: Row, fault: Callable[[Bench], AbstractContextManager[None]]) -> None:
    with _no_builds(bench):
        _change(bench)
        _equal_the_catalog(bench, WITH_CATALOG)
        with fault(bench):
            broken_at = time.monotonic()
            _equal_the_catalog(bench, WITH_CATALOG)
            row.recovered(time.monotonic() - broken_at, within=_FOUND_SECONDS)
        _change(bench)
        _equal_the_catalog(bench, WITH_CATALOG)
    assert _ask(bench, STRANGER)["ignored"] > 0, "a message with another key counted"
    row.recovered(bench.settle(), within=_HEALED_SECONDS)
    _equal_the_catalog(bench, (*WITH_CATALOG, FAR))
    for name in (*WITH_CATALOG, FAR):
        wrong = _ask(bench, name)["wrong"]
        assert not wrong, f"{name}: {wrong}"


@contextmanager
def _no_builds(bench: Bench) -> Iterator[None]:
    """Nothing is released meanwhile."""
    rebuilder = bench.processes["rebuilder-1"]
    rebuilder.send(signal.SIGSTOP)
    try:
        bench.wait(lambda: rebuilder.stopped)
        yield
    finally:
        rebuilder.send(signal.SIGCONT)


@contextmanager
def _killed_before_changes(bench: Bench) -> Iterator[None]:
    job, token = bench.processes["producer-1"], bench.token("producer.before_changes")
    token.touch()
    name, ids = bench.new_batch()
    reply = job.ask(json.dumps({"batch_id": name, "ids": ids}))
    assert not reply, "the job was not killed"
    assert job.wait() == -signal.SIGKILL
    yield
    job.start()


@contextmanager
def _emptied(bench: Bench) -> Iterator[None]:
    _change(bench)
    bench.connection.commands.flushall()
    _change(bench)
    yield


@contextmanager
def _stalled(bench: Bench) -> Iterator[None]:
    bench.server.stall()
    try:
        _change(bench)
        yield
    finally:
        bench.server.go_on()


@contextmanager
def _cut_off(bench: Bench) -> Iterator[None]:
    link = bench.links["live"]
    link.become("cut")
    try:
        _change(bench)
        yield
    finally:
        link.become("open")


FAULTS: Mapping[str, Callable[[Bench], AbstractContextManager[None]]] = {
    "job killed before its changes": _killed_before_changes,
    "server emptied": _emptied,
    "server stalled": _stalled,
    "reader cut off": _cut_off,
}
"""Each is a context in which the fault lasts, with a commit that nobody was told of."""


def _change(bench: Bench) -> None:
    """Commit new entries; one of the batch before is replaced, and one is deleted."""
    before = [*bench.recorder.committed.values()][-1]
    name, ids = bench.new_batch()
    replaced, gone = before[:1], before[1:2]
    bench.recorder.committed[name] = (*ids, *replaced)
    bench.recorder.deleted[name] = gone
    upserts = [*ids, *replaced]
    with bench.producer.batch(COLLECTION, name) as batch:
        vectors = np.ones((len(upserts), 2), dtype=np.float32)
        batch.upsert(upserts, vectors, payloads=[{"batch": name}] * len(upserts))
        batch.delete(list(gone))


def _equal_the_catalog(bench: Bench, names: tuple[str, ...]) -> None:
    """Wait until readers find what the catalog holds."""
    wanted = _in_catalog(bench)
    found: dict[str, Any] = {}

    def equal() -> bool:
        for name in names:
            found[name] = _ask(bench, name)["entries"]
        return all(found[name] == wanted for name in names)

    try:
        bench.wait(equal)
    except AssertionError:
        differing = {name: _ask(bench, name)["state"] for name in names if found[name] != wanted}
        raise AssertionError(f"not what the catalog holds: {differing}") from None


def _in_catalog(bench: Bench) -> dict[str, Any]:
    with bench.catalog.entries.snapshot(COLLECTION) as snapshot:
        return {
            entry_id: None if payload is None else json.loads(payload)
            for chunk in snapshot.chunks()
            for entry_id, payload in zip(chunk.ids, chunk.payloads, strict=True)
        }


def _ask(bench: Bench, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(bench.processes[name].ask("?"))
    return answer
