"""F11 on a real vector index, whose files are mapped, under ``indexrelay up``.

A truth is kept beside it: what exact search finds among the entries of each generation. Every
answer is held against that of the version which it names. Wrong ones are allowed for as long as it
takes to find the damage, and none after that; a reader that touches what is cut off dies, and has
to be back on the newest whole version.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.bench import Bench
from faults.damages import DAMAGES, Damage
from faults.processes import Process
from faults.questions import COMPONENT, Asker, Truth
from faults.recorder import COLLECTION
from faults.rows import Row
from faults.wholeness import blob_files, is_whole, manifest_file, release_files
from indexrelay.schemas.messages import LoadOutcome, ReaderState

READER = "reader-1"
BASE_ENTRIES, MORE_ENTRIES = 20_000, 200
"""So much that a map has many pages, and so little more that a build makes a delta."""
FOUND_SECONDS = 4.0
"""A look of the scrub, a wait of the reloading thread, and a busy machine."""
MENDED_SECONDS = 45.0
"""A full build; and where the reader died more than once, the supervisor's longer pause."""


def run(program: Path, row: Row, runs: int) -> None:
    """Each run damages a third of the files, each in another way; 18 damage all in all ways."""
    index = {"kind": "vector_index", "from": [COLLECTION], "index": "Flat"}
    for number in range(runs):
        with Bench(program, components={COMPONENT: index}) as bench, _up(bench):
            truth = Truth()
            truth.commit(bench, BASE_ENTRIES)
            bench.wait(lambda: _is_served(bench), seconds=90)
            _take_down(bench, truth)
            with Asker(bench.settings.data_dir / "sockets" / f"{READER}.sock", truth) as asker:
                _every_third_file(bench, row, truth, asker, number)


def _every_third_file(bench: Bench, row: Row, truth: Truth, asker: Asker, number: int) -> None:
    _release_more(bench, truth)
    damages = tuple(DAMAGES.items())
    for turn, label in enumerate(list(_files(bench))[number % 3 :: 3], start=number // 3):
        name, damage = damages[turn % len(damages)]
        before = turn // len(damages) % 2 == 1
        with row.run(f"{label} {name} {'before' if before else 'mapped'}, run {number}"):
            pid = _state(bench).pid
            if before:
                os.kill(pid, signal.SIGSTOP)
            try:
                _release_more(bench, truth, served=not before)
                said = _once(bench, row, truth, asker, label, damage, pid, kill=before)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            row.figures.append(f"{label} {name} {'before' if before else 'mapped'}: {said}")


def _release_more(bench: Bench, truth: Truth, *, served: bool = True) -> None:
    """Commit some entries, so that the newest release has a base and a delta."""
    generation = truth.commit(bench, MORE_ENTRIES)
    bench.wait(lambda: _covers(bench) == generation and is_whole(bench.store))
    if served:
        bench.wait(lambda: _is_served(bench))
    _take_down(bench, truth)


def _once(
    bench: Bench,
    row: Row,
    truth: Truth,
    asker: Asker,
    label: str,
    damage: Damage,
    pid: int,
    *,
    kill: bool,
) -> str:
    """What came of it, in figures."""
    first = len(asker.answers)
    damage(_files(bench)[label])
    damaged_at = time.monotonic()
    if kill:
        os.kill(pid, signal.SIGKILL)  # a reader that starts has no last good version
    # An answer of the newest version: a query on the one before may still end the reader.
    bench.wait(lambda: is_whole(bench.store) and _is_served(bench) and _answers(bench, asker), 90)
    mended_at = time.monotonic()
    _take_down(bench, truth)
    bench.wait(lambda: _answered_since(asker, mended_at) >= len(truth.queries))
    answers = asker.answers[first:]
    wrong = [each.at for each in answers if each.ids and not truth.is_right(each)]
    silent = [each.at for each in answers if not each.ids]
    latest = max([each - damaged_at for each in wrong], default=0.0)
    died = not kill and _state(bench).pid != pid
    assert not (kill and wrong), f"{len(wrong)} wrong answers from what was never whole"
    assert latest <= FOUND_SECONDS, f"a wrong answer {latest:.1f} s after the damage"
    assert all(at <= mended_at for at in silent), "queries fail although all is mended"
    row.recovered(mended_at - damaged_at, within=MENDED_SECONDS)
    return (
        f"{'died, ' if died else ''}{len(answers)} answers, {len(silent)} missing, "
        f"{len(wrong)} wrong, the last after {latest:.1f} s; mended after "
        f"{mended_at - damaged_at:.1f} s"
    )


def _answers(bench: Bench, asker: Asker) -> bool:
    newest = bench.store.newest_release()
    return newest is not None and asker.answers[-1].version == newest.components[COMPONENT]


def _answered_since(asker: Asker, moment: float) -> int:
    return sum(1 for each in asker.answers[-200:] if each.at > moment)


def _files(bench: Bench) -> dict[str, Path]:
    """Every file of the newest release, by what it is."""
    newest = bench.store.newest_release()
    assert newest is not None
    version = newest.components[COMPONENT]
    release, copy = release_files(bench.store, newest.number)
    manifest = manifest_file(bench.store, COMPONENT, version)
    blobs = blob_files(bench.store, COMPONENT, version)
    return {**blobs, "manifest": manifest, "release": release, "copy": copy}


def _take_down(bench: Bench, truth: Truth) -> None:
    """Remember what every version covers."""
    for number in range(1, bench.store.next_number()):
        version = bench.store.release(number).components[COMPONENT]
        if version not in truth.generations:
            manifest = bench.store.version(COMPONENT, version)
            truth.generations[version] = manifest.covers[COLLECTION]


def _covers(bench: Bench) -> int:
    newest = bench.store.newest_release()
    assert newest is not None
    return bench.store.version(COMPONENT, newest.components[COMPONENT]).covers[COLLECTION]


def _state(bench: Bench) -> ReaderState:
    found: list[ReaderState] = []

    def there() -> bool:
        found[:] = [state for name, state in bench.states().items() if name == READER]
        return bool(found)

    bench.wait(there)
    return found[0]


def _is_served(bench: Bench) -> bool:
    """Whether the reader serves the newest release, and that covers everything."""
    newest = bench.store.newest_release()
    state = bench.states().get(READER)
    if newest is None or state is None or COMPONENT not in state.components:
        return False
    component = state.components[COMPONENT]
    generation = bench.catalog.collections.get(COLLECTION).generation
    return (
        state.ready
        and component.outcome is not LoadOutcome.FAILED
        and component.version == newest.components[COMPONENT]
        and component.covers[COLLECTION] == generation
    )


@contextmanager
def _up(bench: Bench) -> Iterator[None]:
    """Everything but the server, as a person starts it; ended as a person ends it."""
    up = Process(
        "up",
        "indexrelay.console.main",
        ["up", "--readers", "1", "--config", bench.config],
        log=bench.folder / "logs" / "up.log",
        environ={},
    )
    up.start()
    try:
        yield
    finally:
        up.send(signal.SIGTERM)
        try:
            assert up.wait() == 0
        finally:
            up.kill()
