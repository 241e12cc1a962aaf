"""A web server's workers: ``python -m faults.workers CONFIG``.

Each is a fork of this process and serves as reader ``web``, the only id that all of them have. A
line on standard input is ``start ORDER COUNT``, which forks so many workers and answers with their
pids; ``ask PID``, which answers with what that worker's queries see; or ``end``, which tells all to
end and answers with how many ended well. ORDER is what comes first:

- ``fork``: each worker makes its reader and starts it;
- ``make``: the reader is made here, and started in each worker (an application that is preloaded);
- ``start``: it is made and started here, and so runs in this process, too.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

from indexrelay.console.processes import Stop
from indexrelay.reloaders import Reloader
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings

ORDERS = ("fork", "make", "start")
LABEL = "web"
_ORPHANED_SECONDS = 0.02


class Server:
    """Forks workers, and talks to each over a socket of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[int, socket.socket] = {}
        self._here: Reloader | None = None

    def start(self, order: str, count: int) -> list[int]:
        """Fork ``count`` workers; their pids, and this process's where it serves itself."""
        reloader = None if order == "fork" else Reloader(self._settings, reader_id=LABEL)
        if order == "start":
            assert reloader is not None
            self._here = reloader
            reloader.start()
        for _ in range(count):
            ours, theirs = socket.socketpair()
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                ours.close()
                self._work(reloader, theirs, parent)
            theirs.close()
            ours.settimeout(20)
            self._workers[pid] = ours
        return [*self._workers, *([os.getpid()] if self._here is not None else [])]

    def ask(self, pid: int) -> str:
        """What a query sees there, as JSON."""
        if pid == os.getpid():
            assert self._here is not None
            return _seen(self._here)
        self._workers[pid].sendall(b"?")
        return self._workers[pid].recv(65536).decode()

    def end(self) -> int:
        """End all of them; how many ended well."""
        for pid in self._workers:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self._workers]
        for each in self._workers.values():
            each.close()
        self._workers = {}
        if self._here is not None:
            self._here.stop()
            self._here = None
        return codes.count(0)

    def _work(self, reloader: Reloader | None, queries: socket.socket, parent: int) -> None:
        code = 1
        try:
            with Stop() as stop:
                mine = reloader or Reloader(self._settings, reader_id=LABEL)
                mine.start()
                queries.setblocking(False)
                while not stop.wait(_ORPHANED_SECONDS) and os.getppid() == parent:
                    try:
                        asked = queries.recv(1)
                    except BlockingIOError:
                        continue
                    if asked:
                        queries.sendall(_seen(mine).encode())
                mine.stop()
            code = 0
        finally:
            os._exit(code)


def _seen(reloader: Reloader) -> str:
    with reloader.acquire() as snapshot:
        covers = {name: snapshot.covers[name]["tracks"] for name in snapshot}
        return json.dumps({"release": snapshot.release, "covers": covers})


def main() -> None:
    settings = load_settings(Path(sys.argv[1]), environ={})
    configure_logs(settings.log)
    server = Server(settings)
    try:
        for line in sys.stdin:
            word, *arguments = line.split()
            if word == "start":
                answer = json.dumps(server.start(arguments[0], int(arguments[1])))
            elif word == "ask":
                answer = server.ask(int(arguments[0]))
            else:
                answer = str(server.end())
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    finally:
        server.end()


if __name__ == "__main__":
    main()
