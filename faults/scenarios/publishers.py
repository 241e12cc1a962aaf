"""F19: eight publishers commit at once, and some are killed in the middle: one history comes of it.

No server has a part in it: publishers meet in files alone. Each has built some of the components,
each to a generation of its own, and all have built one that is held. In every second round one of
them dies at a failpoint and one at any moment; started again they publish, late, what they had
built. Somebody reads every release file all the time.
"""

import json
import random
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.checker import check
from faults.history import History, Released, Version, content_digest
from faults.kinds import FILE
from faults.processes import Process
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.schemas.failpoints import VARIABLE
from indexrelay.storage.artifacts import ArtifactStore
from tests.streams.polling import eventually

PUBLISHERS = 8
HELD = "held"
FREE = tuple(f"part_{number}" for number in range(1, 7))
_BUILT_BY_EACH = 3
_POINTS = ("release.before_link", "file.before_link", "file.after_link", "release.after_link")
_IN_THE_MIDDLE_SECONDS = 0.05
"""Less than eight publishers take: one that dies within it dies in the middle."""
_RECOVERED_SECONDS = 5.0
"""Until all who live have committed, from the moment when they began: nobody waits for the dead."""


@dataclass(kw_only=True)
class _Scene:
    """One store, and those who publish into it."""

    store: ArtifactStore
    tokens: Path
    publishers: Sequence[Process]
    watcher: Process
    draw: random.Random
    together: ThreadPoolExecutor
    held: str = ""
    """The version that everybody has to leave where it is."""
    generation: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    """By component: the newest generation that was published."""
    committed: dict[int, str] = field(default_factory=dict)
    """By number: the digest of the release that a publisher claims to have committed."""
    late: int = 0
    """How many were killed and came back."""


def run(program: Path, row: Row, runs: int) -> None:
    """One round after the other on one store, and then what came of them all."""
    del program
    numbers = iter(range(runs))
    number = next(numbers, None)
    while number is not None:
        with _scene(random.Random(f"{runs} {number}")) as scene:
            broken = len(row.broken)
            while number is not None and len(row.broken) == broken:  # no second chance for a store
                point = _POINTS[number // 2 % len(_POINTS)] if number % 2 == 0 else None
                with row.run(f"round {number}, {point or 'nobody'} killed"):
                    _once(scene, row, point)
                number = next(numbers, None)
            if len(row.broken) == broken:
                _look_back(scene, row)


def _look_back(scene: _Scene, row: Row) -> None:
    saw = _ask(scene.watcher, {})
    row.broke(_violations(scene, saw))
    row.figures.append(
        f"{scene.store.next_number() - 1} releases by {PUBLISHERS} publishers, of whom "
        f"{scene.late} were killed on the way; looked at {saw['looks']} times"
    )


@contextmanager
def _scene(draw: random.Random) -> Iterator[_Scene]:
    with ExitStack() as stack:
        together = stack.enter_context(ThreadPoolExecutor(PUBLISHERS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ir-")))
        tokens, artifacts = folder / "tokens", folder / "artifacts"
        tokens.mkdir()
        armed = {point: {"do": "kill", "token": str(tokens / point)} for point in _POINTS}

        def start(name: str, role: str, *arguments: str, environ: Mapping[str, str]) -> Process:
            command = [role, artifacts, *arguments]
            log = folder / f"{name}.log"
            process = Process(name, "faults.roles", command, log=log, environ=dict(environ))
            stack.callback(process.kill)
            process.start()
            return process

        scene = _Scene(
            store=ArtifactStore(artifacts),
            tokens=tokens,
            publishers=[
                start(
                    f"publisher-{number}",
                    "publisher",
                    *FREE,
                    HELD,
                    environ={VARIABLE: json.dumps(armed)},
                )
                for number in range(PUBLISHERS)
            ],
            watcher=start("watcher", "watcher", environ={}),
            draw=draw,
            together=together,
        )
        _first_release(scene)
        yield scene


def _first_release(scene: _Scene) -> None:
    """Everything once, and from then on one component stays as it is."""
    first = scene.publishers[0]
    scene.generation = 1
    built = _ask(first, {"build": dict.fromkeys((*FREE, HELD), 1)})
    _heard(scene, [_ask(first, {"publish": built})])
    scene.store.hold(HELD, reason="asked for by a person")
    scene.newest = dict.fromkeys(FREE, 1)
    scene.held = built[HELD]


def _once(scene: _Scene, row: Row, point: str | None) -> None:
    brought = _build(scene)
    if point is not None:
        (scene.tokens / point).touch()
    started_at = time.monotonic()
    asked = [
        scene.together.submit(_ask, each.publisher, {"publish": each.versions}) for each in brought
    ]
    dead = [] if point is None else [_killed_at_any_moment(scene)]
    answers = [each.result() for each in asked]
    seconds = time.monotonic() - started_at
    dead += [
        each.publisher for each, answer in zip(brought, answers, strict=True) if answer is _DIED
    ]
    late = [each for each in brought if each.publisher in dead]
    before, everything = scene.newest, _newest(scene.newest, brought)
    scene.newest = everything
    _heard(scene, answers)
    served = _served(scene)
    for each in late:
        assert each.publisher.wait() == -signal.SIGKILL
        each.publisher.start()
    _heard(scene, [_ask(each.publisher, {"publish": each.versions}) for each in late])
    scene.late += len(late)
    assert point is None or not (scene.tokens / point).exists(), f"no publisher passed {point}"
    least = _newest(before, [each for each in brought if each not in late])
    for name, covered in served.items():
        assert least[name] <= covered <= everything[name], (
            f"{name} was at {covered}; published were {least[name]} to {everything[name]}"
        )
    assert _served(scene) == everything, "something newer is missing"
    if dead:
        row.recovered(seconds, within=_RECOVERED_SECONDS)


@dataclass(frozen=True)
class _Brought:
    """What one publisher has built, and will publish."""

    publisher: Process
    generation: int
    versions: Mapping[str, str]


def _build(scene: _Scene) -> list[_Brought]:
    """Everybody builds some of the components, each to a generation of its own."""
    generations = list(range(scene.generation + 1, scene.generation + PUBLISHERS + 1))
    scene.generation += PUBLISHERS
    scene.draw.shuffle(generations)
    questions = [
        {"build": dict.fromkeys((*scene.draw.sample(FREE, _BUILT_BY_EACH), HELD), generation)}
        for generation in generations
    ]
    built = scene.together.map(_ask, scene.publishers, questions)
    return [_Brought(*each) for each in zip(scene.publishers, generations, built, strict=True)]


def _killed_at_any_moment(scene: _Scene) -> Process:
    """Kill one while they are at it."""
    due = time.monotonic() + scene.draw.uniform(0, _IN_THE_MIDDLE_SECONDS)
    eventually(lambda: time.monotonic() >= due)
    victim = scene.draw.choice(scene.publishers)
    victim.send(signal.SIGKILL)
    return victim


_DIED = object()


def _ask(process: Process, question: object) -> Any:
    """The answer; `_DIED` when there was none."""
    try:
        answer = process.ask(json.dumps(question))
    except BrokenPipeError:  # it was dead already
        return _DIED
    return json.loads(answer) if answer.endswith("\n") else _DIED


def _heard(scene: _Scene, answers: Iterable[Any]) -> None:
    """Take down that a publisher committed a release, or that nothing of it was newer."""
    for answer in answers:
        if answer is _DIED or answer is None:
            continue
        number, digest = answer["number"], answer["digest"]
        assert number not in scene.committed, f"two publishers committed release {number}"
        scene.committed[number] = digest


def _newest(before: Mapping[str, int], brought: Iterable[_Brought]) -> dict[str, int]:
    """By component: the newest generation among these and what was there before them."""
    found = dict(before)
    for each in brought:
        for name in each.versions.keys() - {HELD}:
            found[name] = max(found[name], each.generation)
    return found


def _served(scene: _Scene) -> dict[str, int]:
    """By component: the generation that is released; and the held one is what it was."""
    newest = scene.store.newest_release()
    assert newest is not None
    assert newest.components[HELD] == scene.held, "the held component was replaced"
    assert set(newest.holds) == {HELD}, f"held is {', '.join(newest.holds) or 'nothing'}"
    return {
        name: scene.store.version(name, newest.components[name]).covers[COLLECTION] for name in FREE
    }


def _violations(scene: _Scene, saw: Mapping[str, Any]) -> list[str]:
    """What is wrong with the releases, taken together, and with what was seen of them."""
    releases = [scene.store.release(n) for n in range(1, scene.store.next_number())]
    seen = {int(number): frozenset(digests) for number, digests in saw["seen"].items()}
    history = History(
        components=(),
        versions=tuple(_versions(scene.store)),
        releases=tuple(
            Released(
                number=release.number,
                components=release.components,
                holds=frozenset(release.holds),
                digest=release.digest,
                seen=seen.get(release.number, frozenset()),
            )
            for release in releases
        ),
    )
    found = [*map(str, check(history)), *saw["wrong"]]
    found += [
        f"the watcher did not see release {each.number}"
        for each in releases
        if each.number not in seen
    ]
    found += [
        f"release {each.number} was made from {each.previous}"
        for each in releases
        if each.previous != each.number - 1
    ]
    digests = {each.number: each.digest for each in releases}
    return found + [
        f"release {number} is not what its publisher committed"
        for number, digest in scene.committed.items()
        if digests.get(number) != digest
    ]


def _versions(store: ArtifactStore) -> Iterator[Version]:
    for file in (store.root / "versions").glob("*/*.json"):
        manifest = store.version(file.parent.name, file.stem)
        entries = json.loads(store.blob(manifest.files[FILE]).read_bytes())
        yield Version(
            component=manifest.component,
            id=file.stem,
            covers=manifest.covers[COLLECTION],
            content=content_digest(entries),
            blob=manifest.files[FILE].digest,
        )
