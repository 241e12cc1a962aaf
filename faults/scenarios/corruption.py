"""F11: each file of a release is cut, changed or removed, before it is loaded and while it serves.

Before: it is never loaded, the last good version serves (also in a reader that starts), and it is
built or written anew. Afterwards: the scrub finds it. Here the readers keep what they loaded in
memory, and the checker proves what they served; `corrupting_maps` does the same to what is mapped.
"""

import signal
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from faults.bench import Bench
from faults.damages import DAMAGES, Damage
from faults.recorder import COLLECTION
from faults.rows import Row
from faults.scenarios import corrupting_maps
from faults.wholeness import blob_files, is_whole, manifest_file, release_files
from indexrelay.schemas.messages import LoadOutcome
from indexrelay.schemas.versions import Release

MENDED_SECONDS = 20.0
"""A look for touched files, a reconcile, a build and a reload, and before that the start of a
reader's process, which is most of it on a busy machine."""
START_SECONDS = 90.0
CASES = tuple(product(DAMAGES.items(), ("before", "served")))
FILES: Mapping[str, Callable[[Bench, Release], Path]] = {
    "blob": lambda bench, newest: _blob(bench, newest, "left"),
    "manifest of left": lambda bench, newest: _manifest(bench, newest, "left"),
    "manifest of right": lambda bench, newest: _manifest(bench, newest, "right"),
    "release": lambda bench, newest: release_files(bench.store, newest.number)[0],
    "copy": lambda bench, newest: release_files(bench.store, newest.number)[1],
}


def run(program: Path, row: Row, runs: int) -> None:
    """Each run damages every file once; six of them do so in every way.

    Of the maps' files, of which there are more, a run takes a third: 18 do so in every way."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle(START_SECONDS)
        for number in range(runs):
            for offset, file in enumerate(FILES):
                (name, damage), moment = CASES[(number + offset) % len(CASES)]
                with row.run(f"{file} {name} {moment}, run {number}"):
                    _once(bench, row, file, damage, before=moment == "before")
        row.broke(bench.violations())
    corrupting_maps.run(program, row, runs)


def _once(bench: Bench, row: Row, file: str, damage: Damage, *, before: bool) -> None:
    readers = [bench.processes[name] for name in ("reader-1", "reader-2")]
    if before:
        readers[0].send(signal.SIGSTOP)  # it wakes up with a last good version
        readers[1].kill()  # it starts without
    try:
        generation = bench.commit().generation
        bench.wait(lambda: _released(bench) == generation and is_whole(bench.store))
        if not before:
            bench.settle()
        bench.recorder.watch()
        newest = bench.store.newest_release()
        assert newest is not None
        path = FILES[file](bench, newest)
        bench.recorder.damaged.add(path)
        damage(path)
    finally:
        if before:
            readers[0].send(signal.SIGCONT)
            readers[1].start()
    damaged_at = time.monotonic()
    bench.wait(lambda: is_whole(bench.store) and bench.settled() and _all_applied(bench))
    row.recovered(time.monotonic() - damaged_at, within=MENDED_SECONDS)


def _released(bench: Bench) -> int:
    """The generation that the newest release covers with everything."""
    newest = bench.store.newest_release()
    assert newest is not None
    return min(
        bench.store.version(name, version).covers[COLLECTION]
        for name, version in newest.components.items()
    )


def _all_applied(bench: Bench) -> bool:
    return all(
        component.version == component.wanted and component.outcome is not LoadOutcome.FAILED
        for state in bench.states().values()
        for component in state.components.values()
    )


def _blob(bench: Bench, newest: Release, component: str) -> Path:
    [path] = blob_files(bench.store, component, newest.components[component]).values()
    return path


def _manifest(bench: Bench, newest: Release, component: str) -> Path:
    return manifest_file(bench.store, component, newest.components[component])
