"""What may end a process is opened in one that may be ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.registry import class_mistakes
from indexrelay.components.served import VersionFiles
from indexrelay.reloaders import sandbox
from indexrelay.reloaders.loader import Opener
from indexrelay.reloaders.sandbox import Sandbox
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import is_transient
from tests.security.artifacts.trusting import CONTENT, KIND, PREFIX, Trusting
from tests.storage.artifacts.samples import make_file


class Bench:
    """A store, and who opens what is in it."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder / "store")
        definition = ComponentDefinition.model_validate({"kind": KIND, "from": "tracks"})
        self.opener = Opener(self.store, definitions={"it": definition}, clock=SystemClock())
        self.folder = folder

    def version(self, text: str) -> str:
        return self.store.put_version(
            VersionManifest(
                component="it",
                kind=KIND,
                definition="0" * 64,
                covers={},
                epochs={},
                files={CONTENT: self.store.put_blob(make_file(self.folder, text.encode()))},
                entries=1,
                created_at=datetime.now(UTC),
            )
        )

    def open(self, text: str) -> Any:
        return self.opener.open("it", self.version(text), serving=None).value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The components that were tried out."""
    found: list[str] = []
    open_first = Sandbox.open_first

    def counted(self: Sandbox, kind: Any, manifest: VersionManifest, *rest: Any) -> None:
        found.append(manifest.component)
        open_first(self, kind, manifest, *rest)

    monkeypatch.setattr(Sandbox, "open_first", counted)
    return found


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("crash", r"opening it crashes \(SIGSEGV\)"),
        ("abort", r"opening it crashes \(SIGABRT\)"),
        ("loop", "opening it does not end within 1 s"),
        ("eat", "opening it takes more than 1073741864 bytes of memory"),
        ("corrupt", "it says so itself"),
    ],
)
def test_what_ends_or_holds_a_process_is_corruption(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str, says: str
) -> None:
    if what == "loop":
        monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    with pytest.raises(CorruptFileError, match=says):
        bench.open(PREFIX + what)


@pytest.mark.parametrize("what", ["be killed", "want a disk"])
def test_what_says_nothing_of_the_file_may_pass(bench: Bench, what: str) -> None:
    with pytest.raises((MemoryError, OSError)) as failed:
        bench.open(PREFIX + what)
    assert is_transient(failed.value)
    assert not isinstance(failed.value, CorruptFileError)


def test_a_file_is_opened_in_the_sandbox_once_on_a_host_and_again_when_it_was_touched(
    bench: Bench, trials: list[str]
) -> None:
    version = bench.version("fine")
    for _ in range(2):
        assert bench.opener.open("it", version, serving=None).value.text == "fine"
    assert trials == ["it"]
    other = Bench(bench.folder)  # another process of this host
    other.opener.open("it", version, serving=None)
    assert trials == ["it"]
    [blob] = bench.store.root.glob("blobs/sha256/*/*")
    os.utime(blob)
    bench.opener.open("it", version, serving=None)
    assert trials == ["it", "it"]


def test_a_corrupt_file_is_opened_in_the_sandbox_each_time(bench: Bench, trials: list[str]) -> None:
    version = bench.version(PREFIX + "corrupt")
    for _ in range(2):
        with pytest.raises(CorruptFileError):
            bench.opener.open("it", version, serving=None)
    assert trials == ["it", "it"]


def test_a_server_that_ended_is_started_again(bench: Bench) -> None:
    assert bench.open("one").text == "one"
    process = sandbox.SANDBOX._process
    assert process is not None
    process.kill()
    process.wait()
    assert bench.open("two").text == "two"


def test_a_forked_child_has_a_sandbox_of_its_own(bench: Bench) -> None:
    assert bench.open("one").text == "one"
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            code = 0 if bench.open("two").text == "two" else 2
            sandbox.SANDBOX.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bench.open("three").text == "three"


@pytest.fixture
def server() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "indexrelay.reloaders.sandbox_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        yield process
        process.kill()


def test_the_server_ends_with_whoever_asks(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None
    server.stdin.close()
    assert server.wait(20) == 0


def test_a_version_that_lacks_a_file_is_corrupt(tmp_path: Path) -> None:
    files = VersionFiles({"a": tmp_path})
    assert files["a"] == tmp_path
    assert "b" not in files
    assert files.get("b") is None
    with pytest.raises(CorruptFileError, match="does not have it"):
        files["b"]


def test_what_is_sandboxed_is_named() -> None:
    class Wrong(Trusting):
        sandboxed = "content"  # type: ignore[assignment]

    assert any("sandboxed" in mistake for mistake in class_mistakes(Wrong))
    assert not list(class_mistakes(Trusting))
