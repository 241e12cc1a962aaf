"""What a job says of a live collection: its commits' changes, for readers to lay over a release.

After the commit it reads in one snapshot what changed since the generation before, so that what it
sends is whole whatever others commit meanwhile, and signs it. The commit stands in any case: where
Redis or the catalog does not answer now, readers find the changes in the catalog a little later.
"""

import socket
from collections.abc import Mapping, Sequence

from indexrelay.producers.events import JobConnection
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ChangesCommitted, Event
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.storage.changes import packed, read_changes
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish_changes

_log = get_logger(__name__)


class ChangeSender:
    """Sends the changes of live collections; safe to use from several threads."""

    def __init__(
        self, settings: Settings, *, catalog: Catalog, connection: JobConnection, clock: Clock
    ) -> None:
        self._keys = Keys(settings.namespace)
        self._live = {name for name, each in settings.collections.items() if each.live}
        self._secret = next(iter(settings.live_keys), None)
        self._catalog = catalog
        self._connection = connection
        self._clock = clock
        self._source = f"indexrelay/producer/{socket.gethostname()}"

    def send(self, commits: Sequence[Commit]) -> None:
        """Send what came of commits, one message for each live collection.

        Raises nothing that Redis or the catalog raises: the commits stand, and are found.
        """
        for collection, (first, last) in self._spans(commits).items():
            try:
                self._send(collection, after=first - 1, generation=last)
            except Exception as error:  # noqa: BLE001 - whatever it is, the job's commit stands
                _log.warning(
                    "changes.not_sent",
                    collection=collection,
                    error=f"{type(error).__name__}: {error}",
                    consequence="the commit stands, and readers find it in the catalog",
                )

    def _spans(self, commits: Sequence[Commit]) -> Mapping[str, tuple[int, int]]:
        """By live collection, the first and the last generation that is new."""
        spans: dict[str, tuple[int, int]] = {}
        for commit in commits:
            if commit.collection in self._live and not commit.repeated:
                first, _ = spans.get(commit.collection, (commit.generation, 0))
                spans[commit.collection] = (first, commit.generation)
        return spans

    def _send(self, collection: str, *, after: int, generation: int) -> None:
        failpoint("producer.before_changes")
        changes = None
        with self._catalog.entries.snapshot(collection) as snapshot:
            epoch = snapshot.epoch
            if self._secret is not None:
                changes = read_changes(snapshot, after=after)
                generation = snapshot.generation
        said = ChangesCommitted(
            collection=collection,
            epoch=epoch,
            after=after,
            generation=generation,
            changes=None if changes is None else packed(changes),
        )
        if self._secret is not None:
            said = said.signed(self._keys.namespace, self._secret)
        event = Event.of(said, source=self._source, time=self._clock.now(), subject=collection)
        publish_changes(self._connection.get(), self._keys.changes(collection), event.to_bytes())
