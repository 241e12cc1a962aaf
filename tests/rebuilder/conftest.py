"""A rebuilder on a real catalog and a real artifact store; its Redis is fakeredis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest

from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.rebuilder.builds import BuildRequest, BuildRunner, Progress
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import ComponentResult, Event, RebuildResult
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, OpenedVersion
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.storage.entries import Entries
from indexrelay.streams import Connection, Keys

KIND = "tests.rebuilder.kinds:Behaving"


def behaving(*inputs: str, **keys: Any) -> dict[str, Any]:
    """A component of the test kind."""
    return {"kind": KIND, "from": list(inputs), **keys}


def run(
    runner: BuildRunner,
    request: BuildRequest,
    *,
    timeout: float = 60,
    memory: int | None = None,
    progress: Progress = lambda _step, _share: None,
) -> ComponentResult:
    """One build by itself."""
    with runner.session([request.component]) as session:
        return session.run(request, timeout_seconds=timeout, memory_bytes=memory, progress=progress)


@dataclass(kw_only=True)
class Bench:
    """What a rebuilder works on, and a rebuilder."""

    settings: Settings
    catalog: Catalog
    store: ArtifactStore
    connection: Connection
    keys: Keys
    runner: BuildRunner | None = None

    def __post_init__(self) -> None:
        for name, collection in self.settings.collections.items():
            self.catalog.collections.declare(
                name, dimension=collection.dimension, metric=collection.metric
            )
        self.rebuilder = self.another()

    def another(self, rebuilder_id: str | None = None, /, **settings: Any) -> Rebuilder:
        """One more rebuilder on the same catalog, store and Redis."""
        return Rebuilder(
            Settings.model_validate({**self.settings.model_dump(by_alias=True), **settings}),
            catalog=self.catalog,
            store=self.store,
            connection=self.connection,
            runner=self.runner
            or InlineRunner(catalog=self.catalog, store=self.store, clock=SystemClock()),
            rebuilder_id=rebuilder_id,
        )

    def commit(
        self, *ids: str, collection: str = "tracks", deletes: tuple[str, ...] = ()
    ) -> Commit:
        """A batch of entries, committed without any event."""
        batch_id = f"batch-{self.catalog.collections.get(collection).generation + 1}"
        entries = Entries(
            ids=list(ids),
            vectors=np.ones((len(ids), 2), dtype=np.float32),
            texts=[None] * len(ids),
            payloads=[None] * len(ids),
        )
        upserts = [entries] if ids else []
        return self.catalog.entries.commit(collection, batch_id, upserts=upserts, deletes=deletes)

    def rebuild(self, rebuilder: Rebuilder | None = None) -> RebuildResult:
        """One pass, which must have had something to do."""
        result = (rebuilder or self.rebuilder).step()
        assert result is not None
        return result

    def release(self) -> Release:
        """The newest release, which must exist."""
        release = self.store.newest_release()
        assert release is not None
        return release

    def opened(self, component: str) -> OpenedVersion:
        """What is released of a component."""
        return self.store.open_version(component, self.release().components[component])

    def messages(self, key: str) -> list[Event]:
        """Everything in one stream."""
        entries: Any = self.connection.commands.xrange(key)
        return [Event.from_bytes(fields[b"event"]) for _, fields in entries]


MakeBench = Callable[..., Bench]


@contextmanager
def bench_in(folder: Path, **components: dict[str, Any]) -> Iterator[Bench]:
    """A bench that keeps everything in ``folder``."""
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "collections": {"tracks": {"dimension": 2, "metric": "l2"}},
            "components": components,
        }
    )
    server = fakeredis.FakeServer()
    bench = Bench(
        settings=settings,
        catalog=Catalog.open(settings.catalog_url),
        store=ArtifactStore(settings.artifacts_dir),
        connection=Connection(
            commands=fakeredis.FakeRedis(server=server),
            blocking=fakeredis.FakeRedis(server=server),
        ),
        keys=Keys(settings.namespace),
    )
    try:
        yield bench
    finally:
        bench.rebuilder.stop()
        bench.connection.close()
        bench.catalog.close()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    """Makes benches: ``make_bench(index=behaving("tracks"))``."""
    with ExitStack() as stack:
        yield lambda **components: stack.enter_context(bench_in(tmp_path, **components))
