"""What was committed since the release that is served: followed, held, and laid over it.

One `LiveFollower` for each live collection reads its stream of changes and appends them to
`LiveRows`, of which a query sees a `LiveView`. Nothing from Redis is believed: a message counts
where a key of the settings signed it, where it belongs to this life of the collection, and where it
goes on from what is held. One that was read before, comes late or is made up changes nothing.
Whatever else comes means "look": into the catalog, or, for a reader that cannot open it, into what
is left of the stream. So a message that is lost costs time, ``poll_seconds`` at most.

A release takes over what is held: rows that every served version covers are dropped. Where a reader
cannot find out what is missing, or holds more than ``live.max_entries``, it stays where it is, says
so in its state, and goes on with the next release that covers the gap. What it laid over until then
stays: answers never go back.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from indexrelay.components.live.rows import LiveRows, LiveView
from indexrelay.reloaders.catalog import CatalogAccess, Look
from indexrelay.reloaders.loader import switch_interval
from indexrelay.reloaders.presence import Link
from indexrelay.reloaders.snapshot import Contents, ServedComponent
from indexrelay.schemas.clock import Clock, SupervisedThread, backoff_seconds
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    FIELD,
    ChangesCommitted,
    Event,
    LiveState,
    LiveStatus,
)
from indexrelay.schemas.settings import Settings
from indexrelay.storage.changes import UnreadableChangesError, unpacked
from indexrelay.storage.entries import Changes
from indexrelay.streams import Keys, Tail

if TYPE_CHECKING:
    from indexrelay.storage.catalog import Catalog, CatalogSnapshot

log = get_logger(__name__)

_BURST: Final = 100
"""Messages read at once, each of which may be large."""
_PAUSE_SECONDS: Final = 0.1
"""After a look that found nothing new: whoever may write to the stream can ask for looks for ever,
and each is a query of the catalog."""
_IDLE_SECONDS: Final = 0.1
"""How long a read waits while nothing is served that changes could be laid over."""
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_CHUNK_ROWS: Final = 1000
_INDEX_SECONDS: Final = 0.2
"""Between two looks for what is to be indexed: a thousand rows more are compared in 20 µs."""
_REPORT_SECONDS: Final = 0.1
"""Between two reports of what is held, each of which is a command to the server."""


class LiveLayer:
    """The followers of all live collections; views may be taken from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        link: Link,
        contents: Callable[[], Contents],
        catalog: CatalogAccess,
        changed: Callable[[], None],
        report: Callable[[], None],
        member: str,
        clock: Clock,
    ) -> None:
        """Nothing is connected or opened before `step` or `start`.

        Args:
            settings: which collections are live.
            link: the reader's connection.
            contents: what is served now.
            catalog: where missing changes are filled in from.
            changed: called when a query sees more than before.
            report: says what is held to those who wait for it elsewhere; takes as long as the
                server lets it, and is called by one thread.
            member: spreads the retries of readers.
            clock: for durations and stamps.
        """
        self._block_seconds = settings.reader.block_seconds
        self._tell = changed
        self._report = report
        self._report_due = threading.Event()
        self._followers = {
            name: LiveFollower(
                settings,
                name,
                link=link,
                contents=contents,
                catalog=catalog,
                changed=self._note_change,
                member=member,
                clock=clock,
            )
            for name, collection in sorted(settings.collections.items())
            if collection.live
        }
        self._threads: list[threading.Thread] = []

    @property
    def views(self) -> Mapping[str, LiveView]:
        """By collection, what a query sees from now on; without those that hold nothing."""
        return {
            name: view for name, each in self._followers.items() if (view := each.view) is not None
        }

    @property
    def states(self) -> dict[str, LiveState]:
        """By collection, what is held and what is missing."""
        return {name: each.state for name, each in self._followers.items()}

    def status(self, collection: str) -> LiveStatus | None:
        """Whether a collection is followed; ``None``: it is not live."""
        follower = self._followers.get(collection)
        return None if follower is None else follower.status

    def fill(self, collection: str) -> None:
        """Fill in what is missing from the catalog, now, whatever its thread does."""
        follower = self._followers.get(collection)
        if follower is not None:
            follower.fill()

    def step(self) -> None:
        """Take what there is, without waiting for more; nothing where threads do it."""
        if self._threads:
            return
        for each in self._followers.values():
            each.step(block_seconds=0)
            each.index()

    def start(self, stopping: threading.Event) -> None:
        """Follow each collection on a thread of its own, until ``stopping``; once."""
        if self._threads:
            return
        for name, each in self._followers.items():
            thread = SupervisedThread(
                lambda each=each: each.run(stopping, self._block_seconds),  # type: ignore[misc]
                name=f"indexrelay-live-{name}",
                wait=stopping.wait,
            )
            thread.start()
            self._threads.append(thread)
        self._report_due.clear()
        for name, body in (("index", self._index), ("report", self._report_changes)):
            thread = SupervisedThread(
                lambda body=body: body(stopping),  # type: ignore[misc]
                name=f"indexrelay-live-{name}",
                wait=stopping.wait,
            )
            thread.start()
            self._threads.append(thread)

    def _note_change(self) -> None:
        self._report_due.set()
        self._tell()

    def _report_changes(self, stopping: threading.Event) -> None:
        """Report what came: a thread of its own, since the server may keep it waiting."""
        while self._report_due.wait() and not stopping.is_set():
            self._report_due.clear()
            self._report()
            stopping.wait(_REPORT_SECONDS)

    def _index(self, stopping: threading.Event) -> None:
        """Index what the followers hold: a thread of its own, since it may take seconds."""
        while not stopping.wait(_INDEX_SECONDS):
            with switch_interval.shortened():
                for each in self._followers.values():
                    each.index()

    def close(self) -> None:
        """Wait for the threads, which were told to stop, and let go of everything; safe twice."""
        threads, self._threads = self._threads, []
        self._report_due.set()  # its thread waits for that alone
        for thread in threads:
            thread.join()
        for each in self._followers.values():
            each.forget()


class LiveFollower:
    """Holds the changes of one collection.

    One thread follows; its properties and `fill` may be used from any.
    """

    def __init__(
        self,
        settings: Settings,
        collection: str,
        *,
        link: Link,
        contents: Callable[[], Contents],
        catalog: CatalogAccess,
        changed: Callable[[], None],
        member: str,
        clock: Clock,
    ) -> None:
        self._collection = collection
        self._declared = settings.collections[collection]
        self._namespace = settings.namespace
        self._secrets = settings.live_keys
        self._most = settings.live.max_entries
        self._poll_seconds = settings.reader.poll_seconds
        self._key = Keys(settings.namespace).changes(collection)
        self._link = link
        self._contents = contents
        self._catalog = catalog
        self._changed = changed
        self._member = member
        self._clock = clock
        self._asked_for: tuple[str, int] | None = None
        self._turn = threading.Lock()
        """Who changes what is held; nobody has it while messages are waited for."""
        self._start_over()

    def forget(self) -> None:
        """Hold nothing, and start from nothing at the next step."""
        with self._turn:
            self._start_over()

    def _start_over(self) -> None:
        self._rows: LiveRows | None = None
        self._prepared: LiveView | None = None
        self._tail: Tail | None = None
        self._look_due = True
        self._look_at = self._poll_at = self._clock.monotonic()
        self._failures = 0
        self._ignored = 0
        self._newest = 0
        self._answered = False
        self._status = _Status(LiveStatus.IDLE)

    @property
    def view(self) -> LiveView | None:
        """What a query sees from now on; ``None``: nothing is held."""
        rows = self._rows
        return None if rows is None else rows.view

    @property
    def status(self) -> LiveStatus:
        """Whether it has all that it knows of."""
        return self._status.status

    @property
    def state(self) -> LiveState:
        """What is held and what is missing, as presence shows it."""
        rows, status = self._rows, self._status
        return LiveState(
            status=status.status,
            epoch="" if rows is None else rows.epoch,
            floor=0 if rows is None else rows.floor,
            generation=0 if rows is None else rows.view.generation,
            entries=0 if rows is None else rows.entries,
            ignored=self._ignored,
            reason=status.reason,
            since=status.since,
        )

    def run(self, stopping: threading.Event, block_seconds: float) -> None:
        """Follow until ``stopping``."""
        while not stopping.is_set():
            pause = self.step(block_seconds=block_seconds)
            if pause:
                stopping.wait(pause)

    def step(self, *, block_seconds: float) -> float:
        """Take what there is; waits up to ``block_seconds`` for a message where there is none.

        Raises nothing that Redis or the catalog raises.

        Returns:
            The seconds to pause for, since the server was not waited for.
        """
        with self._turn:
            self._settle()
        messages, gap = self._read(block_seconds)
        with self._turn:
            before = self.view
            self._look_due = self._look_due or gap
            for raw in messages or ():
                self._take(raw)
            now = self._clock.monotonic()
            if now >= self._poll_at:
                self._look_due = True
            if self._look_due and now >= self._look_at:
                self._look_now(now)
        if self.view is not before:
            self._changed()
        if self.view is not None:
            self._prepare(self.view)
        return self._pause_seconds(block_seconds) if messages is None else 0.0

    def fill(self) -> None:
        """Fill in what is missing from the catalog, now; raises nothing that the catalog raises."""
        with self._turn:
            before = self.view
            self._settle()
            self._look_now(self._clock.monotonic())
        if self.view is not before:
            self._changed()

    def index(self) -> bool:
        """Index what is held, as far as it pays; whether anything was indexed.

        May take seconds, beside `step` and queries; used by one thread at a time.
        """
        view = self.view
        if view is None:
            return False
        indexed = [each.index_changes(view) for each in self._served()]
        return any(indexed)

    def _prepare(self, view: LiveView) -> None:
        """Let the versions that are served get ready for what is new, so that no query has to."""
        if view is self._prepared:
            return
        self._prepared = view
        for each in self._served():
            each.prepare_changes(view)

    def _served(self) -> list[ServedComponent]:
        components = self._contents().components.values()
        return [each for each in components if each.live_collection == self._collection]

    def _settle(self) -> None:
        """Hold what is not in every version that is served, and no more."""
        served = served_of(self._contents(), self._collection)
        rows = self._rows
        if served is None:
            self._rows = None
            self._say(LiveStatus.IDLE)
        elif rows is None or rows.epoch != served.epoch or served.floor < rows.floor:
            self._rows = LiveRows(
                epoch=served.epoch,
                floor=served.floor,
                dimension=self._declared.dimension,
                metric=self._declared.metric,
            )
            self._look_soon()
        elif served.floor > rows.floor:
            self._rows = rows.above(served.floor)
            if self._status.status is not LiveStatus.FOLLOWING:
                self._say(LiveStatus.FOLLOWING)  # until the look says otherwise
                self._look_soon()

    def _look_soon(self) -> None:
        self._look_due, self._look_at = True, self._clock.monotonic()

    def _look_now(self, now: float) -> None:
        self._look_due = False
        self._poll_at = now + self._poll_seconds
        self._look_at = now + self._look()

    def _read(self, block_seconds: float) -> tuple[list[bytes] | None, bool]:
        """The messages that came, and whether there is a gap before them.

        ``None``: the server was not asked, or did not answer.
        """
        connection = self._link.connection
        if connection is None:
            return None, False
        now = self._clock.monotonic()
        until = min(self._poll_at, self._look_at) if self._look_due else self._poll_at
        longest = _IDLE_SECONDS if self._rows is None else connection.block_seconds
        seconds = max(0.0, min(block_seconds, until - now, longest))
        try:
            if self._tail is None:
                self._tail = Tail(connection, self._key)
            read = self._tail.read(count=_BURST, block_seconds=seconds)
        except RedisError:  # the tail has logged it, and its next read has a gap
            self._failures += 1
            return None, False
        self._failures = 0
        return [each.raw for each in read.deliveries if each.raw is not None], read.gap

    def _pause_seconds(self, block_seconds: float) -> float:
        if not self._failures:
            return block_seconds
        pause = backoff_seconds(
            self._failures,
            first=_FIRST_PAUSE_SECONDS,
            longest=_LONGEST_PAUSE_SECONDS,
            key=self._member,
        )
        return min(pause, block_seconds)

    def _take(self, raw: bytes, *, look: bool = True) -> None:
        """Append what a message says, where it counts; else note that a look is due.

        Args:
            raw: the message.
            look: whether what it does not say asks for a look.
        """
        rows = self._rows
        if rows is None or self._status.status is LiveStatus.FULL:
            return
        have = rows.view.generation
        try:
            said = Event.from_bytes(raw).data
        except UnreadableEventError:
            self._ignored += 1
            self._look_due = self._look_due or look
            return
        if not isinstance(said, ChangesCommitted) or said.collection != self._collection:
            self._ignored += 1
            return
        if said.generation <= have:
            return
        if not said.is_signed(self._namespace, self._secrets):
            self._ignored += bool(self._secrets)
            self._look_due = self._look_due or look
            return
        if said.epoch != rows.epoch:
            return  # of another life of the collection, which no served version is of
        self._newest = max(self._newest, said.generation)
        if said.after > have or said.changes is None:
            if look and self._answered:
                self._look_soon()  # a key holder says so: the catalog has it
            self._look_due = self._look_due or look
            return
        try:
            changes = unpacked(said, dimension=rows.dimension)
        except UnreadableChangesError as error:
            log.warning("changes.unreadable", collection=self._collection, error=str(error))
            self._ignored += 1
            self._look_due = self._look_due or look
            return
        self._append([changes], said.generation)

    def _append(self, changes: Sequence[Changes], generation: int) -> bool:
        """Hold changes, if there are not too many; whether they are held."""
        rows = self._rows
        if rows is None:
            return False
        if rows.grown_by(changes) > self._most:
            self._is_full(generation)
            return False
        if not rows.has_room(changes):
            rows = rows.with_room(changes)
        rows.append(changes, generation)
        if rows is not self._rows:
            self._prepare(rows.view)
        self._rows = rows  # only now: a view of it holds all of them
        return True

    def _look(self) -> float:
        """Find what is missing; for how many seconds not to look again."""
        rows = self._rows
        if rows is None or self._status.status is LiveStatus.FULL:
            return 0.0
        before = rows.view.generation
        catalog = self._catalog.get()
        self._answered = catalog is not None and self._look_into(catalog)
        if not self._answered:
            self._look_back()
        if self._rows is not None and self._rows.view.generation > before:
            return 0.0
        return _PAUSE_SECONDS if self._answered else self._poll_seconds

    def _look_into(self, catalog: "Catalog") -> bool:
        """Fill in from the catalog; whether it answered."""
        begun = self._catalog.moment()
        try:
            with catalog.entries.snapshot(self._collection) as snapshot:
                look = Look(begun, snapshot.epoch, snapshot.generation)
                self._catalog.note(self._collection, look)
                self._fill_from(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever it is, the release is served
            self._catalog.failed(error)
            return False
        return True

    def _fill_from(self, snapshot: "CatalogSnapshot") -> None:
        rows = self._rows
        if rows is None:
            return
        if snapshot.epoch != rows.epoch:
            self._say(
                LiveStatus.WAITING,
                "the collection was dropped and made anew, and no version of it is served yet",
            )
            return
        if snapshot.generation < rows.view.generation:
            self._say(
                LiveStatus.WAITING,
                f"the catalog is at generation {snapshot.generation}, before the "
                f"{rows.view.generation} that is held: it was brought back from a backup",
            )
            return
        if snapshot.generation == rows.view.generation:
            self._say(LiveStatus.FOLLOWING)
            return
        found = snapshot.changes(rows.view.generation, _CHUNK_ROWS)
        if found is None:
            self._say(
                LiveStatus.WAITING,
                f"the catalog no longer knows what changed after {rows.view.generation}",
            )
            return
        gathered: list[Changes] = []
        for some in found:
            gathered.append(some)
            if rows.grown_by(gathered) > self._most:
                break
        if self._append(gathered, snapshot.generation):
            self._newest = max(self._newest, snapshot.generation)
            self._say(LiveStatus.FOLLOWING)

    def _look_back(self) -> None:
        """Go through what the stream still has, without the catalog."""
        self._newest = 0  # what it says now counts: it may be of another life
        for raw in self._history():
            self._take(raw, look=False)
        rows = self._rows
        if rows is None or self._status.status is LiveStatus.FULL:
            return
        if not self._secrets:
            self._say(
                LiveStatus.WAITING,
                "there are no live.keys, and this reader cannot look into the catalog: it serves "
                "releases alone",
            )
        elif self._newest > rows.view.generation:
            self._say(
                LiveStatus.WAITING,
                f"changes after generation {rows.view.generation} are missing, and this reader "
                "cannot look into the catalog",
            )
        else:
            self._say(LiveStatus.FOLLOWING)

    def _history(self) -> Iterator[bytes]:
        """The messages that the stream still has, the oldest first, as far as it answers."""
        connection = self._link.connection
        if connection is None:
            return
        commands: Any = connection.commands
        begin = b"-"
        try:
            while entries := commands.xrange(self._key, begin, b"+", count=_BURST):
                yield from (fields[FIELD] for _, fields in entries if FIELD in fields)
                begin = b"(" + entries[-1][0]
        except RedisError as error:
            log.debug("changes.not_read", collection=self._collection, error=str(error))

    def _is_full(self, generation: int) -> None:
        """Ask for a rebuild, and stay here until a release takes over what is held."""
        rows = self._rows
        if rows is None:
            return
        self._say(
            LiveStatus.FULL,
            f"with generation {generation} more than live.max_entries ({self._most:,}) entries "
            f"would have changed since generation {rows.floor}, which is released",
        )
        wanted = (rows.epoch, rows.floor)
        if self._asked_for == wanted:
            return
        self._asked_for = wanted
        served = served_of(self._contents(), self._collection)
        names = () if served is None else served.components
        # The same id from every reader: one request, however many of them are full.
        self._catalog.request(
            f"live-{self._collection}-{rows.epoch}-{rows.floor}",
            names,
            f"{self._collection} has more than {self._most:,} changes above its release",
        )

    def _say(self, status: LiveStatus, reason: str | None = None) -> None:
        """Be in a state; a change of it is logged."""
        known = self._status
        if (known.status, known.reason) == (status, reason):
            return
        well = status in (LiveStatus.FOLLOWING, LiveStatus.IDLE)
        since = None if well else known.since or self._clock.now()
        self._status = _Status(status, reason, since)
        write = log.info if well else log.warning
        write("live.state", collection=self._collection, status=status.value, reason=reason)


@dataclass(frozen=True)
class _Status:
    """Where a follower is, and since when it does not follow."""

    status: LiveStatus
    reason: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LiveBase:
    """What the changes of one collection are laid over."""

    epoch: str
    floor: int
    """The generation that every one of the components covers."""
    components: tuple[str, ...]


def served_of(contents: Contents, collection: str) -> LiveBase | None:
    """What is served of a collection and takes changes; ``None``: nothing is.

    Where versions of two of its lives are served, that of the newer one counts.
    """
    found = [
        each
        for name, each in sorted(contents.components.items())
        if each.live_collection == collection and name not in contents.held
    ]
    if not found:
        return None
    newest = max(found, key=lambda each: each.manifest.created_at)
    epoch = newest.manifest.epochs.get(collection, "")
    same = [each for each in found if each.manifest.epochs.get(collection, "") == epoch]
    return LiveBase(
        epoch=epoch,
        floor=min(each.covers[collection] for each in same),
        components=tuple(_names(same)),
    )


def _names(components: Iterable[ServedComponent]) -> Iterator[str]:
    return (each.name for each in components)
