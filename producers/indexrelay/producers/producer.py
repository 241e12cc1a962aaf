"""The producer: what an analysis job holds.

It commits batches and announces them (`indexrelay.producers.batch`), asks for rebuilds, and waits
until readers serve a commit (`indexrelay.producers.served`).
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from indexrelay.producers.batch import Batch, Batches, Committer
from indexrelay.producers.changes import ChangeSender
from indexrelay.producers.errors import UndeclaredComponentError
from indexrelay.producers.events import EventDraft, EventSender, JobConnection
from indexrelay.producers.group import GroupCommit
from indexrelay.producers.served import (
    PresenceView,
    Readers,
    ServedBy,
    ServedQuery,
    ServedWait,
)
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.messages import RebuildRequested
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import settings_of
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError

if TYPE_CHECKING:  # needed by a collection with an embedder only
    from indexrelay.components.embedder import Embedders


class Producer:
    """Commits batches, announces them, and waits until readers serve them.

    Safe to use from several threads; each batch belongs to one. Used as a context manager it closes
    what it opened, and nothing that it was given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        connection: Connection | None = None,
        clock: Clock | None = None,
        wait: Callable[[float], None] = time.sleep,
        embedders: "Embedders | None" = None,
    ) -> None:
        """Work with a catalog that the caller closes.

        Args:
            settings: which collections there are.
            catalog: where batches are committed.
            connection: to Redis; ``None``: opened by the settings when it is first needed.
            clock: stamps events and measures waits.
            wait: pauses between two looks in `wait_served`; takes seconds.
            embedders: those of this process; ``None``: its own.
        """
        self._settings = settings
        self._catalog = catalog
        self._owns_catalog = False
        self._clock = clock or SystemClock()
        self._wait = wait
        self._connection = JobConnection(settings, connection)
        self._events = EventSender(settings, connection=self._connection, clock=self._clock)
        changes = None
        if any(each.live for each in settings.collections.values()):
            changes = ChangeSender(
                settings, catalog=catalog, connection=self._connection, clock=self._clock
            )
        self._committer = Committer(
            settings, catalog=catalog, events=self._events, changes=changes, embedders=embedders
        )
        self._presence = PresenceView(settings, connection=self._connection, clock=self._clock)

    @classmethod
    def open(cls, settings: Settings | str | Path | None = None) -> Self:
        """Open the catalog that the settings name; Redis only when it is first needed.

        Args:
            settings: they themselves, or the path of their file; ``None``: the file that
                ``INDEXRELAY_CONFIG`` names, else ``indexrelay.toml`` in the current folder, else
                the variables ``INDEXRELAY_…`` alone.

        Raises:
            SettingsError: with every mistake in them.
            CatalogUrlError, CatalogVersionError: the settings name no catalog of ours.
            sqlalchemy.exc.OperationalError: the database cannot be reached.
        """
        settings = settings_of(settings)
        producer = cls(settings, catalog=Catalog.open(settings.catalog_url))
        producer._owns_catalog = True
        return producer

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> Batch:
        """A batch for one ``with`` block; the collection is declared on first use.

        Leaving the block commits, and may then raise a `BackPressureError`: the commit stands.

        Args:
            collection: its name in the settings.
            batch_id: what the job calls this batch, such as a date and a part: the same batch again
                commits nothing, and gives the commit that it got before; other content under the
                same id is refused (`BatchContentError`). ``None``: drawn at random, so that a job
                which repeats itself commits again.
            traceparent: a W3C trace context that the event carries along.

        Raises:
            UndeclaredCollectionError: the settings do not declare it.
            WrongSourceError: its entries do not live in the catalog.
            CollectionMismatchError: it exists with another dimension or metric.
            InvalidBatchIdError: the catalog cannot store the id.
            ValueError: ``traceparent`` is none.
        """
        return self._committer.batch(collection, batch_id, traceparent=traceparent)

    def batches(self) -> Batches:
        """For one ``with`` block: batches that are opened with it are committed together.

        One transaction and one round trip, however many there are, where `batch` takes one of each
        for every batch. Leaving the block may raise a `BackPressureError`: the commits stand.
        """
        return Batches(self._committer)

    def group_commit(self, *, max_waiting: int = 200) -> GroupCommit:
        """For many writers with small batches: those that come together share one transaction.

        Where `batches` is for one job, this is for writers that know nothing of each other, such as
        the requests to a service: what is wrong with one batch concerns that batch alone.

        Args:
            max_waiting: batches that may wait for the next transaction.
        """
        return GroupCommit(self._committer, max_waiting=max_waiting)

    def batch_completed(
        self, collection: str, *, batch_id: str | None = None, traceparent: str | None = None
    ) -> Commit:
        """Commit that a collection whose entries live elsewhere (a table, a folder) has new ones.

        What is new is not known here, so each call is a commit of its own, whatever its
        ``batch_id``, which is a name for people and results.

        Raises:
            UndeclaredCollectionError: the settings do not declare it.
            WrongSourceError: its entries live in the catalog; use `batch`.
            CollectionMismatchError: it exists with another dimension or metric.
            InvalidBatchIdError: the catalog cannot store the id.
            BackPressureError: the commit stands, but Redis or the rebuilders cannot follow.
            ValueError: ``traceparent`` is none.
        """
        batches = self.batches()
        with batches:
            batches.batch_completed(collection, batch_id=batch_id, traceparent=traceparent)
        return batches.commits[0]

    def request_rebuild(
        self,
        components: Collection[str] = (),
        *,
        force: bool = False,
        full: bool = False,
        failure_cooldown_seconds: float | None = None,
        reason: str = "",
        requested_by: str = "",
        unless_covered: bool = False,
    ) -> str:
        """Ask for a rebuild, due or not; the request is a row that outlives a lost event.

        Args:
            components: what to build; empty: whatever is due.
            force: release it although more entries went than ``max_shrink`` allows.
            full: build it from scratch, and check every file again.
            failure_cooldown_seconds: leave out what is paused, and what failed
                ``max_consecutive_failures`` times in a row until so long after the last failure;
                ``None``: it is built all the same.
            reason: for the people who read the result.
            requested_by: who asks, as the audit log names them.
            unless_covered: ask only where no open request asks for as much: of any number that ask
                at the same moment one is recorded then.

        Returns:
            The request's id; the result that answers it names it.

        Raises:
            RequestCoveredError: ``unless_covered``, and there is such a request.
            UndeclaredComponentError: the settings declare components, but not that one.
            TooManyRequestsError: a thousand of them wait for a rebuilder; nothing was asked.
            ValueError: a component's name that can be none, or a reason of more than 1,000
                characters.
        """
        if isinstance(components, str):
            raise TypeError("components takes several names: write ['a'], not 'a'")
        declared = self._settings.components
        for name in components:
            # A job's own settings may leave the components out; then only the rebuilder knows.
            if declared and name not in declared:
                raise UndeclaredComponentError(name, declared)
        request_id = secrets.token_hex(16)
        names = tuple(dict.fromkeys(components))
        self._catalog.inbox.request(
            request_id,
            components=names,
            force=force,
            full=full,
            failure_cooldown_seconds=failure_cooldown_seconds,
            reason=reason,
            requested_by=requested_by,
            unless_covered=unless_covered,
        )
        # What is asked for counts in the row only, so the event does not repeat it.
        event = RebuildRequested(request_id=request_id, reason=reason)
        with contextlib.suppress(BackendRefusedError):  # the row stands, and is found without it
            self._events.send([EventDraft(event, subject=request_id, event_id=request_id)])
        return request_id

    def wait_served(
        self,
        commit: Commit,
        *,
        timeout_seconds: float,
        readers: Readers = None,
        components: Collection[str] | None = None,
        fail_fast: bool = True,
    ) -> ServedBy:
        """Block until readers serve a commit.

        Each process publishes what it serves, under a key that only its id may write. A leaked
        password of an id can forge any number of processes under that id, and none under another:
        where that matters, name the ids. A generation counts only with the stamp of its commit,
        which is in the catalog and the artifacts, and not in Redis.

        Args:
            commit: ``batch.commit``, or what `batch_completed` gave.
            timeout_seconds: how long to wait; 0 looks once.
            readers: who must serve it. A number: so many processes, whatever their ids; the
                processes of an id count once all of them that live serve it. Ids: every live
                process under each, and at least one; ``{"web": 4}``: at least four, such as the
                workers of one server. ``None``: every live process of all, and at least one.
            components: those that must cover it, in every counted reader; ``None``: all of the
                reader's own that are made from the collection, and at least one.
            fail_fast: give up as soon as a rebuilder reports that one of them failed to build.

        Raises:
            NotServedError: the time is over, or a component failed; the commit stands.
            RedisError: presence cannot be read, and waiting would not change that.
        """
        waiting = self.served_wait(
            commit,
            timeout_seconds=timeout_seconds,
            readers=readers,
            components=components,
            fail_fast=fail_fast,
        )
        while (served := waiting.look()) is None:
            self._wait(waiting.pause_seconds())
        return served

    def served_wait(
        self,
        commit: Commit,
        *,
        timeout_seconds: float,
        readers: Readers = None,
        components: Collection[str] | None = None,
        fail_fast: bool = True,
        live: bool = False,
    ) -> ServedWait:
        """The wait of `wait_served`, for a caller with a loop of its own.

        ``live``: whether a reader that has laid the commit over its release serves it, too. Readers
        say so with their presence, within a tenth of a second.
        """
        query = ServedQuery(
            commit=commit,
            readers=readers,
            components=components,
            definitions=self._settings.components,
            live=live,
        )
        return ServedWait(
            query,
            presence=self._presence,
            log_of=self._catalog.collections.log,
            clock=self._clock,
            timeout_seconds=timeout_seconds,
            fail_fast=fail_fast,
        )

    def close(self) -> None:
        """Close what was opened here; safe twice."""
        self._connection.close()
        if self._owns_catalog:
            self._owns_catalog = False
            self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
