"""A rebuilder that starts while a place cannot be used logs that, waits, and starts by itself."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import EmbeddedServer
from tests.console.conftest import commit
from tests.fixtures.warm_process import WarmProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

TABLES = """
[catalog]
url = "sqlite:///{places}/catalog/catalog.db"
[artifacts]
dir = "{places}/artifacts"
[rebuilder]
quiet_seconds = 0.05
[collections.tracks]
dimension = 3
[components.cache]
kind = "embedding_cache"
from = "tracks"
"""


def a_file(place: Path) -> None:
    place.write_text("not a folder")


def a_link_to_nowhere(place: Path) -> None:
    place.symlink_to(place.with_suffix(".not_mounted") / "there")


def eventually(condition: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("place", "waits", "hide"),
    [
        ("artifacts", "store.unreadable", a_file),
        ("artifacts", "store.unreadable", a_link_to_nowhere),
        ("catalog", "role.waiting", a_file),
    ],
)
def test_a_rebuilder_that_starts_while_a_place_cannot_be_used_waits_for_it(
    tmp_path: Path, place: str, waits: str, hide: Callable[[Path], None]
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(TABLES.format(places=tmp_path))
    (tmp_path / "catalog").mkdir()
    away = tmp_path / place
    if away.exists():
        away.rmdir()
    hide(away)
    log = tmp_path / "said"
    with EmbeddedServer(tmp_path / "indexrelay-data"), log.open("wb") as said:
        rebuilder = WarmProcess(
            ["indexrelay.console.main", "rebuilder", "--config", str(config)],
            log=said,
            cwd=tmp_path,
        )
        try:
            eventually(lambda: waits in log.read_text(), log)
            assert rebuilder.poll() is None
            away.unlink()
            away.mkdir()
            commit(config, "first", 20)
            store = ArtifactStore(tmp_path / "artifacts", may_be_away=True)
            eventually(store.newest_release, log)
        finally:
            rebuilder.terminate()
            assert rebuilder.wait(30) == os.EX_OK
