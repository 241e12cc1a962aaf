"""What happens to the Redis server, and to the links to it.

F5: the server is killed under each append-only policy; readers are back within five seconds.

F6: the server comes back empty: one reconcile restores all, and nothing current is rebuilt.

F7: a stream is deleted or renamed, a group destroyed, under blocked reads: no loop, and repaired.

F8: the server stalls longer than the socket's time-out during a write: exactly one effect. By turns
the write is a job's event and a rebuilder's announcement. Its sender gives up, the server wakes up
and does it after all, and reconcile repeats what was never confirmed.

F9: each link in turn is cut, half open, or slow by five seconds, while batches are committed:
nothing is lost. Time runs from the moment at which the link is as it should be.

F18: the server is at its memory limit, filled by events: jobs get the typed error, consumers drain.
What makes room is by turns a person, who raises the limit, and nobody: then rebuilders trim what
was read, which needs no memory.

F20: a replica becomes the primary, and what it has not received is lost, but in Redis only. By
turns the primary is killed and comes back, stalls until it was given up, and is told to hand over.
Events, leases, cursors and the release number may go back in time. Everyone reaches the servers
through Sentinels.
"""

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from faults.bench import RECONCILE_SECONDS, Bench, event_of
from faults.links import DELAY_SECONDS, Link, Mode
from faults.rows import Row
from indexrelay.producers.errors import EventRefusedError
from indexrelay.schemas.messages import RebuildFinished
from indexrelay.storage.catalog import Commit
from indexrelay.streams import BackendRefusedError, publish_many
from tests.fixtures.sentinels import GuardedServers

_RESTARTED_SECONDS = 5.0
_POLICIES = ("always", "everysec")


def killed(program: Path, row: Row, runs: int) -> None:
    """Kill it under load, commit while it is away, and start it again."""
    with Bench(program) as bench:
        bench.bring_up()
        for policy in _POLICIES:
            for number in range(runs):
                with row.run(f"{policy}, run {number}"):
                    bench.connection.commands.config_set("appendfsync", policy)
                    _kill_once(bench, row)
        row.broke(bench.violations())


def _kill_once(bench: Bench, row: Row) -> None:
    bench.recorder.watch()
    bench.commit()
    bench.commit()
    bench.server.kill()
    away = bench.commit()
    assert not away.repeated
    bench.server.start()
    row.recovered(bench.settle(), within=_RESTARTED_SECONDS)


_RESTORED_SECONDS = RECONCILE_SECONDS + 2
"""One reconcile, and a reader's longest pause before it reconnects."""
_FROM_NOTHING_SECONDS = _RESTORED_SECONDS + 5
"""… after a server that was away, whose clients wait a little longer each time."""


def emptied(program: Path, row: Row, runs: int) -> None:
    """By turns FLUSHALL on a running server, and a server that is killed and loses its files."""
    with Bench(program) as bench:
        bench.bring_up()
        for number in range(runs):
            with row.run(f"run {number}"):
                _empty_once(bench, row, restart=number % 2 == 1)
        row.broke(bench.violations())


def _empty_once(bench: Bench, row: Row, *, restart: bool) -> None:
    bench.recorder.watch()
    built, number = bench.recorder.manifests(), bench.store.next_number()
    if restart:
        bench.server.kill()
        bench.server.forget()
        bench.server.start()
    else:
        bench.connection.commands.flushall()
    seconds = bench.settle()
    row.recovered(seconds, within=_FROM_NOTHING_SECONDS if restart else _RESTORED_SECONDS)
    assert bench.recorder.manifests() == built, "something current was rebuilt"
    assert bench.store.next_number() == number, "something was released"
    bench.commit()
    bench.settle()


_WINDOW_SECONDS = 2.0
"""How long everybody is watched right after it happened."""
_LINES = _WINDOW_SECONDS + 2
"""One line a second from each process, and two for what happened and what was repaired."""
_COMMANDS_PER_SECOND = 200
"""All processes together ask some tens of times a second, and look at everything once, when
something went wrong; a loop asks thousands of times."""
_REPAIRED_SECONDS = 5.0
_DEEDS: Mapping[str, Callable[[Bench], object]] = {
    "events deleted": lambda bench: bench.connection.commands.delete(bench.keys.events),
    "events renamed": lambda bench: _rename(bench, bench.keys.events),
    "group destroyed": lambda bench: bench.connection.commands.xgroup_destroy(
        bench.keys.events, "rebuilder"
    ),
    "reloads deleted": lambda bench: bench.connection.commands.delete(bench.keys.reloads),
    "reloads renamed": lambda bench: _rename(bench, bench.keys.reloads),
}


def unsettled(program: Path, row: Row, runs: int) -> None:
    """Each of the five in turn."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        for number in range(runs):
            for what, deed in _DEEDS.items():
                with row.run(f"{what}, run {number}"):
                    bench.commit()  # so that there is a stream to take away
                    bench.settle()
                    _unsettle_once(bench, row, deed)
        row.broke(bench.violations())


def _unsettle_once(bench: Bench, row: Row, deed: Callable[[Bench], object]) -> None:
    bench.recorder.watch()
    lines, commands = _lines(bench), _commands(bench)
    deed(bench)
    done_at = time.monotonic()
    bench.wait(lambda: time.monotonic() - done_at >= _WINDOW_SECONDS)
    asked = (_commands(bench) - commands) / (time.monotonic() - done_at)
    assert asked <= _COMMANDS_PER_SECOND, f"{asked:.0f} commands a second: a process loops"
    for name, count in _lines(bench).items():
        assert count - lines[name] <= _LINES, f"{name} logged {count - lines[name]} lines"
    bench.commit()
    row.recovered(bench.settle(), within=_REPAIRED_SECONDS)


def _rename(bench: Bench, key: str) -> None:
    bench.connection.commands.rename(key, f"{key}:elsewhere")


def _lines(bench: Bench) -> dict[str, int]:
    return {
        name: process.log.read_text(encoding="utf-8").count("\n")
        for name, process in bench.processes.items()
    }


def _commands(bench: Bench) -> int:
    return int(bench.connection.commands.info("stats")["total_commands_processed"])


_AWAKE_SECONDS = 6.0


def stalled(program: Path, row: Row, runs: int) -> None:
    """Stall the server around one write, and count what came of it."""
    with Bench(program, deed="stop") as bench:
        bench.bring_up(readers=1)
        for number in range(runs):
            write = _during_an_announcement if number % 2 else _during_an_event
            with row.run(f"{write.__name__.strip('_')}, run {number}"):
                _stall_once(bench, row, stall_around=write)
        row.broke(bench.violations())


def _stall_once(bench: Bench, row: Row, *, stall_around: Callable[[Bench], None]) -> None:
    built, number = len(bench.recorder.manifests()), bench.store.next_number()
    stall_around(bench)
    row.recovered(bench.settle(), within=_AWAKE_SECONDS)
    more = len(bench.recorder.manifests()) - built
    assert more == len(bench.settings.components), f"{more} builds came of one batch"
    releases = bench.store.next_number() - number
    assert releases == 1, f"{releases} releases came of one batch"
    history = bench.recorder.history()
    announced = [each.number for each in history.announced]
    assert announced.count(number) == 1, (
        f"release {number} was announced {announced.count(number)} times"
    )
    results = [
        event.data.release
        for _, event in bench.recorder.events(bench.keys.results)
        if isinstance(event.data, RebuildFinished)
    ]
    assert results.count(number) <= 1, "a result was published twice"
    newest = max(batch.generation for batch in history.batches)
    assert history.emitted.count(newest) <= 1, "an event was sent twice"


def _during_an_event(bench: Bench) -> None:
    """The job's own time-out ends its wait; its commit is valid."""
    bench.server.stall()
    bench.commit()
    bench.server.go_on()


def _during_an_announcement(bench: Bench) -> None:
    rebuilder = bench.processes["rebuilder-1"]
    said_before = len(_log_of(rebuilder.log))
    token = bench.token("announce.before")
    token.touch()
    bench.commit()
    bench.wait(lambda: rebuilder.stopped)
    bench.server.stall()
    rebuilder.send(signal.SIGCONT)
    bench.wait(lambda: "not_announced" in _log_of(rebuilder.log)[said_before:])
    bench.server.go_on()


def _log_of(log: Path) -> str:
    return log.read_text(encoding="utf-8")


_BROKEN_SECONDS = 2.0
"""Longer than a command's time-out; for a slow link, until the first late piece has arrived."""
_RECONNECTED_SECONDS = 8.0
"""The longest pause before a client reconnects, and what follows from that."""
_ROLES = ("producer", "rebuilder", "reader")
_MODES = tuple(mode for mode in get_args(Mode) if mode != "open")


def disconnected(program: Path, row: Row, runs: int) -> None:
    """Every link in every mode."""
    with Bench(program, linked=_ROLES) as bench:
        bench.start("producer", "producer-1")
        bench.bring_up()
        for number in range(runs):
            for role in _ROLES:
                for mode in _MODES:
                    with row.run(f"{role} {mode}, run {number}"):
                        _disconnect_once(bench, row, bench.links[role], mode)
        row.broke(bench.violations())


def _disconnect_once(bench: Bench, row: Row, link: Link, mode: Mode) -> None:
    job = bench.processes["producer-1"]
    link.become(mode)
    broken_at = time.monotonic()
    lasts = DELAY_SECONDS + 1 if mode == "slow" else _BROKEN_SECONDS
    batch_id, ids = bench.new_batch()
    reply = json.loads(job.ask(json.dumps({"batch_id": batch_id, "ids": ids})))
    assert not reply["repeated"]
    bench.wait(lambda: time.monotonic() - broken_at >= lasts)
    link.become("open")
    row.recovered(bench.settle(), within=_RECONNECTED_SECONDS)


_ROOM_BYTES = 1_000_000
"""What may be added before the limit; a few thousand events."""
_EVENTS = 250
_NEVER_SECONDS = 3600.0
_TRIM_SECONDS = 1.0
_ROOM_AGAIN_SECONDS = 8.0
"""The longest pause of a client (5 s), a trimming and a reconciliation (1 s each), and a build."""


def out_of_memory(program: Path, row: Row, runs: int) -> None:
    """Both ways in which room is made, each with an installation of its own."""
    for trim_seconds, once in (
        (_NEVER_SECONDS, _somebody_raises_the_limit),
        (_TRIM_SECONDS, _nobody_helps),
    ):
        with Bench(program, trim_seconds=trim_seconds) as bench:
            bench.bring_up()
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
    ), "the commit is lost"
    _limit(bench, 0)
    row.recovered(bench.settle(), within=_ROOM_AGAIN_SECONDS)


def _nobody_helps(bench: Bench, row: Row) -> None:
    _refused(bench)
    full_at = time.monotonic()
    row.recovered(bench.settle(), within=_ROOM_AGAIN_SECONDS)
    # A reconciliation may bring the commit to the readers before anything was trimmed.
    bench.wait(lambda: _used(bench) < _limit_of(bench) - _ROOM_BYTES // 2)
    bench.commit()  # and this one's event is taken again
    bench.settle()
    assert _used(bench) < _limit_of(bench)
    row.figures.append(f"room again after {time.monotonic() - full_at:.1f} s, by trimming alone")


def _refused(bench: Bench) -> EventRefusedError:
    """Fill the memory until a job gets the error; trimming meanwhile only delays that."""
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
                bench.connection, bench.keys.events, [event_of(commit) for _ in range(_EVENTS)]
            )
        except BackendRefusedError as error:
            if error.code == "OOM":
                return
            raise


def _drained(bench: Bench) -> bool:
    left = bench.recorder.left()
    return (left.unread, left.pending) == (0, 0)


def _used(bench: Bench) -> int:
    return int(bench.connection.commands.info("memory")["used_memory"])


def _limit_of(bench: Bench) -> int:
    return int(bench.connection.commands.info("memory")["maxmemory"])


def _limit(bench: Bench, maxmemory: int) -> None:
    bench.connection.commands.config_set("maxmemory", maxmemory)


_ELECTED_SECONDS = 20.0
"""To notice (0.5 s) and to elect (1 s; 3 more when nobody won), the longest pause before a client
asks again (5 s), and the reconciliation that follows (1 s): twice the sum of it."""


def failed_over(program: Path, row: Row, runs: int) -> None:
    """Take the primary away in each way in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="ir-") as folder,
        _running(Path(folder), program) as servers,
        Bench(program, url=servers.url) as bench,
    ):
        bench.bring_up()
        for number in range(runs):
            for how, take_away in _WAYS.items():
                with row.run(f"{how}, run {number}"):
                    _fail_over_once(bench, servers, row, take_away)
        row.broke(bench.violations())


def _fail_over_once(
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
    row.recovered(seconds, within=_ELECTED_SECONDS)
    bring_back()
    bench.commit()  # while the old primary still takes itself for one
    servers.wait_until_whole()
    assert servers.primary != old
    bench.settle()


def _primary_killed(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It dies, and is started again later."""
    servers.send(primary, signal.SIGKILL)
    return lambda: servers.start(primary)


def _primary_stalled(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It keeps its sockets and answers nothing, until it wakes up later."""
    servers.send(primary, signal.SIGSTOP)
    return lambda: servers.send(primary, signal.SIGCONT)


def _primary_told(servers: GuardedServers, primary: int) -> Callable[[], None]:
    """It is well, and becomes the replica."""
    servers.fail_over()
    return lambda: None


_WAYS: Mapping[str, Callable[[GuardedServers, int], Callable[[], None]]] = {
    each.__name__: each for each in (_primary_killed, _primary_stalled, _primary_told)
}


@contextmanager
def _running(folder: Path, program: Path) -> Iterator[GuardedServers]:
    servers = GuardedServers(folder, program)
    try:
        yield servers
    finally:
        servers.stop()
