"""A service whose event loop hangs says so in its presence, from a thread that goes on."""

import json
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexrelay.health.judge import judge_reader
from indexrelay.health.status import Code
from indexrelay.schemas.messages import ReaderState
from indexrelay.streams import Connection, Keys, members_of
from tests.reloaders.bench import Bench
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


@contextmanager
def serving(bench: Bench, redis_url: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    program = [sys.executable, "-m", "tests.service.silent_program", str(bench.folder), redis_url]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            program, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def ask(address: str, path: str) -> socket.socket:
    where = urllib.parse.urlsplit(address)
    assert where.hostname is not None
    connection = socket.create_connection((where.hostname, where.port or 80), timeout=30)
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    )
    return connection


def status(connection: socket.socket) -> int:
    with connection, connection.makefile("rb") as lines:
        return int(lines.readline().split()[1])


def test_a_reader_whose_event_loop_hangs_is_not_ready_until_it_goes_on(
    bench: Bench, redis_connection: Connection, redis_url: str, tmp_path: Path
) -> None:
    bench.publish(voyager="v1")
    log = tmp_path / "log"

    def state() -> ReaderState | None:
        found = members_of(redis_connection, Keys("test"), ReaderState).known.values()
        return next(iter(found), None)

    def is_ready() -> bool:
        known = state()
        return known is not None and known.ready

    def events(name: str) -> list[Any]:
        lines = map(json.loads, log.read_text().splitlines())
        return [each for each in lines if each["event"] == name]

    with serving(bench, redis_url, log) as process:
        assert process.stdin is not None
        eventually(is_ready, seconds=PATIENCE_SECONDS)
        before = state()
        assert before is not None
        assert before.address is not None
        assert status(ask(before.address, "/ready")) == 200
        hanging = ask(before.address, "/hang")
        eventually(lambda: not is_ready(), seconds=PATIENCE_SECONDS)
        silent = state()
        assert silent is not None
        assert silent.service_silent_since is not None
        assert before.started_at < silent.service_silent_since < silent.updated_at
        assert silent.components == before.components
        [problem] = judge_reader(
            silent, bench.store.newest_release(), settings=bench.settings, now=silent.updated_at
        )
        assert problem.code is Code.READER_SERVICE_SILENT
        [said] = events("service.silent")
        assert "silent_program.py" in said["where"][0]
        assert "in hang" in said["where"][0]
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        assert status(hanging) == 200
        eventually(is_ready, seconds=PATIENCE_SECONDS)
        assert status(ask(before.address, "/ready")) == 200
        assert len(events("service.answers_again")) == 1
