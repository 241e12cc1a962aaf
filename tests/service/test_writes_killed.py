"""A service that is killed in the middle of writes: what was acknowledged is there, whole, once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from indexrelay.reloaders import Reloader
from indexrelay.schemas.failpoints import VARIABLE
from indexrelay.schemas.settings import Settings
from indexrelay.service.app import create_app
from indexrelay.service.server import listening
from indexrelay.storage.catalog import Catalog
from tests.service.app_server import running

PROGRAM = """
import os, sys
from indexrelay.schemas import failpoints
from indexrelay.schemas.settings import Settings
from indexrelay.service import serve

failpoints.arm(os.environ)
serve(Settings.model_validate_json(sys.argv[1]), port=int(sys.argv[2]))
"""
ENTRIES = "/v1/collections/songs/entries"
SECONDS = 60
WRITERS = 8


def settings_in(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": folder,
            "http": {"writes": True},
            "collections": {"songs": {"dimension": 2, "metric": "l2"}},
        }
    )


@contextmanager
def service(folder: Path, point: str) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """A process that kills itself at a failpoint once the file ``armed`` is there."""
    armed = {point: {"do": "kill", "token": str(folder / "armed")}}
    with listening("127.0.0.1", 0, None) as listener:
        port = listener.getsockname()[1]
    given = json.dumps(settings_in(folder).model_dump(mode="json", exclude_defaults=True))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, given, str(port)],
        env={**os.environ, VARIABLE: json.dumps(armed)},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=SECONDS) as client:
            while not answers(client):
                assert process.poll() is None
                time.sleep(0.02)
            yield client, process
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.ConnectError:
        return False


def write(client: httpx.Client, name: str) -> dict[str, Any] | None:
    """Write two entries under a key; ``None``: there was no answer."""
    entries = [{"id": f"{name}-{row}", "vector": [row, 1]} for row in range(2)]
    try:
        answer = client.put(ENTRIES, json={"entries": entries}, headers={"idempotency-key": name})
    except httpx.TransportError:
        return None
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def together(client: httpx.Client, names: list[str]) -> list[dict[str, Any] | None]:
    with ThreadPoolExecutor(WRITERS) as threads:
        return list(threads.map(lambda name: write(client, name), names))


def test_a_kill_between_commit_and_answer_loses_nothing_and_a_repeat_is_harmless(
    tmp_path: Path,
) -> None:
    first, second = ([f"{turn}{number}" for number in range(WRITERS)] for turn in "ab")
    with service(tmp_path, "producer.after_commit") as (client, process):
        sent = dict(zip(first, together(client, first), strict=True))
        assert all(sent.values())
        (tmp_path / "armed").touch()
        sent |= zip(second, together(client, second), strict=True)
        assert process.wait(SECONDS) == -signal.SIGKILL
    settings = settings_in(tmp_path)
    with contextlib.closing(Catalog.open(settings.catalog_url)) as catalog:
        with catalog.entries.snapshot("songs") as snapshot:
            found = {id_ for chunk in snapshot.chunks() for id_ in chunk.ids}
            generation = snapshot.generation
        whole = {name for name in sent if f"{name}-0" in found}
        assert found == {f"{name}-{row}" for name in whole for row in range(2)}
        assert generation == len(whole)
        acknowledged = {name for name, answer in sent.items() if answer is not None}
        assert acknowledged < whole <= sent.keys()
        with running(create_app(Reloader(settings), settings.http)) as client:
            again = dict(zip(sent, together(client, list(sent)), strict=True))
    for name, answer in again.items():
        assert answer is not None
        assert answer["repeated"] is (name in whole)
        before = sent[name]
        assert before is None or answer["generation"] == before["generation"]
    assert max(answer["generation"] for answer in again.values() if answer) == len(sent)
