"""A whole installation on one machine: a rebuilder here, readers in processes of their own."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from indexrelay.producers import Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys, members_of
from tests.fixtures.warm_process import WarmProcess


class ReaderProcess:
    """A reader that a test can ask."""

    def __init__(self, config: Path, reader_id: str) -> None:
        self.process = WarmProcess(
            ["tests.behaviour.reader_process", str(config), reader_id], talks=True
        )

    def ask(self, component: str, **question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"component": component, "k": 3, **question})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def stop(self) -> int:
        """End its input; the exit code of a reader that stopped cleanly is 0."""
        self.process.close()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self.process.close()


class Installation:
    """One namespace: settings, a rebuilder, a producer, readers."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings: Settings = load_settings(config, environ={})
        self._closing = ExitStack()
        self.catalog = Catalog.open(self.settings.catalog_url)
        self._closing.callback(self.catalog.close)
        self.store = ArtifactStore(self.settings.artifacts_dir)
        assert self.settings.redis_url is not None
        self.connection = self._closing.enter_context(Connection.open(self.settings.redis_url))
        self.producer = Producer(self.settings, catalog=self.catalog, connection=self.connection)
        self.readers: dict[str, ReaderProcess] = {}

    def start_rebuilder(self) -> Rebuilder:
        rebuilder = Rebuilder(
            self.settings, catalog=self.catalog, store=self.store, connection=self.connection
        )
        self._closing.callback(rebuilder.stop)
        rebuilder.start()
        return rebuilder

    def start_reader(self, reader_id: str) -> ReaderProcess:
        reader = self.readers[reader_id] = ReaderProcess(self.config, reader_id)
        self._closing.callback(reader.kill)
        return reader

    def states(self) -> dict[str, ReaderState]:
        """What every reader says of itself."""
        keys = Keys(self.settings.namespace)
        found = members_of(self.connection, keys, ReaderState).known
        return {state.reader: state for state in found.values()}

    def close(self) -> None:
        self._closing.close()


Install = Callable[..., Installation]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Makes installations: ``install(redis_url, tables)`` with the settings' tables in TOML."""
    with ExitStack() as closing:

        def make(
            redis_url: str, tables: str, *, namespace: str, catalog_url: str | None = None
        ) -> Installation:
            config = tmp_path / "indexrelay.toml"
            catalog = f'[catalog]\nurl = "{catalog_url}"\n' if catalog_url else ""
            head = f'namespace = "{namespace}"\ndata_dir = "data"\n'
            config.write_text(f'{head}[redis]\nurl = "{redis_url}"\n{catalog}{tables}')
            installation = Installation(config)
            closing.callback(installation.close)
            return installation

        yield make
