"""Many readers at once, a process each: ``python -m faults.herd CONFIG COUNT LOGS``.

What readers import is imported once, here, and each reader is a fork of this process that has done
nothing yet, so that fifty of them start within milliseconds: a worse rush than fifty programs,
which two cores would spread over a quarter of a minute. A line on standard input is ``start
SECONDS``, which forks them all with that ``start_spread_seconds``, or ``stop``, which tells them
all to end and answers with how many ended well. What a reader says goes into a file of its own.
"""

import os
import signal
import sys
from pathlib import Path

from indexrelay.console.processes import Stop
from indexrelay.reloaders import Reloader
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings

_ORPHANED_SECONDS = 0.5
"""How often a reader looks whether this process is still there."""


def main() -> None:
    config, count, logs = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    settings = load_settings(config, environ={})
    running: list[int] = []
    try:
        for line in sys.stdin:
            word, *seconds = line.split()
            if word == "start":
                mine = _spread_over(settings, float(seconds[0]))
                running = [_forked(mine, f"herd-{each:02d}", logs) for each in range(count)]
                answer = len(running)
            else:
                answer = sum(code == 0 for code in _ended(running))
                running = []
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    finally:
        _ended(running)


def _spread_over(settings: Settings, seconds: float) -> Settings:
    reader = settings.reader.model_copy(update={"start_spread_seconds": seconds})
    return settings.model_copy(update={"reader": reader})


def _forked(settings: Settings, reader_id: str, logs: Path) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        said = os.open(logs / f"{reader_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDWR)
        for stream, target in ((0, null), (1, null), (2, said)):
            os.dup2(target, stream)
        _read(settings, reader_id, parent)
        code = 0
    finally:
        os._exit(code)  # nothing that the parent began is this process's to end


def _read(settings: Settings, reader_id: str, parent: int) -> None:
    configure_logs(settings.log)
    with Stop() as stop:
        reloader = Reloader(settings, reader_id=reader_id)
        reloader.start()
        while not stop.wait(_ORPHANED_SECONDS) and os.getppid() == parent:
            pass
        reloader.stop()


def _ended(pids: list[int]) -> list[int]:
    """Tell all to end, and wait for that; their exit codes."""
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    main()
