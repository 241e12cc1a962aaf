"""What stands around a producer, a reader or a component: here in one process and a moment.

In production these are services: a Redis server (or ``indexrelay up``, which brings one), and
``indexrelay rebuilder``.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.schemas import LogSettings, Settings, SystemClock, configure_logs
from indexrelay.storage import ArtifactStore, Catalog
from indexrelay.streams import Connection, EmbeddedServer


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Settings to hand in, and a rebuilder."""

    settings: Settings
    rebuilder: Rebuilder


@contextmanager
def surroundings(*, dimension: int = 2, **components: dict[str, object]) -> Iterator[Surroundings]:
    """A server, a catalog and a rebuilder in a folder that is removed afterwards."""
    configure_logs(LogSettings(level="error"))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-minimal-"))
        server = EmbeddedServer(Path(folder))
        stack.callback(server.stop)
        settings = Settings.model_validate(
            {
                "data_dir": folder,
                "redis": {"url": server.start()},
                "collections": {"tracks": {"dimension": dimension}},
                "components": components,
            }
        )
        connection = Connection.open(str(settings.redis_url))
        stack.callback(connection.close)
        catalog = Catalog.open(settings.catalog_url)
        stack.callback(catalog.close)
        store = ArtifactStore.of(settings)
        rebuilder = Rebuilder(
            settings,
            catalog=catalog,
            store=store,
            connection=connection,
            runner=InlineRunner(catalog=catalog, store=store, clock=SystemClock()),
        )
        stack.callback(rebuilder.stop)
        yield Surroundings(settings=settings, rebuilder=rebuilder)
