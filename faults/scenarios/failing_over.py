"""F20: a replica becomes the primary, and what it never heard of is lost, but in Redis only.

By turns the primary is killed and comes back, stalls until it was given up and wakes up as if
nothing had happened, and is told to hand over. Batches are committed before, meanwhile and after;
events, leases, cursors and the release number may go back in time, and reconcile finds what nobody
was told of. Everyone reaches the servers through Sentinels.
"""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row
from tests.fixtures.sentinels import GuardedServers

_BACK_SECONDS = 20.0
"""To notice (0.5 s) and to elect (1 s; 3 more when nobody won), the longest pause before a client
asks again (5 s), and the reconciliation that follows (1 s): twice the sum of it."""


def run(program: Path, row: Row, runs: int) -> None:
    """Take the primary away in each way in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="ir-") as folder,
        _running(Path(folder), program) as servers,
        Bench(program, url=servers.url) as bench,
    ):
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
        for number in range(runs):
            for how, take_away in _WAYS.items():
                with row.run(f"{how}, run {number}"):
                    _once(bench, servers, row, take_away)
        row.broke(bench.violations())


def _once(
    bench: Bench,
    servers: GuardedServers,
    row: Row,
    take_away: Callable[[GuardedServers, int], Callable[[], None]],
) -> None:
    bench.recorder.watch()
    old = servers.primary
    bench.commit()
    bring_back = take_away(servers, old)
    lost_at = time.monotonic()
    away = bench.commit()
    assert not away.repeated
    bench.wait(lambda: servers.primary not in (0, old))
    elected_at = time.monotonic()
    bench.settle()
    seconds = time.monotonic() - lost_at
    row.figures.append(
        f"{take_away.__name__}: another primary after {elected_at - lost_at:.1f} s, "
        f"all served after {seconds:.1f} s"
    )
    row.recovered(seconds, within=_BACK_SECONDS)
    bring_back()
    bench.commit()  # while the old primary still takes itself for one
    servers.wait_until_whole()
    assert servers.primary != old
    bench.settle()


def killed(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It dies, and is started again later."""
    servers.send(primary, signal.SIGKILL)
    return lambda: servers.start(primary)


def stalled(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It keeps its sockets and answers nothing, until it wakes up later."""
    servers.send(primary, signal.SIGSTOP)
    return lambda: servers.send(primary, signal.SIGCONT)


def told(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It is well, and becomes the replica."""
    servers.fail_over()
    return lambda: None


_WAYS: Mapping[str, Callable[[GuardedServers, int], Callable[[], None]]] = {
    each.__name__: each for each in (killed, stalled, told)
}


@contextmanager
def _running(folder: Path, program: Path) -> Iterator[GuardedServers]:
    servers = GuardedServers(folder, program)
    try:
        yield servers
    finally:
        servers.stop()
