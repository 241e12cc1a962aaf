"""Programs that read: ``python -m faults.readers query|live|herd|workers …``.

``query CONFIG ID LOG`` is a reader whose two threads query it all the time. Whatever a query sees
that its thread had not seen before goes into the log at once, a JSON line in one write, so that a
kill loses nothing that was seen. Runs until SIGTERM.

``live CONFIG ID`` is a reader of a live collection, whose index ``similar`` one thread searches all
the time. A line on standard input asks what it finds: the answer has all ``entries`` with their
payloads, its ``state``, how many messages it ``ignored``, and what was ``wrong``: an answer of an
earlier generation than one before it, or none at all. A line of JSON asks for an answer of a
``level`` of consistency within so many ``seconds``; it has the ``generation``, the ``ids`` and the
``session``, or why it was ``refused``.

``herd CONFIG COUNT LOGS`` is many readers at once. What readers import is imported once, and each
reader is a fork of a process that has done nothing yet, so that fifty of them start within
milliseconds: a worse rush than fifty programs, which two cores would spread over a quarter of a
minute. A line on standard input is ``start SECONDS``, which forks them all with that
``start_spread_seconds``, or ``stop``, which ends them all and answers with how many ended well.

``workers CONFIG`` is a web server whose workers are forks that serve as reader ``web``, the only id
that all of them have. A line on standard input is ``start ORDER COUNT``, which forks so many
workers and answers with their pids; ``ask PID``, which answers with what that worker's queries see;
or ``end``, which ends all and answers with how many ended well. ORDER is what comes first:

- ``fork``: each worker makes its reader and starts it;
- ``make``: the reader is made here, and started in each worker (an application that is preloaded);
- ``start``: it is made and started here, and so runs in this process, too.
"""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from indexrelay.console.processes import Stop
from indexrelay.reloaders import ComponentNotServedError, Consistency, NotFreshError, Reloader
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.session import SessionToken
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings

THREADS = 2
_BETWEEN_SECONDS = 0.005
"""Between two queries: the machine is the other processes', too."""
_NEVER_SECONDS = 3600.0


class _Log:
    """Lines of JSON, each written in one call."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, **fields: Any) -> None:
        line = json.dumps({"process": os.getpid(), **fields}) + "\n"
        os.write(self._descriptor, line.encode())


def run_queries(config: str, reader_id: str, log_file: str) -> None:
    arm(os.environ)
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    reloader = Reloader(settings, reader_id=reader_id)
    log, done = _Log(Path(log_file)), threading.Event()
    log.write(started=True)
    queries = [
        threading.Thread(target=_query, args=(reloader, log, done), name=f"query-{number}")
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


def _query(reloader: Reloader, log: _Log, done: threading.Event) -> None:
    """Ask everything in one snapshot, again and again."""
    before: dict[str, Any] = {}
    while not done.wait(_BETWEEN_SECONDS):
        try:
            seen = _look(reloader)
        except Exception as error:  # noqa: BLE001 - that there is one at all is what is recorded
            log.write(error=f"{type(error).__name__}: {error}")
            continue
        if seen != before:
            log.write(thread=threading.current_thread().name, **seen)
        before = seen


def _look(reloader: Reloader) -> dict[str, Any]:
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


def run_live(config: str, reader_id: str) -> None:
    arm(os.environ)
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    reloader = Reloader(settings, reader_id=reader_id)
    wrong: set[str] = set()
    done = threading.Event()
    query = threading.Thread(target=_follow, args=(reloader, wrong, done), name="query")
    reloader.start()
    query.start()
    for line in sys.stdin:
        if line.strip() != "?":
            sys.stdout.write(json.dumps(_fresh(reloader, json.loads(line))) + "\n")
            sys.stdout.flush()
            continue
        state = reloader.state.live["tracks"]
        answer = {
            "entries": _entries(reloader),
            "state": f"{state.status}: {state.reason}",
            "ignored": state.ignored,
            "wrong": sorted(wrong),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    done.set()
    query.join()
    reloader.stop()


def _follow(reloader: Reloader, wrong: set[str], done: threading.Event) -> None:
    """Search again and again, and note where an answer is older than one before."""
    newest = 0
    while not done.wait(_BETWEEN_SECONDS):
        try:
            with reloader.acquire() as snapshot:
                if "similar" not in snapshot:
                    continue
                seen = max(snapshot.covers["similar"]["tracks"], snapshot.live.get("tracks", 0))
                if not snapshot["similar"].search([1.0, 1.0]):
                    wrong.add("nothing was found")
        except Exception as error:  # noqa: BLE001 - that there is one at all is what is recorded
            wrong.add(f"{type(error).__name__}: {error}")
            continue
        if seen < newest:
            wrong.add(f"generation {seen} after {newest}")
        newest = max(newest, seen)


def _fresh(reloader: Reloader, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What there is that is as fresh as asked, or why there is nothing."""
    token = SessionToken.from_text(asked["session"])
    consistency = {
        "eventual": Consistency.eventual(),
        "session": Consistency.session(token),
        "strong": Consistency.strong(),
    }[asked["level"]]
    try:
        with reloader.acquire(
            consistency, components=["similar"], timeout_seconds=asked["seconds"]
        ) as snapshot:
            [life] = snapshot.reached("similar")
            return {
                "generation": life.generation,
                "session": str(snapshot.session("similar")),
                "ids": list(snapshot["similar"].ids),
            }
    except (NotFreshError, ComponentNotServedError) as error:
        return {"refused": str(error)}


def _entries(reloader: Reloader) -> dict[str, Any]:
    """Every entry that is found, and its payload."""
    found: dict[str, Any] = {}
    with reloader.acquire() as snapshot:
        after = None
        while "similar" in snapshot:
            page = snapshot["similar"].scroll(after=after, limit=1000)
            found |= {each.id: each.payload for each in page.entries}
            after = page.after
            if after is None:
                break
    return found


_ORPHANED_SECONDS = 0.5
"""How often a reader looks whether this process is still there."""


def run_herd(config: str, count: str, logs: str) -> None:
    settings = load_settings(Path(config), environ={})
    running: list[int] = []
    try:
        for line in sys.stdin:
            word, *seconds = line.split()
            if word == "start":
                mine = _spread_over(settings, float(seconds[0]))
                running = [_forked(mine, f"herd-{n:02d}", Path(logs)) for n in range(int(count))]
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
        log = os.open(logs / f"{reader_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDWR)
        for stream, target in ((0, null), (1, null), (2, log)):
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


ORDERS = ("fork", "make", "start")
LABEL = "web"
_WORKER_LOOK_SECONDS = 0.02


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
                while not stop.wait(_WORKER_LOOK_SECONDS) and os.getppid() == parent:
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


def run_workers(config: str) -> None:
    settings = load_settings(Path(config), environ={})
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


PROGRAMS: Mapping[str, Callable[..., None]] = {
    "query": run_queries,
    "live": run_live,
    "herd": run_herd,
    "workers": run_workers,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
