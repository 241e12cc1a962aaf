"""`indexrelay service` writes and removes units, and roles report to who started them."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexrelay.operations import units
from tests.console.conftest import Run
from tests.fixtures.warm_process import WarmProcess

CONFIG = """
[rebuilder]
quiet_seconds = 0.05
[collections.tracks]
dimension = 3
[components.cache]
kind = "embedding_cache"
from = "tracks"
[schedules.nightly]
cron = "0 3 * * *"
[admin]
port = 0
"""
NAMES = sorted(units.UNITS)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "indexrelay.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "units"
    made.mkdir()
    return made


def test_units_are_shown_written_and_removed_and_nothing_else_is(
    run: Run, config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--config", str(config), "--folder", str(folder))
    refused = run("service", "install", *at)
    assert refused.code == 2
    assert "hide" in refused.err  # a temporary folder
    monkeypatch.setattr(units, "_HIDDEN", ())
    shown = run("service", "install", *at, "--dry-run")
    assert shown.code == 0
    assert not list(folder.iterdir())
    said = run("service", "install", *at, "--json")
    document = json.loads(said.out)
    files = {Path(name).name: text for name, text in document["files"].items()}
    assert {file.name: file.read_text() for file in folder.iterdir()} == files
    assert sorted(files) == NAMES
    assert all(text in shown.out for text in files.values())
    assert "systemctl daemon-reload" in document["next"]
    assert all(line in shown.err for line in document["next"])
    data = config.parent / "indexrelay-data"
    assert all(f'ReadWritePaths="{data}"\n' in text for text in files.values())

    other = folder / "nginx.service"
    other.write_text("[Service]\n")
    changed = folder / units.READER
    changed.write_text("[Service]\n")
    assert run("service", "install", *at).code == 2
    assert run("service", "uninstall", "--folder", str(folder), "--dry-run").code == 0
    assert len(list(folder.iterdir())) == len(NAMES) + 1
    gone = run("service", "uninstall", "--folder", str(folder))
    assert str(changed) in gone.err
    assert sorted(folder.iterdir()) == sorted([other, changed])


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


@pytest.mark.server
@pytest.mark.timeout(120)
@pytest.mark.parametrize("role", ["rebuilder", "reader", "operator", "admin"])
def test_a_role_reports_that_it_is_ready_that_its_loop_turns_and_that_it_stops(
    role: str, config: Path, listener: socket.socket, built: Path, tmp_path: Path
) -> None:
    arguments = [role, "--config", str(config)]
    if role == "reader":  # it is ready once it serves
        arguments = [role, "--config", str(built), "--id", "one", "--uds", str(tmp_path / "uds")]
    process = WarmProcess(
        ["indexrelay.console.main", *arguments],
        cwd=tmp_path,
        env={**os.environ, "NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "60000000"},
    )
    try:
        reports = [listener.recv(4096).decode()]
        while reports[-1] != "READY=1":
            assert reports[-1].startswith(("EXTEND_TIMEOUT_USEC=", "WATCHDOG=1")), reports
            reports.append(listener.recv(4096).decode())
        assert listener.recv(4096) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        while (last := listener.recv(4096)) != b"STOPPING=1":
            assert last == b"WATCHDOG=1"
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)
