"""The catalog of a service that takes writes, opened with the first of them."""

import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from indexrelay.producers import GroupCommit, Producer
from indexrelay.reloaders.fastapi import Lifespan
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection
from indexrelay.streams.presence import follow_forks


class CatalogMissingError(IndexRelayError):
    """Raised when the settings name no catalog that is there, although there are releases.

    A new one would take writes that no rebuilder ever reads. The URL may hold a password, so the
    message does not repeat it.
    """

    def __init__(self) -> None:
        super().__init__(
            "there are releases, and no catalog where catalog.url says: nothing was written, since "
            "nobody would find it there; correct catalog.url of this service"
        )


@dataclass(frozen=True, kw_only=True)
class OpenedWriter:
    """What is open in this process."""

    catalog: Catalog
    producer: Producer
    group: GroupCommit


class EntryWriter:
    """The catalog and the group commit of one service; from any thread, and across forks.

    Opened with the first request that needs it, in the process that has it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        max_waiting: int = 200,
        catalog: Catalog | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            settings: the installation.
            max_waiting: writes that may wait for the next transaction; also those that may wait to
                be visible or released.
            catalog: stays open at `close`; ``None``: the one that the settings name.
            connection: to Redis; the same.
        """
        self.settings = settings
        self.max_waiting = max_waiting
        self._catalog = catalog
        self._connection = connection
        self.after_fork_in_child()
        follow_forks(self)

    def after_fork_in_child(self) -> None:
        """Leave what is open to the parent."""
        self._opening = threading.Lock()
        self._opened: OpenedWriter | None = None

    def open(self) -> OpenedWriter:
        """Everything that it takes to write.

        Raises:
            CatalogMissingError: there is none, where there should be one.
            CatalogVersionError, sqlalchemy.exc.SQLAlchemyError: the catalog cannot be opened.
        """
        with self._opening:
            if self._opened is None:
                catalog = self._catalog or self._open_catalog()
                producer = Producer(self.settings, catalog=catalog, connection=self._connection)
                group = producer.group_commit(max_waiting=self.max_waiting)
                self._opened = OpenedWriter(catalog=catalog, producer=producer, group=group)
            return self._opened

    def _open_catalog(self) -> Catalog:
        url = self.settings.catalog_url
        if not Catalog.is_there(url) and _has_releases(self.settings):
            raise CatalogMissingError
        return Catalog.open(url)

    def is_ready(self, collection: str) -> bool:
        """Whether a write to it can be prepared without waiting for the catalog."""
        opened = self._opened
        return opened is not None and opened.group.knows(collection)

    def make_ready(self, collection: str) -> None:
        """See that it is so; raises as `open`, and as a batch of the collection does."""
        self.open().group.declare(collection)

    def close(self) -> None:
        """Commit what waits, and close what was opened here; safe twice."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is None:
            return
        opened.group.close()
        opened.producer.close()
        if self._catalog is None:
            opened.catalog.close()


def _has_releases(settings: Settings) -> bool:
    """Whether anything was ever released; no where that cannot be seen."""
    with contextlib.suppress(ArtifactError):
        return bool(ArtifactStore.of(settings, may_be_away=True).release_numbers())
    return False


def closing(writer: EntryWriter, lifespan: Lifespan) -> Lifespan:
    """A lifespan at whose end the writer is closed, once all requests are answered."""

    @contextlib.asynccontextmanager
    async def closed(app: Any) -> AsyncIterator[None]:
        async with lifespan(app):
            try:
                yield
            finally:
                await to_thread.run_sync(writer.close)

    return closed
