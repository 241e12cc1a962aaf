"""F7: stream deleted or renamed, group destroyed, under blocked reads: no loop, and healed."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row

_WINDOW_SECONDS = 2.0
"""How long everybody is watched right after it happened."""
_LINES = _WINDOW_SECONDS + 2
"""One line a second from each process, and two for what happened and what was mended."""
_COMMANDS_PER_SECOND = 200
"""All processes together ask some tens of times a second, and look at everything once, when
something went wrong; a loop asks thousands of times."""
_HEALED_SECONDS = 5.0

_DEEDS: Mapping[str, Callable[[Bench], object]] = {
    "events deleted": lambda bench: bench.connection.commands.delete(bench.keys.events),
    "events renamed": lambda bench: _rename(bench, bench.keys.events),
    "group destroyed": lambda bench: bench.connection.commands.xgroup_destroy(
        bench.keys.events, "rebuilder"
    ),
    "reloads deleted": lambda bench: bench.connection.commands.delete(bench.keys.reloads),
    "reloads renamed": lambda bench: _rename(bench, bench.keys.reloads),
}


def run(program: Path, row: Row, runs: int) -> None:
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
                    _once(bench, row, deed)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, deed: Callable[[Bench], object]) -> None:
    bench.recorder.watch()
    lines, commands = _lines(bench), _commands(bench)
    deed(bench)
    done_at = time.monotonic()
    bench.wait(lambda: time.monotonic() - done_at >= _WINDOW_SECONDS)
    asked = (_commands(bench) - commands) / (time.monotonic() - done_at)
    assert asked <= _COMMANDS_PER_SECOND, f"{asked:.0f} commands a second: somebody loops"
    for name, count in _lines(bench).items():
        assert count - lines[name] <= _LINES, f"{name} logged {count - lines[name]} lines"
    bench.commit()
    row.recovered(bench.settle(), within=_HEALED_SECONDS)


def _rename(bench: Bench, key: str) -> None:
    bench.connection.commands.rename(key, f"{key}:elsewhere")


def _lines(bench: Bench) -> dict[str, int]:
    return {
        name: process.log.read_text(encoding="utf-8").count("\n")
        for name, process in bench.processes.items()
    }


def _commands(bench: Bench) -> int:
    return int(bench.connection.commands.info("stats")["total_commands_processed"])
