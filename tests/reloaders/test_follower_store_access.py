"""A reader that starts where it can read nothing waits, logs it, and goes on by itself."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexrelay.reloaders import Reloader
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, make_settings, texts
from tests.reloaders.unprivileged_program import NOBODY

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def a_file_instead(artifacts: Path) -> None:
    artifacts.write_text("not a folder")


def a_file_instead_of_its_parent(artifacts: Path) -> None:
    artifacts.parent.rename(artifacts.parent.with_suffix(".away"))
    artifacts.parent.write_text("not a folder")


def a_link_to_nowhere(artifacts: Path) -> None:
    artifacts.symlink_to(artifacts.with_suffix(".not_mounted") / "there")


def a_file_where_the_releases_were(artifacts: Path) -> None:
    artifacts.mkdir()
    (artifacts / "releases").write_text("not a folder")


@pytest.mark.parametrize(
    "hide",
    [
        a_file_instead,
        a_file_instead_of_its_parent,
        a_link_to_nowhere,
        a_file_where_the_releases_were,
    ],
    ids=lambda hide: hide.__name__,
)
def test_a_reader_that_starts_while_the_artifacts_cannot_be_read_waits_for_them(
    tmp_path: Path, hide: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    bench = Bench(data)
    bench.publish(voyager="v1")
    artifacts = bench.settings.artifacts_dir
    away = tmp_path / "mounted_later"
    artifacts.rename(away)
    hide(artifacts)
    settings = make_settings(data, poll_seconds=0.02, block_seconds=0.02)
    with capture_logs() as lines:
        reader = Reloader(settings, reader_id="early")
        assert not reader.step()
        reader.start()
        try:
            assert not reader.wait_ready(0.1)
            put_right(artifacts, away)
            assert reader.wait_ready(20)
            assert texts(reader) == {"voyager": "v1"}
        finally:
            reader.stop()
    # Once for the reason, and not at every look.
    assert [line["event"] for line in lines].count("store.unreadable") == 1


def put_right(artifacts: Path, away: Path) -> None:
    """Whatever stands in the way goes, and the store comes."""
    parent = artifacts.parent
    if parent.is_file():
        parent.unlink()
        parent.with_suffix(".away").rename(parent)
    if artifacts.is_symlink() or artifacts.is_file():
        artifacts.unlink()
    elif artifacts.is_dir():
        shutil.rmtree(artifacts)
    away.rename(artifacts)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="indexrelay-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@needs_root
def test_a_reader_of_another_user_outlives_what_it_may_not_read(open_folder: Path) -> None:
    bench = Bench(open_folder)
    bench.publish(voyager="v1")
    artifacts = bench.settings.artifacts_dir
    for each in artifacts.rglob("*"):  # the store keeps them to their owner
        each.chmod(0o755 if each.is_dir() else 0o644)
    artifacts.chmod(0o700)
    sockets = open_folder / "redis"
    sockets.mkdir(mode=0o700)
    (sockets / "socket").write_text(f"{sockets / 'server.sock'}\n")
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.reloaders.unprivileged_program", open_folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    asked = program.stdout.readline()
    assert asked == "artifacts\n", program.communicate()[1]
    for place in (*artifacts.rglob("*"), artifacts):  # only their owner may read them
        os.chown(place, NOBODY, NOBODY)
    told, log = program.communicate("done\n", timeout=90)
    assert program.returncode == 0, log
    said = json.loads(told)
    assert (said["stepped"], said["early"], said["ready"]) == (False, False, True)
    assert said["served"] == {"voyager": "v1"}
    assert "indexrelay-reloader" in said["running"]
    assert said["raised"] == []
    for event in ("redis.unreachable", "store.unreadable"):
        assert log.count(event) == 1, log
