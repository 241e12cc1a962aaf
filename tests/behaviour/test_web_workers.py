"""Workers of real servers under one reader id: each of them is counted, and none hides another."""

import os
import secrets
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from indexrelay.producers import NotServedError
from indexrelay.schemas.messages import ReaderState
from indexrelay.streams import Keys, members_of
from tests.behaviour.conftest import Install, Installation
from tests.streams.polling import eventually

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
TABLES = """
[rebuilder]
quiet_seconds = 0.05
block_seconds = 0.2
[reader]
block_seconds = 0.2
presence_ttl_seconds = 2.0
[collections.tracks]
dimension = 2
metric = "l2"
[components.voyager]
kind = "faults.kinds:RollCall"
from = "tracks"
"""
GUNICORN = [
    "gunicorn",
    "-w",
    "2",
    "-c",
    "tests/behaviour/gunicorn_settings.py",
    "-b",
    "unix:{socket}",
]
SERVERS = {
    "gunicorn": [*GUNICORN, "tests.behaviour.web_app:wsgi"],
    "gunicorn with preload": [*GUNICORN, "--preload", "tests.behaviour.web_app:wsgi"],
    "uvicorn with workers": [
        # A busy machine takes longer than 5 s to import an application.
        "uvicorn", "--workers", "2", "--timeout-worker-healthcheck", "60",
        "--uds", "{socket}", "tests.behaviour.web_app:asgi",
    ],
    "multiprocessing, spawn": ["tests.behaviour.web_app", "spawn"],
    "multiprocessing, fork": ["tests.behaviour.web_app", "fork"],
}  # fmt: skip


def pids(installation: Installation) -> set[int]:
    """The processes under the id."""
    keys = Keys(installation.settings.namespace)
    found = members_of(installation.connection, keys, ReaderState).known.values()
    return {state.pid for state in found if state.reader == "web"}


@pytest.mark.parametrize("server", SERVERS)
def test_each_worker_is_present_and_waited_for(
    install: Install,
    started_servers: dict[str, str],
    tmp_path: Path,
    server_folder: Path,
    server: str,
) -> None:
    # A socket of its own: a server that was killed leaves its file, and uvicorn refuses to bind it.
    socket = server_folder / f"{secrets.token_hex(4)}.sock"
    command = [each.format(socket=socket) for each in SERVERS[server]]
    if find_spec(command[0].partition(".")[0]) is None:
        if "CI" in os.environ:
            pytest.fail(f"{command[0]} is not installed")
        pytest.skip(f"{command[0]} is not installed")
    namespace = f"workers_{secrets.token_hex(4)}"
    installation = install(started_servers["valkey"], TABLES, namespace=namespace)
    installation.start_rebuilder()
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "INDEXRELAY_CONFIG": str(installation.config)},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            process_group=0,
        )
    try:
        eventually(lambda: process.poll() is not None or len(pids(installation)) == 2, seconds=60)
        assert process.poll() is None, (tmp_path / "said").read_text()
        with installation.producer.batch("tracks", "first") as batch:
            batch.upsert(["a"], [[1, 0]])
        served = installation.producer.wait_served(
            batch.commit, timeout_seconds=30, readers={"web"}, fail_fast=False
        )
        assert served.readers == ("web", "web")
        # A worker that is stopped is waited for, as long as its presence lasts, and then not there.
        stopped = min(pids(installation) - {process.pid})
        os.kill(stopped, signal.SIGSTOP)
        with installation.producer.batch("tracks", "second") as batch:
            batch.upsert(["b"], [[0, 1]])
        with pytest.raises(NotServedError):
            installation.producer.wait_served(
                batch.commit, timeout_seconds=0.5, readers={"web": 2}, fail_fast=False
            )
        os.kill(stopped, signal.SIGCONT)
        served = installation.producer.wait_served(
            batch.commit, timeout_seconds=30, readers={"web": 2}, fail_fast=False
        )
        assert served.readers == ("web", "web")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
