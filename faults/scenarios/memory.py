"""F18: the server is at its memory limit: jobs get the typed error, consumers drain, all is mended.

The memory is filled by events, as it would be. What makes room is by turns a person, who raises the
limit, and nobody: then rebuilders trim what was read, which needs no memory, and all goes on.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row
from indexrelay.producers.errors import EventRefusedError
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.storage.catalog import Commit
from indexrelay.streams import BackendRefusedError, publish_many

_ROOM_BYTES = 1_000_000
"""What may be added before the limit; a few thousand events."""
_EVENTS = 250
_NEVER_SECONDS = 3600.0
_TRIM_SECONDS = 1.0
_MENDED_SECONDS = 8.0
"""The longest pause of a client (5 s), a trimming and a reconciliation (1 s each), and a build."""


def run(program: Path, row: Row, runs: int) -> None:
    """Both ways in which room is made, each with an installation of its own."""
    for trim_seconds, once in (
        (_NEVER_SECONDS, _somebody_raises_the_limit),
        (_TRIM_SECONDS, _nobody_helps),
    ):
        with Bench(program, trim_seconds=trim_seconds) as bench:
            bench.start("rebuilder", "rebuilder-1")
            for name in ("reader-1", "reader-2"):
                bench.start("reader", name)
            bench.commit()
            bench.settle()
            for number in range(runs):
                with row.run(f"{once.__name__.strip('_')}, run {number}"):
                    _limit(bench, _used(bench) + _ROOM_BYTES)
                    try:
                        once(bench, row)
                    finally:
                        _limit(bench, 0)
                        bench.settle()
            row.broke(bench.violations())


def _somebody_raises_the_limit(bench: Bench, row: Row) -> None:
    error = _refused(bench)
    assert "maxmemory" in str(error), error
    bench.wait(lambda: _drained(bench))
    _fill(bench, error.commit)  # draining freed nothing: it is as full as before
    bench.wait(lambda: _drained(bench))
    assert bench.catalog.collections.get(error.commit.collection).generation == (
        error.commit.generation
    ), "the commit does not stand"
    _limit(bench, 0)
    row.recovered(bench.settle(), within=_MENDED_SECONDS)


def _nobody_helps(bench: Bench, row: Row) -> None:
    _refused(bench)
    full_at = time.monotonic()
    row.recovered(bench.settle(), within=_MENDED_SECONDS)
    # A reconciliation may bring the commit to the readers before anything was trimmed.
    bench.wait(lambda: _used(bench) < _limit_of(bench) - _ROOM_BYTES // 2)
    bench.commit()  # and this one's event is taken again
    bench.settle()
    assert _used(bench) < _limit_of(bench)
    row.figures.append(f"room again after {time.monotonic() - full_at:.1f} s, by trimming alone")


def _refused(bench: Bench) -> EventRefusedError:
    """Fill the memory until a job is told; whoever trims meanwhile only makes that take longer."""
    commit = None
    for _ in range(100):
        try:
            commit = bench.commit()
        except EventRefusedError as error:
            return error
        _fill(bench, commit)
    raise AssertionError("a full server refuses no event")


def _fill(bench: Bench, commit: Commit) -> None:
    """Tell of a commit again and again, until no event fits."""
    while True:
        try:
            publish_many(
                bench.connection, bench.keys.events, [_event(commit) for _ in range(_EVENTS)]
            )
        except BackendRefusedError as error:
            if error.code == "OOM":
                return
            raise


def _event(commit: Commit) -> bytes:
    said = BatchCompleted(
        collection=commit.collection,
        epoch=commit.epoch,
        batch_id=commit.batch_id,
        generation=commit.generation,
    )
    return Event.of(said, source="faults", time=datetime.now(UTC)).to_bytes()


def _drained(bench: Bench) -> bool:
    left = bench.recorder.left()
    return (left.unread, left.pending) == (0, 0)


def _used(bench: Bench) -> int:
    return int(bench.connection.commands.info("memory")["used_memory"])


def _limit_of(bench: Bench) -> int:
    return int(bench.connection.commands.info("memory")["maxmemory"])


def _limit(bench: Bench, maxmemory: int) -> None:
    bench.connection.commands.config_set("maxmemory", maxmemory)
