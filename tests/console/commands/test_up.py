"""``indexrelay up`` and ``indexrelay demo``, as processes, and what they leave behind: nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.console.conftest import commit
from tests.fixtures.warm_process import WarmProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

WORDS = ("read", "write", "thread", "file", "socket", "path", "date", "archive")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "indexrelay.console.main", *arguments]


def installed(*arguments: str) -> list[str]:
    """As the script on PATH runs it, which does not look into the current folder."""
    return [sys.executable, "-P", *command(*arguments)[1:]]


def processes_of(mark: str) -> list[str]:
    """The command lines of living processes that name ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in line:
                found.append(line)
    return found


def eventually(condition: Callable[[], bool], *, seconds: float) -> None:
    """Look half of the time at most: who is looked at needs the processors, too."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    looked_at = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < deadline, "it did not happen in time"
        pause.wait(max(0.05, now - looked_at))
        looked_at = time.monotonic()


def answers(page: httpx.Client) -> bool:
    try:
        return page.get("/api/admin/health").is_success
    except httpx.TransportError:
        return False


def asked(arguments: Sequence[str]) -> Any:
    process = WarmProcess(command(*arguments)[2:], talks=True)
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait()
    process.close()
    return json.loads(said) if said else {}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus: 64 files of a few words each."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(64):
        first, second = WORDS[number % 8], WORDS[number // 8]
        (folder / f"{number:02}.txt").write_text(
            f"{first} {second} number{number}\n\nMore about {first} and {second}."
        )
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's folder for temporary files, with a path that leaves room for a socket's name.

    pytest's own is longer when tests run in parallel, and a socket's path may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="demo-test-", dir="/tmp") as folder:
        yield Path(folder)


def test_the_demo_converges_through_a_failing_build_stays_and_leaves_nothing(
    texts: Path, scratch: Path, tmp_path: Path
) -> None:
    arguments = ("--corpus", str(texts), "--fail", "map", "--readers", "2", "--stay", "--json")
    answer, told = tmp_path / "answer", tmp_path / "told"
    with (
        answer.open("wb") as stdout,
        told.open("wb") as stderr,
        subprocess.Popen(
            command("demo", *arguments),
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as demo,
    ):
        eventually(
            lambda: demo.poll() is not None or "Ctrl-C ends the demo" in told.read_text(),
            seconds=150,
        )
        try:
            page = re.search(r"^admin page: (http://\S+)$", told.read_text(), re.MULTILINE)
            assert page is not None, told.read_text()
            state = httpx.get(f"{page.group(1)}/api/admin/state", timeout=30).json()
            assert state["sentence"].startswith("all is well")
            assert state["readers"]["converged"] == 2
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0, told.read_text()
    said = told.read_text()
    report = json.loads(answer.read_text())
    assert report["converged"] is True
    assert report["agree"] is True
    assert report["release"] >= 8  # one more where the failed build was tried again meanwhile
    assert report["collections"]["docstrings"]["generation"] == 8
    kept = report["collections"]["docstrings"]["expected"]
    assert 0 < kept < 64
    for facts in report["components"].values():
        assert facts == {"outcome": "rebuilt", "covers": {"docstrings": 8}, "entries": kept}
    for reader in report["readers"].values():
        assert {name: each["covers"] for name, each in reader["components"].items()} == {
            name: {"docstrings": 8} for name in report["components"]
        }
    assert {query["reader"] for query in report["queries"]} == set(report["readers"])
    assert any(query["top"] and query["top_by_text"] for query in report["queries"])
    partial = [each for each in report["results"] if each["status"] == "PARTIAL_SUCCESS"]
    assert {tuple(each["indexes_failed"]) for each in partial} == {("map",)}
    assert "failed: map" in partial[0]["message"]
    assert {"p50", "max"} == set(report["event_to_served_seconds"])
    assert 0 < report["own_share_seconds"]["p50"] <= report["own_share_seconds"]["max"]
    assert "its last good version still serves, at generation 4" in said
    assert list(scratch.iterdir()) == []
    assert processes_of(str(scratch)) == []


def test_ctrl_c_in_the_demo_leaves_nothing(texts: Path, scratch: Path) -> None:
    with subprocess.Popen(
        command("demo", "--corpus", str(texts), "--readers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as demo:
        assert demo.stderr is not None
        told = []
        for line in demo.stderr:
            told.append(line)
            if line.startswith("demo-1"):
                break
        else:
            pytest.fail(f"the demo ended before its first batch: {''.join(told)}")
        assert processes_of(str(scratch))
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert "Traceback" not in said
    assert list(scratch.iterdir()) == []
    eventually(lambda: not processes_of(str(scratch)), seconds=10)


HANGING = """
import signal, subprocess, sys, time


def build(inputs):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}])
    time.sleep(600)
"""


def test_up_that_is_killed_takes_its_children_and_theirs_along(tmp_path: Path) -> None:
    """Also the server, the build server, a build that ignores SIGTERM, and what that started."""
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        "[collections.tracks]\ndimension = 3\n"
        '[components.slow]\nkind = "json_cache"\nfrom = "tracks"\nfunction = "hanging:build"\n'
    )
    mark = str(tmp_path / "started_by_the_build")
    (tmp_path / "hanging.py").write_text(HANGING.format(mark=mark))
    at = ("--config", str(config))
    log = tmp_path / "said"
    with log.open("wb") as said:
        up = subprocess.Popen(
            installed("up", "--readers", "0", "--no-admin", *at),
            stdout=said,
            stderr=said,
            cwd=tmp_path,
        )
        try:
            eventually(lambda: "rebuilder.started" in log.read_text(), seconds=60)
            commit(config, "first", 20)
            eventually(lambda: bool(processes_of(mark)), seconds=60)
        finally:
            up.kill()
            up.wait()
    assert "1 rebuilder, 0 reader(s)" in log.read_text()
    eventually(lambda: not processes_of(str(tmp_path)), seconds=30)


def test_everything_on_one_machine_serves_restarts_and_stops(tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        "[collections.tracks]\ndimension = 3\n"
        '[components.embeddings]\nkind = "embedding_cache"\nfrom = "tracks"\n'
        '[components.mine]\nkind = "my_kinds:Mine"\nfrom = "tracks"\n'
        '[schedules.hourly]\ncron = "0 * * * *"\n'  # it is well only where an operator looks
    )
    (tmp_path / "my_kinds.py").write_text(
        "from indexrelay.components.embedding_cache import EmbeddingCache\n\n\n"
        "class Mine(EmbeddingCache): ...\n"
    )
    # A script of the user's own in the current folder is not taken for an installed module.
    (tmp_path / "redis.py").write_text("raise SystemExit('this is not redis')\n")
    at = ("--config", str(config))
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(
            installed("up", "--readers", "1", *at), stdout=said, stderr=said, cwd=tmp_path
        ) as up,
    ):
        try:

            def readers() -> dict[str, Any]:
                found: dict[str, Any] = asked(["readers", "--json", *at]).get("readers", {})
                return found

            eventually(lambda: bool(readers()), seconds=60)
            commit(config, "first", 20)
            eventually(lambda: bool(asked(["status", "--json", *at])["well"]), seconds=60)
            (state,) = readers().values()
            for name in ("embeddings", "mine"):
                assert state["components"][name]["covers"] == {"tracks": 1}
            found = re.search(
                r"^admin page: (http://\S+)$", (tmp_path / "said").read_text(), re.MULTILINE
            )
            assert found is not None
            page = httpx.Client(base_url=found.group(1), timeout=30)
            eventually(lambda: answers(page), seconds=60)
            assert page.get("/api/admin/state").json()["sentence"].startswith("all is well")
            page.close()
            rebuilt = asked(["rebuild", "embeddings", "--wait", "--json", *at])
            assert rebuilt["result"]["indexes_rebuilt"] == ["embeddings"]

            os.kill(state["pid"], signal.SIGKILL)
            eventually(
                lambda: any(each["pid"] != state["pid"] for each in readers().values()),
                seconds=60,
            )

            server = tmp_path / "indexrelay-data" / "redis" / "server.pid"
            os.kill(int(server.read_text()), signal.SIGKILL)
            commit(config, "second", 30)
            eventually(lambda: bool(asked(["status", "--json", *at])["well"]), seconds=60)
            assert asked(["components", "--json", *at])["components"]["mine"]["entries"] == 30
        finally:
            up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert "1 rebuilder, 1 operator, 1 reader(s)" in (tmp_path / "said").read_text()
    assert "Traceback" not in (tmp_path / "said").read_text()
    eventually(lambda: not processes_of(str(tmp_path)), seconds=10)
