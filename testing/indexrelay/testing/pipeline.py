"""A whole pipeline in one process and one thread: nothing happens unless the test asks for it.

Everything is the real thing but the edges: the catalog is SQLite and the artifacts are files, both
in the test's own folder; Redis is fakeredis, builds run in the test's process, and time is a
`FakeClock`. A producer's commit waits in the stream until `rebuild` or `settle` takes it; a release
waits until a reader looks.

Only what Redis expires by itself (leases, presence) goes by the machine's clock, as fakeredis does.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from indexrelay.schemas.errors import IndexRelayError, missing_extra

try:
    from fakeredis import FakeRedis, FakeServer
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from indexrelay.producers import Producer
from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import RebuildResult
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection
from indexrelay.testing.clock import FakeClock
from indexrelay.testing.faults import FaultyRunner, corrupt_version

_MAX_ROUNDS = 100
"""Rounds until `Pipeline.settle` gives up; a chain of components takes one pass, not one each."""


class NotSettledError(IndexRelayError):
    """Raised when a pipeline still has something to do after many rounds.

    Something is due again each time it was built: look at the kind's ``build``, or at a source that
    changes whenever it is read.
    """

    def __init__(self, rounds: int, last: Iterable[str]) -> None:
        self.rounds = rounds
        self.last = tuple(last)
        names = ", ".join(self.last) or "nothing"
        super().__init__(f"still busy after {rounds} rounds; the last one rebuilt: {names}")


class Pipeline:
    """Producer, rebuilder and readers over one catalog, one store and one Redis.

    Made by the fixture ``indexrelay_pipeline``, which closes it. For one thread.
    """

    def __init__(self, settings: Settings, folder: Path, *, clock: FakeClock | None = None) -> None:
        """Put one together in ``folder``, whatever places the settings name.

        Args:
            clock: that of an earlier pipeline in the same folder; ``None``: a new one.
        """
        self.settings = settings = _kept_in(folder, settings)
        self.clock = clock or FakeClock()
        """Move it with `advance`."""
        self.results: list[RebuildResult] = []
        """Of every pass so far."""
        self._server = FakeServer()
        self._readers: dict[str, Reloader] = {}
        with ExitStack() as stack:
            self.connection = Connection(
                commands=FakeRedis(server=self._server), blocking=FakeRedis(server=self._server)
            )
            stack.callback(self.connection.close)
            self.catalog = Catalog.open(settings.catalog_url, clock=self.clock)
            stack.callback(self.catalog.close)
            self.store = ArtifactStore.of(settings, clock=self.clock)
            self.producer = Producer(
                settings,
                catalog=self.catalog,
                connection=self.connection,
                clock=self.clock,
                wait=self._wait,
            )
            stack.callback(self.producer.close)
            self._runner = FaultyRunner(
                InlineRunner(catalog=self.catalog, store=self.store, clock=self.clock)
            )
            self.rebuilder = Rebuilder(
                settings,
                catalog=self.catalog,
                store=self.store,
                connection=self.connection,
                runner=self._runner,
                clock=self.clock,
                rebuilder_id="rebuilder",
            )
            stack.callback(self.rebuilder.stop)
            self._closing = stack.pop_all()

    def rebuild(self) -> RebuildResult | None:
        """Take the events that are there and run one pass; ``None`` when nothing was due."""
        result = self.rebuilder.step()
        if result is not None:
            self.results.append(result)
        return result

    def reader(self, reader_id: str) -> Reloader:
        """The reader of that name; a new one looks for a release at once, as any that starts."""
        if reader_id not in self._readers:
            reader = Reloader(
                self.settings,
                reader_id=reader_id,
                store=self.store,
                connection=self.connection,
                clock=self.clock,
            )
            self._readers[reader_id] = reader
            self._closing.callback(reader.stop)
            reader.step()
        return self._readers[reader_id]

    def settle(self) -> None:
        """Rebuild and let every reader look, until nothing is left to do *now*.

        A component whose build failed is tried again after its cool-down: `advance` past it first.

        Raises:
            NotSettledError: there is always something left.
        """
        for _ in range(_MAX_ROUNDS):
            rebuilt = self.rebuild() is not None
            swapped = [reader.step() for reader in self._readers.values()]
            if not rebuilt and not any(swapped):
                return
        raise NotSettledError(_MAX_ROUNDS, self.results[-1].indexes_rebuilt if self.results else ())

    def advance(self, seconds: float) -> None:
        """Let time pass, then `settle`."""
        self.clock.advance(seconds)
        self.settle()

    def fail_build(
        self, component: str, *, error: str = "asked for by the test", times: int | None = None
    ) -> None:
        """Let the next ``times`` builds of ``component`` fail; ``None``: all until `heal_build`."""
        self._runner.fail(component, error=error, times=times)

    def heal_build(self, component: str) -> None:
        """Let ``component`` build again."""
        self._runner.heal(component)

    def corrupt(self, component: str) -> None:
        """Corrupt the newest version's files on disk: whatever opens them from now on refuses them.

        Raises:
            NothingToCorruptError: no release names ``component``.
        """
        corrupt_version(self.store, component)

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """Let Redis be away inside the ``with``; what it holds is there again afterwards."""
        self._server.connected = False
        try:
            yield
        finally:
            self._server.connected = True

    def close(self) -> None:
        """Stop the readers and the rebuilder and close everything; safe twice."""
        self._closing.close()

    def _wait(self, seconds: float) -> None:
        """To wait, where nothing happens by itself, is to advance the clock."""
        self.clock.advance(seconds)
        self.settle()


def _kept_in(folder: Path, settings: Settings) -> Settings:
    """The same settings with every place of our own inside ``folder``."""
    places = {"data_dir": folder, "catalog": {}, "artifacts": {}, "redis": {}}
    return Settings.model_validate({**settings.model_dump(by_alias=True), **places})
