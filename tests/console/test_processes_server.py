"""The embedded server comes back when it is killed, or its folder is removed."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexrelay.console.processes import LOOK_SECONDS, KeptServer
from indexrelay.streams.connection import Connection
from indexrelay.testing import FakeClock
from tests.fixtures.logs import capture_logs

pytestmark = pytest.mark.server


def answers(url: str) -> bool:
    with closing(Connection.open(url)) as connection:
        return bool(connection.commands.ping())


def pid_of(data_dir: Path) -> int:
    return int((data_dir / "redis" / "server.pid").read_text())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(tmp_path: Path, clock: FakeClock) -> Iterator[KeptServer]:
    with KeptServer(tmp_path, clock=clock) as server:
        yield server


def test_a_server_that_answers_is_left_alone(
    server: KeptServer, tmp_path: Path, clock: FakeClock
) -> None:
    before = pid_of(tmp_path)
    clock.advance(LOOK_SECONDS)
    server.look()
    assert pid_of(tmp_path) == before


def test_a_killed_server_is_started_again_at_the_same_place(
    server: KeptServer, tmp_path: Path, clock: FakeClock
) -> None:
    url, before = server.start(), pid_of(tmp_path)
    os.kill(before, signal.SIGKILL)
    clock.advance(LOOK_SECONDS)
    server.look()
    assert pid_of(tmp_path) != before
    assert answers(url)


def test_a_removed_folder_costs_the_old_server_and_brings_a_new_one(
    server: KeptServer, tmp_path: Path, clock: FakeClock
) -> None:
    url, before = server.start(), pid_of(tmp_path)
    shutil.rmtree(tmp_path / "redis")
    clock.advance(LOOK_SECONDS)
    server.look()
    assert answers(url)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


def test_a_server_that_cannot_start_is_retried_with_growing_pauses(
    server: KeptServer, tmp_path: Path, clock: FakeClock
) -> None:
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    shutil.rmtree(tmp_path / "redis")
    (tmp_path / "redis").write_text("in the way")
    with capture_logs() as logs:
        for _ in range(4):
            clock.advance(LOOK_SECONDS)
            server.look()
        assert sum(entry["event"] == "server.not_restarted" for entry in logs) == 2
    (tmp_path / "redis").unlink()
    clock.advance(60)
    server.look()
    assert answers(server.start())
