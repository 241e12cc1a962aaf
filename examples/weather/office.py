"""The weather office: everything that runs unattended, in one process, by a clock that is moved."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import SecretStr

from examples.weather.forecasting import ANALOGS, HORIZONS, Horizon, Numbers, forecast
from examples.weather.lorenz import SITES
from indexrelay.components import check_kind
from indexrelay.operations import Backups, OperatorService
from indexrelay.producers import Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.schemas import RebuildResult, RedisSettings, configure_logs, load_settings
from indexrelay.storage import ArtifactStore, Catalog
from indexrelay.streams import Connection, EmbeddedServer
from indexrelay.testing import FakeClock

HERE: Final = Path(__file__).resolve().parent
FLAT, LISTS = "flat", "ivf64_flat"
WEEKLY: Final = "weekly"


class Office:
    """Observations come in, and on Sundays what they were is made into indexes."""

    def __init__(self, url: str, folder: Path, clock: FakeClock, stack: ExitStack) -> None:
        settings = load_settings(
            HERE / "indexrelay.toml",
            environ={"INDEXRELAY_DATA_DIR": str(folder)},
            check_kind=check_kind,
        )
        self.settings = settings = settings.model_copy(
            update={
                "redis": RedisSettings(url=SecretStr(url)),
                "backups": settings.backups.model_copy(update={"dir": folder / "backups"}),
            }
        )
        configure_logs(settings.log)
        self.clock = clock
        self._connection = Connection.open(url)
        stack.callback(self._connection.close)
        self.catalog = Catalog.open(settings.catalog_url, clock=clock)
        stack.callback(self.catalog.close)
        self.store = ArtifactStore.of(settings, clock=clock)
        self._producer = stack.enter_context(
            Producer(settings, catalog=self.catalog, connection=self._connection, clock=clock)
        )
        self._rebuilder = Rebuilder(
            settings,
            catalog=self.catalog,
            store=self.store,
            connection=self._connection,
            clock=clock,
        )
        stack.callback(self._rebuilder.stop)
        self._reader = Reloader(
            settings, store=self.store, connection=self._connection, clock=clock
        )
        stack.callback(self._reader.stop)
        self._operator = OperatorService(
            settings,
            catalog=self.catalog,
            store=self.store,
            connection=self._connection,
            clock=clock,
        )
        stack.callback(self._operator.stop)
        self._operator.step()  # a schedule that it has not seen before counts from now on
        self.backups = Backups(
            settings, store=self.store, open_catalog=lambda: self.catalog, clock=clock
        )

    def record(
        self, run: Numbers, times: Sequence[int], *, scale: float = 1, late: int = 0
    ) -> None:
        """Commit what was observed at ``times``.

        Args:
            scale: what the values were multiplied with by mistake.
            late: by how many states what followed was taken too late, by mistake.
        """
        at = np.array(times)
        ids = [f"{time:05d}-{site:02d}" for time in times for site in range(SITES)]
        for horizon in HORIZONS:
            then = horizon.later(run, at + late)
            payloads = [{"then": round(float(value), 4)} for value in then]
            with self._producer.batch(f"analogs_{horizon.name}") as batch:
                batch.upsert(ids, horizon.embed(run, at) * scale, payloads=payloads)

    def sunday(self) -> RebuildResult:
        """Let time pass to the next slot of the schedule, and do what it asks for."""
        now = self.clock.now()
        _, start = next(self.settings.schedules[WEEKLY].upcoming(WEEKLY, after=now))
        self.clock.advance((start - now).total_seconds())
        self._operator.step()
        result = self._rebuilder.step()
        if result is None:
            raise RuntimeError("the schedule asked for nothing")
        self.look()
        return result

    def look(self) -> None:
        """Have the reader serve the newest release."""
        self._reader.step()

    def forecast(self, horizon: Horizon, run: Numbers, times: Sequence[int], index: str) -> Numbers:
        """What the served index says of each site, so many hours after each of ``times``."""
        vectors = horizon.embed(run, np.array(times))
        with self._reader.acquire() as snapshot:
            component = snapshot[f"forecast_{horizon.name}_{index}"]
            return forecast(component.search_many(vectors, k=ANALOGS))


@contextmanager
def server() -> Iterator[tuple[str, Path]]:
    """A server and a folder that are gone afterwards."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-weather-"))
        )
        redis = EmbeddedServer(folder)
        stack.callback(redis.stop)
        yield redis.start(), folder


def first_day() -> FakeClock:
    """A Monday in winter; on the fifth Sunday the clock is put forward."""
    return FakeClock(datetime(2026, 2, 23, 8, tzinfo=UTC))
