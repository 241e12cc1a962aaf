"""What attacks over HTTP do to a reader service: ``python -m tests.security.measure_http``.

For each attack, on a service of its own: how long ``/health`` takes meanwhile, what memory grows to
and stays at, how many log lines a minute there are, and how many connections are left after the
time-outs. At the descriptor limit: whether a release still comes through. Last, how long searches
take without any attack. ``--python`` names the interpreter of another checkout, to compare.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np

from tests.security.attacks import ATTACKS, LARGEST, MANY_KEYS, answer_to
from tests.security.reader_service import DIMENSION, ROOT, Installation, Service

ENTRIES = 2000
PAYLOAD_BYTES = 2000
DESCRIPTORS = 256


@contextmanager
def beside(program: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own, so that what looks on and what attacks do not wait for each other.

    It says one line when it has begun, and ends with its stdin.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.communicate()


def attacker(name: str, service: Service) -> str:
    """Makes an attack, and holds it."""
    return (
        "import sys\nfrom contextlib import ExitStack\nfrom pathlib import Path\n"
        "from tests.security.attacks import ATTACKS, COUNTS, DEFAULT_COUNT\n"
        "from tests.security.reader_service import Service\n"
        f"service, count = Service(None, {service.port}, Path()), COUNTS.get({name!r})\n"
        "with ExitStack() as stack:\n"
        f"    ATTACKS[{name!r}](service, stack, count or DEFAULT_COUNT)\n"
        "    print('made', flush=True)\n    sys.stdin.read()\n"
    )


def watcher(service: Service) -> str:
    """Looks at health and memory all the time, and says in the end what it saw."""
    return (
        "import json, sys, threading\nfrom pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from tests.security.reader_service import Service\n"
        f"process = SimpleNamespace(pid={service.process.pid})\n"
        f"service, done = Service(process, {service.port}, Path()), threading.Event()\n"
        "print('begun', flush=True)\n"
        "threading.Thread(target=lambda: (sys.stdin.read(), done.set())).start()\n"
        "health, memory = [], []\n"
        "while not done.wait(0.05):\n"
        "    health.append(service.health_seconds(timeout=10))\n"
        "    memory.append(service.resident_bytes())\n"
        "print(json.dumps({'health': health, 'memory': memory}))\n"
    )


def measured(
    name: str, installation: Installation, *, seconds: float, python: str, descriptors: int | None
) -> dict[str, object]:
    """One attack, held for ``seconds``."""
    with installation.serving(python=python, descriptors=descriptors) as service:
        before = service.resident_bytes()
        calm = statistics.median(service.health_seconds() for _ in range(20))
        lines, began = service.log_lines(), time.monotonic()
        with beside(watcher(service)) as looking:
            with beside(attacker(name, service)):
                reloaded: float | None = None
                if descriptors is not None:
                    reloaded = released_in(installation, service, within=seconds)
                time.sleep(max(0.0, began + seconds - time.monotonic()))
                minutes = (time.monotonic() - began) / 60
                lines = service.log_lines() - lines
                left = service.descriptors()
            seen = json.loads(looking.communicate()[0])
        time.sleep(1)
        return {
            "attack": name + ("" if descriptors is None else f", {descriptors} descriptors"),
            "health_calm_ms": round(1000 * calm, 1),
            "health_median_ms": round(1000 * statistics.median(seen["health"]), 1),
            "health_worst_ms": round(1000 * max(seen["health"])),
            "memory_before_mb": round(before / 1e6),
            "memory_peak_mb": round(max(seen["memory"]) / 1e6),
            "memory_after_mb": round(service.resident_bytes() / 1e6),
            "log_lines_a_minute": round(lines / minutes),
            "descriptors_at_the_end": left,
            "release_served_after_s": reloaded,
        }


def released_in(installation: Installation, service: Service, *, within: float) -> float | None:
    """How long it took until a new release was served, by the log; ``None``: it was not."""
    number = installation.release(10)
    began = time.monotonic()
    while time.monotonic() < began + within:
        for line in service.log.read_bytes().splitlines():
            if b'"release.applied"' not in line:
                continue
            event = json.loads(line)
            if event["release"] == number and not event["failed"]:
                return round(time.monotonic() - began, 2)
        time.sleep(0.05)
    return None


def searches(installation: Installation, *, python: str) -> dict[str, object]:
    """Without an attack: one client after another answer, and four clients at once."""
    vectors = np.random.default_rng(5).normal(size=(500, DIMENSION)).tolist()
    with installation.serving(python=python) as service:
        url = f"http://127.0.0.1:{service.port}/v1/components/similar/search"

        def ask(taken: list[float], k: int) -> None:
            with httpx.Client(trust_env=False) as client:
                for vector in vectors:
                    began = time.perf_counter()
                    client.post(url, json={"vector": vector, "k": k}).raise_for_status()
                    taken.append(time.perf_counter() - began)

        ask([], 10)
        one: list[float] = []
        ask(one, 10)
        large: list[float] = []
        ask(large, 100)
        four: list[list[float]] = [[], [], [], []]
        threads = [threading.Thread(target=ask, args=(each, 10)) for each in four]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = 4 * len(vectors) / (time.perf_counter() - began)
    return {
        "searches": "one client, k=10",
        "median_ms": round(1000 * statistics.median(one), 2),
        "p99_ms": round(1000 * float(np.quantile(one, 0.99)), 2),
        "k=100_median_ms": round(1000 * statistics.median(large), 2),
        "four_clients_per_s": round(rate),
    }


def single_body(installation: Installation, *, python: str) -> dict[str, object]:
    """One body of 170,000 unknown keys, and one of the largest answer."""
    with installation.serving(python=python) as service:
        began = time.monotonic()
        status, answer = answer_to(service, MANY_KEYS)
        seconds = time.monotonic() - began
        _, largest = answer_to(service, LARGEST)
    return {
        "body": f"{len(MANY_KEYS)} bytes of unknown keys",
        "status": status,
        "answer_bytes": len(answer),
        "seconds": round(seconds, 3),
        "largest_answer_bytes": len(largest),
    }


def main() -> None:
    """Measure, one JSON object to a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [*ATTACKS, "body", "searches"]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        installation = Installation.made(Path(name), entries=ENTRIES, payload_bytes=PAYLOAD_BYTES)
        stack.callback(installation.pipeline.close)
        for each in names:
            rows = _rows(each, installation, given)
            sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
            sys.stdout.flush()


def _rows(
    name: str, installation: Installation, given: argparse.Namespace
) -> Iterator[dict[str, object]]:
    if name == "body":
        yield single_body(installation, python=given.python)
    elif name == "searches":
        yield searches(installation, python=given.python)
    else:
        for limit in (None, DESCRIPTORS) if name == "half_headers" else (None,):
            yield measured(
                name,
                installation,
                seconds=given.seconds,
                python=given.python,
                descriptors=limit,
            )


if __name__ == "__main__":
    main()
