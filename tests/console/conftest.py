"""One installation with two components, built once; and the command line in this process."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import structlog

from indexrelay.console import main as command_line
from indexrelay.console.installation import Installation
from indexrelay.console.terminal import ANSWERS
from indexrelay.producers import Producer
from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import EmbeddedServer

CONFIG = """
[collections.tracks]
dimension = 3

[components.map]
kind = "projection"
from = "tracks"

[components.map_cache]
kind = "json_cache"
from = ["map", "tracks"]
function = "indexrelay.components.json_cache.map_points:map_points"
"""


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``indexrelay ARGUMENTS`` in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def running(*arguments: str) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["indexrelay", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        # The logs of a command go to the stderr of its test, which is closed afterwards.
        structlog.reset_defaults()
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return Said(int(ended.value.code or 0), said.out, said.err)

    return running


def commit(config: Path, batch_id: str, count: int, *, deletes: int = 0) -> None:
    """A job that commits ``count`` entries, and deletes the first of them again."""
    vectors = np.random.default_rng(0).normal(size=(count, 3))
    with (
        Producer.open(load_settings(config, environ={})) as producer,
        producer.batch("tracks", batch_id) as batch,
    ):
        batch.upsert([f"t{number}" for number in range(count)], vectors)
        batch.delete([f"t{number}" for number in range(deletes)])


def build(config: Path) -> None:
    """One pass, with builds in this process: for tests that are about something else."""
    with Installation(load_settings(config, environ={})) as installation:
        rebuilder = Rebuilder(
            installation.settings,
            catalog=installation.catalog,
            store=installation.store,
            connection=installation.connection,
            runner=InlineRunner(
                catalog=installation.catalog, store=installation.store, clock=SystemClock()
            ),
        )
        rebuilder.step()
        rebuilder.stop()
    ANSWERS.give_back()  # as a command does when it ends


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings file of an installation with a server, one batch and one release."""
    config = tmp_path_factory.mktemp("installation") / "indexrelay.toml"
    config.write_text(CONFIG)
    with EmbeddedServer(config.parent / "indexrelay-data"):
        commit(config, "first", 20)
        build(config)
        shutil.copytree(config.parent, _untouched(config), ignore=_of_redis)
        yield config


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The settings file of a copy without a server, as it was before any test used the first."""
    return Path(shutil.copytree(_untouched(built), tmp_path / "copy"), built.name)


def _untouched(built: Path) -> Path:
    return built.parent.with_name(f"{built.parent.name}-untouched")


def _of_redis(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if "redis" in name or "sock" in name]
