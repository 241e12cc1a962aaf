"""A reader in a process of its own: ``python -m faults.reader CONFIG ID LOG``.

Two threads query it all the time. Whatever a query sees that its thread had not seen before goes
into the log at once, a JSON line in one write, so that a kill loses nothing that was seen. Runs
until SIGTERM.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from indexrelay.console.processes import Stop
from indexrelay.reloaders import Reloader
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings_file import load_settings

THREADS = 2
_BETWEEN_SECONDS = 0.005
"""Between two queries: the machine is the other processes', too."""
_NEVER_SECONDS = 3600.0


class Log:
    """Lines of JSON, each written in one call."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, **fields: Any) -> None:
        line = json.dumps({"process": os.getpid(), **fields}) + "\n"
        os.write(self._descriptor, line.encode())


def main() -> None:
    arm(os.environ)
    config, reader_id, log_file = sys.argv[1:]
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    reloader = Reloader(settings, reader_id=reader_id)
    log, done = Log(Path(log_file)), threading.Event()
    log.write(started=True)
    queries = [
        threading.Thread(target=query, args=(reloader, log, done), name=f"query-{number}")
        for number in range(THREADS)
    ]
    with Stop() as stop:
        reloader.start()
        for thread in queries:
            thread.start()
        while not stop.wait(_NEVER_SECONDS):
            pass
        done.set()
        for thread in queries:
            thread.join()
        reloader.stop()


def query(reloader: Reloader, log: Log, done: threading.Event) -> None:
    """Ask everything in one snapshot, again and again."""
    before: dict[str, Any] = {}
    while not done.wait(_BETWEEN_SECONDS):
        try:
            seen = look(reloader)
        except Exception as error:  # noqa: BLE001 - that there is one at all is what is recorded
            log.write(error=f"{type(error).__name__}: {error}")
            continue
        if seen != before:
            log.write(thread=threading.current_thread().name, **seen)
        before = seen


def look(reloader: Reloader) -> dict[str, Any]:
    """What one snapshot holds."""
    with reloader.acquire() as snapshot:
        release = snapshot.release
        parts = {
            name: {
                "version": snapshot.versions[name],
                "covers": snapshot.covers[name]["tracks"],
                "content": roll.content,
                "blob": roll.blob,
            }
            for name, roll in snapshot.items()
        }
        return {"release": release, "release_after": snapshot.release, "parts": parts}


if __name__ == "__main__":
    main()
