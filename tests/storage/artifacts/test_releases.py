"""Committing a release: one winner per number, whole or not at all, whoever is killed when."""

import contextlib
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    ReleaseExistsError,
    VersionUnreadableError,
)
from tests.storage.artifacts.samples import make_release, make_version


def test_a_committed_release_is_the_newest(store: ArtifactStore) -> None:
    assert store.newest_release() is None
    first = make_release(store, voyager=make_version(store, "voyager", b"1"))
    second = make_release(store, voyager=make_version(store, "voyager", b"2"))
    assert (first.number, second.number) == (1, 2)
    assert first.intact
    assert store.newest_release() == second == store.release(2)
    assert store.release(1) == first
    path = store.root / "releases" / "00000002.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert list(store.staging.glob("*.tmp")) == []


def test_a_number_that_is_taken_names_the_next_free_one(store: ArtifactStore) -> None:
    version = make_version(store, "voyager", b"1")
    kept = make_release(store, voyager=version)
    with pytest.raises(ReleaseExistsError) as caught:
        make_release(store, 1, voyager=version)
    assert caught.value.next_number == 2
    assert store.newest_release() == kept


def test_a_publisher_that_slept_cannot_take_a_number_whose_release_was_removed(
    store: ArtifactStore,
) -> None:
    version = make_version(store, "voyager", b"1")
    for _ in range(3):
        make_release(store, voyager=version)
    (store.root / "releases" / "00000002.json").unlink()
    with pytest.raises(ReleaseExistsError):
        make_release(store, 2, voyager=version)


def test_what_was_made_from_an_older_release_cannot_undo_a_newer_one(store: ArtifactStore) -> None:
    old, new = (make_version(store, "voyager", name) for name in (b"old", b"new"))
    first = make_release(store, voyager=old)
    make_release(store, voyager=new)
    with pytest.raises(ReleaseExistsError):
        store.commit_release(first.model_copy(update={"number": 3, "previous": 1}))
    assert store.next_number() == 3


def test_numbers_have_no_gaps(store: ArtifactStore) -> None:
    version = make_version(store, "voyager", b"1")
    with pytest.raises(ReleaseExistsError):
        make_release(store, 7, voyager=version)


def test_a_release_cannot_bring_what_was_not_stored(store: ArtifactStore) -> None:
    with pytest.raises(VersionUnreadableError):
        make_release(store, voyager="a" * 64)
    version = make_version(store, "voyager", b"whole")
    (path,) = store.open_version("voyager", version).files.values()
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    with pytest.raises(BlobCorruptError):
        make_release(store, voyager=version)
    assert store.newest_release() is None


def test_a_corrupt_component_does_not_hold_up_the_others(store: ArtifactStore) -> None:
    corrupt = make_version(store, "clap", b"whole")
    make_release(store, clap=corrupt)
    (path,) = store.open_version("clap", corrupt).files.values()
    path.unlink()
    second = make_release(store, clap=corrupt, voyager=make_version(store, "voyager", b"1"))
    assert store.newest_release() == second


def _race(root: Path, version: str, start: Any, results: Any, me: int) -> None:
    store = ArtifactStore(root)
    won = []
    for number in range(1, 21):
        start.wait()
        with contextlib.suppress(ReleaseExistsError):
            make_release(store, number, voyager=version)
            won.append(number)
    results.put((me, won))


@pytest.mark.parametrize("processes", [2, 8])
def test_of_many_processes_that_race_for_a_number_exactly_one_wins(
    store: ArtifactStore, processes: int
) -> None:
    version = make_version(store, "voyager", b"1")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=_race, args=(store.root, version, start, results, me))
        for me in range(processes)
    ]
    for child in children:
        child.start()
    won = [number for _ in children for number in results.get()[1]]
    for child in children:
        child.join()
    assert sorted(won) == list(range(1, 21))
    assert store.newest_release() == store.release(20)


CALLS = ("open", "fsync", "fchmod", "link", "unlink", "replace", "mkdir", "write")


def _killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run ``act`` in a child that kills itself at its ``step``-th call; whether it got that far.

    Every call counts twice: the kill comes before it or after it.
    """
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child never comes back
        steps = iter(range(step + 1))

        def maybe_die() -> None:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                maybe_die()
                result = call(*args, **kwargs)
                maybe_die()
                return result

            return wrapped

        try:
            for name in CALLS:
                setattr(os, name, dying(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _kills(act: Callable[[], object]) -> Iterator[int]:
    """Kill ``act`` at its first call, its second, … until it ends before it is killed."""
    step = 0
    while _killed_at(step, act):
        yield step
        step += 1


def test_a_kill_at_any_point_of_a_commit_leaves_a_whole_release_or_none(
    store: ArtifactStore,
) -> None:
    version = make_version(store, "voyager", b"1")
    seen = set()
    for step in _kills(lambda: make_release(store, voyager=version)):
        newest = store.newest_release()
        assert store.broken_releases == {}, step
        assert newest is None or newest.components == {"voyager": version}
        seen.add(newest is None)
        # The number is not blocked, and nobody waits for the lock of the dead.
        make_release(store, voyager=version)
    assert seen == {True, False}
    assert step > 10


def test_a_kill_at_any_point_of_storing_leaves_nothing_that_is_half(store: ArtifactStore) -> None:
    steps = 0
    for step in _kills(lambda: make_version(store, "voyager", b"0123456789", b"abc")):
        steps = step
        for path in store.root.glob("blobs/sha256/*/*"):
            assert path.read_bytes() in (b"0123456789", b"abc")
        for path in store.root.glob("versions/voyager/*"):
            store.open_version("voyager", path.stem)
        for path in (*store.root.glob("blobs/sha256/*/*"), *store.root.glob("versions/*/*")):
            path.unlink()
    assert steps > 20
