"""Does the admin page keep up with a large fleet, and does a rebuild from it disturb searches?

Chromium opens each view of an installation with 200 readers, 30 components and 10,000 rebuilds in
its history: until it is drawn, and from an event of the server until the change is drawn. And
500,000 vectors are built again by the admin API while a client searches through a reader.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from socket import create_connection
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np

from indexrelay.storage.entries import Vectors
from measuring.arrays import COLLECTION, drawn, entry_id
from measuring.findings import Figure, Findings, Measured, at_most, joined
from measuring.fleet import Fleet, fleet
from measuring.installation import COMPONENT
from measuring.instances import Instances, free_ports, instances
from measuring.page import Opened, browsing
from measuring.program import Asked, Program, main
from measuring.requests import answered, request
from measuring.rounds import Say
from measuring.servers import bench_server

CAVEATS = """\
- Browser, page, service and server share two cores; there is no graphics card. The first view comes
  to a browser that has nothing of the page in its cache.
- "Drawn" is the second frame after the last thing that the view was to show is in the document.
- Of the 200 readers only the presence is there, as they would publish it; the rebuilds of the
  history are written into it, and not made.
- A client asks one query after another on one connection, which keeps the client and the reader
  busy; what is left of two cores is for the build, which stands back behind them. The rebuild is
  one, from the request to the reader's service of it, and is not repeated.
"""
READERS, QUICK_READERS = 200, 10
COMPONENTS, QUICK_COMPONENTS = 30, 4
HISTORY, QUICK_HISTORY = 10_000, 200
VECTORS, QUICK_VECTORS = 500_000, 5_000
DIMENSION = 64
LISTS, QUICK_LISTS = 1024, 16
READER = "reader"
IDLE_SECONDS, QUICK_IDLE_SECONDS = 20.0, 2.0
QUERIES = 2_000
_AT_ONCE = 50_000
_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 1_200.0
T = TypeVar("T")


def measure(asked: Asked) -> Findings:
    return joined([_page(asked), _rebuild(asked)])


def _page(asked: Asked) -> Findings:
    """The views of a large fleet."""
    readers, components, history = (
        (QUICK_READERS, QUICK_COMPONENTS, QUICK_HISTORY)
        if asked.quick
        else (READERS, COMPONENTS, HISTORY)
    )
    drawn_when = {
        "overview": f"document.querySelector('[data-testid=tiles]')?.textContent"
        f".includes('{readers} of {readers}')",
        "components": f"document.querySelectorAll('main tbody tr').length >= {components}",
        "readers": f"document.querySelector('main [aria-rowcount=\"{readers + 1}\"] td')",
        "history": "document.querySelector('main canvas') && "
        "document.querySelectorAll('main tbody tr').length >= 20",
    }
    with (
        fleet(readers=readers, components=components, rebuilds=history, say=asked.say) as there,
        browsing(there.url) as browser,
    ):
        if browser is None:
            note = "there is no Chromium: apt-get install chromium fonts-dejavu-core"
            return Findings(figures=(Figure(name="first view, s", value=None, note=note),))
        opened: dict[str, list[Opened]] = {view: [] for view in drawn_when}
        updates: dict[str, list[float]] = {"overview": [], "readers": []}
        for number in range(asked.rounds):
            asked.say(f"opening each view, round {number + 1} of {asked.rounds}")
            for view, holds in drawn_when.items():
                opened[view].append(browser.open(view, holds))
            for view in updates:
                updates[view] += browser.updates(view, _changes(there, drawn_when[view]))
        versions = there.versions
    figures, measured = [], []
    for view, each in opened.items():
        first = Measured(
            name=f"first view of {view}", unit="s", values=tuple(one.seconds for one in each)
        )
        measured.append(first)
    slowest = max(measured, key=lambda each: each.median)
    figures.append(
        Figure(
            name="first view, the slowest of all, s",
            value=slowest.median,
            target=at_most(1.5),
            note=f"{slowest.name.rpartition(' ')[2]}; {readers} readers, {components} components, "
            f"{history} rebuilds",
        )
    )
    for view, seconds in updates.items():
        measured.append(
            Measured(name=f"update of {view}", unit="ms", values=tuple(1000 * s for s in seconds))
        )
        figures.append(
            Figure(
                name=f"from an event to a drawn change of {view}, ms",
                value=measured[-1].median,
                target=at_most(200),
            )
        )
    heaviest = max(max(one.megabytes for one in each) for each in opened.values())
    figures.append(
        Figure(name="transferred for a view, the most, MB", value=heaviest, target=at_most(1.0))
    )
    return Findings(figures=tuple(figures), measured=tuple(measured), servers=versions)


def _changes(there: Fleet, first: str) -> Iterator[tuple[Callable[[], None], str]]:
    """Nothing at first, until the view is there; then one reader falls behind and catches up."""
    yield lambda: None, first
    healthy = there.readers[0]
    total = len(there.readers)
    behind = healthy.model_copy(update={"release": healthy.release - 1, "ready": False})
    for state, converged in ((behind, total - 1), (healthy, total)):
        shown = f"document.querySelector('main').textContent.includes('{converged} of {total}')"
        yield partial(there.publish, state), shown


def _rebuild(asked: Asked) -> Findings:
    """A client that searches, while everything is built again."""
    count, lists = (QUICK_VECTORS, QUICK_LISTS) if asked.quick else (VECTORS, LISTS)
    vectors = drawn(count, DIMENSION, clusters=lists)
    (port,) = free_ports(1)
    with bench_server() as server, instances(server.url, _tables(lists, port), READER) as there:
        _fill(there, vectors, asked.say)
        there.release_all(COLLECTION)
        client = Client(there.addresses[READER], vectors[:QUERIES])
        admin = there.start_admin()
        seconds = QUICK_IDLE_SECONDS if asked.quick else IDLE_SECONDS
        client.ask(_until(seconds))  # a first round, thrown away
        asked.say("searching, while nothing is built")
        idle = client.ask(_until(seconds))
        asked.say(f"searching, while {count} vectors are built again")
        began = time.monotonic()
        with _rebuilding(admin, client.address) as done:
            busy = client.ask(done.is_set)
        took = time.monotonic() - began
        idle.add(client.ask(_until(seconds)))
        versions = server.versions
    return Findings(
        figures=(
            Figure(
                name=f"searches that failed while {count:,} vectors were built again",
                value=busy.failed,
                target=at_most(0),
                note=f"of {len(busy.seconds)}, in {took:.0f} s",
            ),
            Figure(
                name="p99 of searches during the rebuild ÷ without",
                value=busy.quantile(0.99) / idle.quantile(0.99),
                target=at_most(1.5),
            ),
        ),
        measured=tuple(
            Measured(name=f"search {when}, {name}", unit="ms", values=(1000 * each.quantile(q),))
            for when, each in (("idle", idle), ("during a rebuild", busy))
            for name, q in (("p50", 0.5), ("p99", 0.99))
        ),
        servers=versions,
    )


@dataclass
class Asking:
    """What came of searches, one after another."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile(self, share: float) -> float:
        """Seconds within which that share of them was answered."""
        return float(np.quantile(self.seconds, share))

    def add(self, other: "Asking") -> None:
        """Take the other's for ours, too."""
        self.seconds += other.seconds
        self.failed += other.failed


class Client:
    """Searches through one reader, one query after another."""

    def __init__(self, address: str, queries: Vectors) -> None:
        self.address = address
        path = f"/v1/components/{COMPONENT}/search"
        self._requests: Iterator[bytes] = cycle(
            request("POST", path, b'{"vector": %s}' % str(query.tolist()).encode())
            for query in queries
        )

    def ask(self, ended: Callable[[], bool]) -> Asking:
        """Ask until that is so."""
        found = Asking()
        parts = urlsplit(self.address)
        with create_connection((parts.hostname, parts.port)) as connection:
            while not ended():
                asked = next(self._requests)
                began = time.perf_counter()
                connection.sendall(asked)
                found.failed += answered(connection) != 200
                found.seconds.append(time.perf_counter() - began)
        return found


@contextmanager
def _rebuilding(admin: str, reader: str) -> Iterator[threading.Event]:
    """Have everything built again, by the admin API; the event says that the reader serves it.

    Raises:
        RuntimeError: it was refused, it failed, or it does not come to its end.
    """
    done = threading.Event()
    wrong: list[BaseException] = []

    def rebuild() -> None:
        try:
            with httpx.Client(base_url=f"{admin}/api/admin/", trust_env=False, timeout=60) as api:
                token = {"X-CSRF-Token": api.get("me").raise_for_status().json()["csrf"]}
                asked = {"components": [COMPONENT], "full": True, "reason": "benchmark"}
                begun = api.post("rebuilds", json=asked, headers=token).raise_for_status().json()
                ended = _awaited(lambda: _ended(api, begun["id"]))
                if ended["state"] == "complete":
                    _awaited(lambda: _release_of(reader) >= ended["release"])
                else:
                    wrong.append(RuntimeError(f"the rebuild failed: {ended['error']}"))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            wrong.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        yield done
    finally:
        thread.join()
    if wrong:
        raise wrong[0]


def _ended(api: httpx.Client, rebuild: str) -> dict[str, Any] | None:
    """The rebuild, if it has come to its end."""
    found: dict[str, Any] = api.get(f"rebuilds/{rebuild}").raise_for_status().json()
    return found if found["state"] in ("complete", "failed") else None


def _release_of(reader: str) -> int:
    """The release that a reader has worked through."""
    return int(httpx.get(f"{reader}/v1/state", trust_env=False).json()["release"])


def _awaited(look: Callable[[], T | None]) -> T:
    """What ``look`` gives, as soon as it gives something.

    Raises:
        TimeoutError: it gives nothing.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError("a rebuild does not come to its end")
        time.sleep(_LOOK_SECONDS)
    return found


def _until(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _fill(there: Instances, vectors: Vectors, say: Say) -> None:
    """Commit all of them in one batch."""
    with there.producer.batch(COLLECTION) as batch:
        for start in range(0, len(vectors), _AT_ONCE):
            say(f"handing over {start} of {len(vectors)} vectors")
            rows = range(start, min(start + _AT_ONCE, len(vectors)))
            batch.upsert([entry_id(row) for row in rows], vectors[start : start + _AT_ONCE])


def _tables(lists: int, port: int) -> str:
    """The settings of an installation with one index that takes a while to build."""
    return f"""
[log]
level = "error"
[admin]
port = {port}
[collections.{COLLECTION}]
dimension = {DIMENSION}
metric = "l2"
[components.{COMPONENT}]
kind = "vector_index"
from = "{COLLECTION}"
index = "IVF{lists},Flat"
nprobe = 16
"""


PROGRAM = Program(name="admin", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
