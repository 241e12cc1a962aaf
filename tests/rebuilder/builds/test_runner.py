"""Builds in real child processes, and every way in which one can end."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from indexrelay.rebuilder import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildSession,
    BuildTimedOutError,
)
from indexrelay.rebuilder.builds import BuildRequest, Progress
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.messages import BuildOutcome, ComponentResult
from indexrelay.schemas.progress import BuildStep
from indexrelay.schemas.settings import ComponentDefinition
from tests.rebuilder.conftest import Bench, MakeBench, behaving


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a", "b", "c")
    return bench


@pytest.fixture(scope="module")
def runner() -> Iterator[ForkingRunner]:
    """One for all tests that leave its build server as they found it."""
    runner = ForkingRunner(preload=["tests.rebuilder.kinds"], threads=1)
    yield runner
    runner.stop()


@pytest.fixture
def own_runner() -> Iterator[ForkingRunner]:
    """One that a test may stop, and whose build server it may kill."""
    runner = ForkingRunner(preload=["tests.rebuilder.kinds"], threads=1)
    yield runner
    runner.stop()


def build(
    bench: Bench,
    runner: ForkingRunner,
    behaviour: str = "fine",
    *,
    name: str = "index",
    timeout: float = 60,
    memory: int | None = None,
    progress: Progress = lambda _step, _share: None,
    folder: str | None = None,
    catalog_url: str | None = None,
) -> ComponentResult:
    with runner.session([name]) as session:
        return build_in(
            session,
            bench,
            name,
            behaviour,
            timeout=timeout,
            memory=memory,
            progress=progress,
            folder=folder,
            catalog_url=catalog_url,
        )


def build_in(
    session: BuildSession,
    bench: Bench,
    name: str,
    behaviour: str = "fine",
    *,
    timeout: float = 60,
    memory: int | None = None,
    progress: Progress = lambda _step, _share: None,
    folder: str | None = None,
    catalog_url: str | None = None,
) -> ComponentResult:
    workdir = bench.settings.artifacts_dir / (folder or f"work-{name}-{behaviour}")
    workdir.mkdir()
    request = BuildRequest(
        component=name,
        definition=ComponentDefinition.model_validate(behaving("tracks", behaviour=behaviour)),
        collections=bench.settings.collections,
        parents={},
        previous=None,
        catalog_url=SecretStr(catalog_url or bench.settings.catalog_url),
        artifacts_dir=bench.settings.artifacts_dir,
        workdir=workdir,
        threads=1,
    )
    return session.run(request, timeout_seconds=timeout, memory_bytes=memory, progress=progress)


def test_a_child_builds_from_the_catalog_into_the_store(
    bench: Bench, runner: ForkingRunner
) -> None:
    seen: list[tuple[BuildStep, float | None]] = []
    result = build(bench, runner, progress=lambda *so_far: seen.append(so_far))
    assert result.outcome is BuildOutcome.REBUILT, result.error
    assert (result.entries, result.covers) == (3, {"tracks": 1})
    assert result.version is not None
    assert bench.store.version("index", result.version).entries == 3
    assert seen == [
        (BuildStep.READING, None),
        (BuildStep.BUILDING, None),
        (BuildStep.BUILDING, 0.5),
        (BuildStep.VERIFYING, None),
        (BuildStep.STORING, None),
    ]


def test_builds_of_one_session_read_the_same_snapshot_in_one_process(
    bench: Bench, runner: ForkingRunner
) -> None:
    with runner.session(["one", "skipped", "other"]) as session:
        assert build_in(session, bench, "one").covers == {"tracks": 1}
        assert len(children_of(runner.server_pid)) == 1
        bench.commit("after one")
        assert build_in(session, bench, "other").covers == {"tracks": 1}
        # With the last one the process has ended, and its snapshots.
        assert children_of(runner.server_pid) == []


def test_a_session_goes_on_in_another_process_when_a_build_kills_its_own(
    bench: Bench, runner: ForkingRunner
) -> None:
    with runner.session(["a", "b", "c", "d"]) as session:
        assert build_in(session, bench, "a").covers == {"tracks": 1}
        bench.commit("d")
        with pytest.raises(BuildDiedError, match="SIGSEGV"):
            build_in(session, bench, "b", "dies")
        assert build_in(session, bench, "c").covers == {"tracks": 2}
        with pytest.raises(BuildTimedOutError):
            build_in(session, bench, "d", "hangs", timeout=0.3)
    assert children_of(runner.server_pid) == []


def test_each_build_of_a_session_has_limits_of_its_own(bench: Bench, runner: ForkingRunner) -> None:
    with runner.session(["eats", "free", "small"]) as session:
        eaten = build_in(session, bench, "eats", "eats", memory=200_000_000)
        assert str(eaten.error).startswith("ran out of memory")
        free = build_in(session, bench, "free", "asks_for_the_limit")
        assert str(free.error).startswith("ValueError: no limit")
        small = build_in(session, bench, "small", memory=20_000_000)
        assert small.outcome is BuildOutcome.REBUILT, small.error


def test_a_build_tells_what_it_used_and_not_what_the_one_before_it_did(
    bench: Bench, runner: ForkingRunner
) -> None:
    with runner.session(["eats", "small"]) as session:
        eaten = build_in(session, bench, "eats", "eats", memory=200_000_000)
        small = build_in(session, bench, "small")
    assert small.cpu_seconds > 0
    assert 5_000_000 < small.peak_memory_bytes < eaten.peak_memory_bytes - 50_000_000


def test_a_transient_failure_is_followed_by_a_build_that_reads_again(
    bench: Bench, runner: ForkingRunner
) -> None:
    with runner.session(["a", "b"]) as session:
        assert build_in(session, bench, "a", "full").transient
        bench.commit("d")
        assert build_in(session, bench, "b").covers == {"tracks": 2}


def test_a_build_that_raises_is_a_result_in_its_own_words(
    bench: Bench, runner: ForkingRunner
) -> None:
    result = build(bench, runner, "raises")
    assert result.outcome is BuildOutcome.FAILED
    assert result.error is not None
    assert result.error.startswith("ValueError: the build raised (tests/rebuilder/kinds.py:")


def test_a_build_that_exits_fails_and_the_next_one_runs(
    bench: Bench, runner: ForkingRunner
) -> None:
    for behaviour, said in (("exits", "exit code 7"), ("content_exits", "exit code 0")):
        with pytest.raises(BuildDiedError, match=said):
            build(bench, runner, behaviour)
    assert build(bench, runner).outcome is BuildOutcome.REBUILT


def test_a_build_that_crashes_names_the_signal(bench: Bench, runner: ForkingRunner) -> None:
    with pytest.raises(BuildDiedError, match="SIGSEGV"):
        build(bench, runner, "dies")


@pytest.mark.parametrize(
    ("behaviour", "words", "transient"),
    [
        ("killed", "SIGKILL, from outside", True),
        ("dies", "SIGSEGV", False),
        ("bus_error", "SIGBUS", False),
        ("exits", "exit code 7", False),
    ],
)
def test_a_death_from_outside_is_transient(
    bench: Bench, runner: ForkingRunner, behaviour: str, words: str, *, transient: bool
) -> None:
    """The kernel sends SIGKILL when memory runs out; a full volume is in `test_full_volume`."""
    with pytest.raises(BuildDiedError, match=words) as caught:
        build(bench, runner, behaviour)
    assert caught.value.transient is transient


def test_a_build_that_hangs_is_killed_at_its_time_limit(
    bench: Bench, runner: ForkingRunner
) -> None:
    with pytest.raises(BuildTimedOutError, match=r"longer than 0\.5 s"):
        build(bench, runner, "hangs", timeout=0.5)
    assert children_of(runner.server_pid) == []


def test_a_memory_limit_does_not_count_what_was_loaded_before(
    bench: Bench, runner: ForkingRunner
) -> None:
    assert build(bench, runner, memory=20_000_000).outcome is BuildOutcome.REBUILT


def test_stopping_ends_a_running_build_and_its_processes(
    bench: Bench, own_runner: ForkingRunner
) -> None:
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            build(bench, own_runner, "hangs")
        except BuildCancelledError as error:
            errors.append(error)

    server = started(own_runner)
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: children_of(server))
    [child] = children_of(server)
    own_runner.stop()
    thread.join(10)
    assert len(errors) == 1
    assert not alive(child)
    assert not alive(server)


def test_the_caller_of_a_cancelled_build_may_remove_its_files(
    bench: Bench, own_runner: ForkingRunner
) -> None:
    outlived: list[bool] = []

    def attempt() -> None:
        with pytest.raises(BuildCancelledError):
            build(bench, own_runner, "hangs")
        outlived.append(alive(server))

    server = started(own_runner)
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: children_of(server))
    own_runner.stop()
    thread.join(10)
    assert outlived == [False]


def test_after_stopping_nothing_is_built(bench: Bench, own_runner: ForkingRunner) -> None:
    own_runner.stop()
    with pytest.raises(BuildCancelledError):
        build(bench, own_runner)


def test_stopping_is_safe_twice_and_before_start(own_runner: ForkingRunner) -> None:
    own_runner.stop()
    own_runner.stop()


def test_a_build_server_that_was_killed_fails_its_builds_and_is_started_again(
    bench: Bench, own_runner: ForkingRunner
) -> None:
    outcomes: list[object] = []

    def attempt() -> None:
        try:
            build(bench, own_runner, "hangs")
        except BuildDiedError as error:
            outcomes.append(error)

    server = started(own_runner)
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: children_of(server))
    [child] = children_of(server)
    os.kill(server, 9)
    thread.join(10)
    assert "build server died" in str(outcomes[0])
    wait_until(lambda: not alive(child))
    assert build(bench, own_runner).outcome is BuildOutcome.REBUILT
    assert own_runner.server_pid != server


def test_builds_run_side_by_side(bench: Bench, own_runner: ForkingRunner) -> None:
    """The second build ends while the first still hangs."""

    def hang() -> None:
        with pytest.raises(BuildCancelledError):
            build(bench, own_runner, "hangs")

    thread = threading.Thread(target=hang)
    thread.start()
    wait_until(lambda: children_of(own_runner.server_pid))
    assert build(bench, own_runner, name="other").outcome is BuildOutcome.REBUILT
    own_runner.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_runner_that_was_stopped_starts_no_server(own_runner: ForkingRunner) -> None:
    own_runner.stop()
    own_runner.start()
    assert own_runner.server_pid is None


def test_builds_do_not_mix_up_their_results_on_a_host_with_dots_in_its_name(
    bench: Bench, runner: ForkingRunner
) -> None:
    """Their folders differ after the last dot only."""
    errors: list[str] = []

    def build_often(name: str) -> None:
        for turn in range(5):
            result = build(bench, runner, name=name, folder=f"host.internal~{name}~{turn}")
            assert result.version is not None
            bench.store.version(name, result.version)  # raises if it is the other one's

    def attempt(name: str) -> None:
        try:
            build_often(name)
        except (AssertionError, IndexRelayError, OSError) as error:
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=attempt, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_a_child_that_can_leave_no_result_says_why(bench: Bench, runner: ForkingRunner) -> None:
    with pytest.raises(BuildDiedError, match=r"FileNotFoundError.*/proc/nowhere") as caught:
        build(bench, runner, catalog_url="sqlite:////proc/nowhere/catalog.db")
    assert not caught.value.transient


def test_a_child_without_room_for_its_result_fails_with_a_transient_cause(
    bench: Bench, runner: ForkingRunner
) -> None:
    """On a full volume the result is what cannot be written, whatever the build has done."""
    (bench.settings.artifacts_dir / "cramped.result").symlink_to("/dev/full")
    with pytest.raises(BuildDiedError, match="No space left on device") as caught:
        build(bench, runner, folder="cramped")
    assert caught.value.transient


def test_a_module_that_cannot_be_imported_fails_no_other_kind(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising_kind.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    runner = ForkingRunner(preload=["raising_kind"], threads=1)
    try:
        assert build(bench, runner).outcome is BuildOutcome.REBUILT
    finally:
        runner.stop()


def test_progress_that_cannot_be_taken_ends_no_build(bench: Bench, runner: ForkingRunner) -> None:
    def refuse(step: BuildStep, share: float | None) -> None:
        raise BrokenPipeError(f"nobody reads {step} {share}")

    assert build(bench, runner, progress=refuse).outcome is BuildOutcome.REBUILT


def test_progress_may_be_any_number(bench: Bench, runner: ForkingRunner) -> None:
    shares: list[float | None] = []
    result = build(
        bench, runner, "reports_numpy", progress=lambda _step, share: shares.append(share)
    )
    assert (result.outcome, [each for each in shares if each]) == (
        BuildOutcome.REBUILT,
        [0.25, 0.5],
    )


def test_what_a_build_leaves_running_is_ended_with_it(bench: Bench, runner: ForkingRunner) -> None:
    build(bench, runner, "leaves_a_process", folder="leaving")
    left = int((bench.settings.artifacts_dir / "leaving" / "left.pid").read_text())
    wait_until(lambda: not alive(left))


def test_what_a_build_started_ends_with_its_killed_build_server(
    bench: Bench, own_runner: ForkingRunner
) -> None:
    """The kernel ends the build itself; its own processes are in its group, and end with that."""

    def attempt() -> None:
        with pytest.raises(BuildDiedError, match="build server died"):
            build(bench, own_runner, "waits_for_a_process")

    server = started(own_runner)
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: children_of(server))
    [child] = children_of(server)
    wait_until(lambda: children_of(child))
    [grandchild] = children_of(child)
    os.kill(server, signal.SIGKILL)
    thread.join(10)
    assert not thread.is_alive()
    wait_until(lambda: not alive(child) and not alive(grandchild))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_service_is_left_to_the_rebuilder(
    bench: Bench, own_runner: ForkingRunner, number: signal.Signals
) -> None:
    """A service manager sends it to every process at once; builds are not to be blamed for it."""
    server = started(own_runner)
    outcomes: list[Exception] = []

    def attempt() -> None:
        try:
            build(bench, own_runner, "hangs")
        except BuildError as error:
            outcomes.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    wait_until(lambda: children_of(server))
    for pid in [server, *children_of(server)]:
        os.kill(pid, number)
    assert build(bench, own_runner, name="other").outcome is BuildOutcome.REBUILT
    assert outcomes == []
    own_runner.stop()
    thread.join(10)
    assert [type(error) for error in outcomes] == [BuildCancelledError]


def test_builds_leave_no_descriptors_and_no_processes(bench: Bench, runner: ForkingRunner) -> None:
    build(bench, runner, name="first")
    before = [descriptors_of(os.getpid()), descriptors_of(runner.server_pid)]
    for turn in range(20):
        build(bench, runner, name=f"index_{turn}")
    assert [descriptors_of(os.getpid()), descriptors_of(runner.server_pid)] == before
    assert children_of(runner.server_pid) == []


def descriptors_of(pid: int | None) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def started(runner: ForkingRunner) -> int:
    """The process id of its build server."""
    runner.start()
    assert runner.server_pid is not None
    return runner.server_pid


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int | None) -> list[int]:
    if pid is None:
        return []
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Look again and again; what is waited for happens in another process."""
    ticker = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        ticker.wait(0.01)
    raise AssertionError(f"not within {seconds} s")
