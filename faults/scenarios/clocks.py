"""Processes that are stopped, and clocks that are wrong.

F4: the lease holder is stopped for three TTLs and wakes up: its late publish changes nothing. By
turns it is about to link its release, and about to announce it.

F14: a reader is stopped for longer than the stream keeps messages: it resyncs to the current
release. It is stopped between two reads, so that nothing of what it misses is in its socket.

F17: the clock of a client moves by an hour, ahead and back: nothing runs twice. In every second run
a build is killed, and clocks are set before its second attempt: it must neither be put off for an
hour nor be made more than once.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

from faults.bench import LEASE_SECONDS, Bench
from faults.processes import Process
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.streams import current_release

_SLEEP_SECONDS = 3 * LEASE_SECONDS
_POINTS = ("release.before_link", "announce.before")


def of_a_lease_holder(program: Path, row: Row, runs: int) -> None:
    """Two rebuilders; the one that is about to publish is stopped."""
    with Bench(program, deed="stop") as bench:
        bench.bring_up(rebuilders=2, readers=1)
        for number in range(runs):
            point = _POINTS[number % len(_POINTS)]
            with row.run(f"{point}, run {number}"):
                _stop_holder(bench, row, point)
        row.broke(bench.violations())


def _stop_holder(bench: Bench, row: Row, point: str) -> None:
    token = bench.token(point)
    token.touch()
    bench.commit()
    bench.wait(lambda: not token.exists())
    asleep_at = time.monotonic()
    rebuilders = [each for name, each in bench.processes.items() if name.startswith("rebuilder")]
    bench.wait(lambda: any(each.stopped for each in rebuilders))
    [sleeper] = [each for each in rebuilders if each.stopped]
    bench.commit()
    bench.settle()
    row.recovered(time.monotonic() - asleep_at, within=LEASE_SECONDS + 5)
    bench.wait(lambda: time.monotonic() - asleep_at > _SLEEP_SECONDS)
    before = _what_is_served(bench)
    passes = _passes(sleeper)
    sleeper.send(signal.SIGCONT)
    bench.wait(lambda: _passes(sleeper) > passes)
    after = _what_is_served(bench)
    assert after == before, f"a late publish changed what is served from {before} to {after}"
    bench.settle()


def _what_is_served(bench: Bench) -> tuple[object, int, bytes]:
    """The newest release, the announced one, and the last message about one."""
    newest = bench.store.newest_release()
    announced = current_release(bench.connection, bench.keys)
    # Not how many there are: the sleeper may trim the stream as soon as it is awake.
    reloads: Any = bench.connection.commands.xinfo_stream(bench.keys.reloads)
    return newest, announced, reloads["last-generated-id"]


def _passes(rebuilder: Process) -> int:
    """How many passes it has come to the end of."""
    return rebuilder.log.read_text(encoding="utf-8").count('"rebuild.finished"')


_BACK_SECONDS = 5.0
_BATCHES = 3


def of_a_reader(program: Path, row: Row, runs: int) -> None:
    """One reader sleeps, the other goes on; all messages of that time are trimmed."""
    with Bench(program, deed="stop") as bench:
        bench.bring_up()
        for number in range(runs):
            with row.run(f"run {number}"):
                _stop_reader(bench, row)
        row.broke(bench.violations())


def _stop_reader(bench: Bench, row: Row) -> None:
    token = bench.token("reader.after_report")
    token.touch()
    bench.commit()
    readers = [bench.processes[name] for name in ("reader-1", "reader-2")]
    bench.wait(lambda: any(each.stopped for each in readers))
    [sleeper] = [each for each in readers if each.stopped]
    [other] = [each for each in readers if not each.stopped]
    for _ in range(_BATCHES):
        generation = bench.commit().generation
        bench.wait(lambda reached=generation: _reached(bench, other.name, reached))  # type: ignore[misc] # bound now
    bench.recorder.watch()
    bench.connection.commands.xtrim(bench.keys.reloads, maxlen=0, approximate=False)
    awake_at = time.monotonic()
    sleeper.send(signal.SIGCONT)
    bench.wait(lambda: _reached(bench, sleeper.name, generation))
    row.recovered(time.monotonic() - awake_at, within=_BACK_SECONDS)
    bench.settle()


def _reached(bench: Bench, reader: str, generation: int) -> bool:
    state = bench.states().get(reader)
    return state is not None and all(
        part.covers.get(COLLECTION) == generation for part in state.components.values()
    )


_HOUR = 3600
_RECOVERED_SECONDS = 6.0
_NAMES = ("rebuilder-1", "rebuilder-2")


def set_wrong(program: Path, row: Row, runs: int) -> None:
    """Before and during each build a clock is set."""
    draw = random.Random(runs)
    with Bench(program) as bench:
        for name in _NAMES:
            _set_clock(bench, name, 0)
            bench.start("misdated", name)
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        for number in range(runs):
            with row.run(f"run {number}"):
                _set_clocks(bench, row, draw, fails=number % 2 == 1)
        row.broke(bench.violations())


def _set_clocks(bench: Bench, row: Row, draw: random.Random, *, fails: bool) -> None:
    built, number = len(bench.recorder.manifests()), bench.store.next_number()
    _set_clock(bench, draw.choice(_NAMES), draw.choice((-_HOUR, 0, _HOUR)))
    token = bench.token("build.before_blob")
    if fails:
        token.touch()
    bench.commit()
    if fails:  # the build was killed; the clock is set before its second attempt
        bench.wait(lambda: not token.exists())
    _set_clock(bench, draw.choice(_NAMES), draw.choice((-_HOUR, 0, _HOUR)))
    row.recovered(bench.settle(), within=_RECOVERED_SECONDS)
    more = len(bench.recorder.manifests()) - built
    assert more == len(bench.settings.components), f"{more} builds came of one batch"
    # One that failed first, was slow, or fell to the other rebuilder has a release of its own.
    releases = bench.store.next_number() - number
    assert releases <= more, f"{releases} releases came of {more} builds"


def _set_clock(bench: Bench, name: str, seconds: int) -> None:
    """In one step: a clock that is half written is no clock."""
    draft = bench.folder / f"{name}.clock.new"
    draft.write_text(str(seconds), encoding="ascii")
    draft.replace(bench.clock(name))
