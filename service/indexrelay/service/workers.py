"""The workers of a reader: several processes that answer at one address.

``indexrelay reader --workers N`` opens the listening socket once, and starts N processes that take
connections from it: each a reader like any other, with its own presence, and the files that they
map are in memory once. One that dies loses the connections that it had, and no others.

The kernel wakes all of them for a connection, and the same one would mostly be the first: a client
that opens its connections one by one and keeps them would have one worker for all. So each shows
the others how many it has, in a few bytes of shared memory, and gives way for a moment where
another one has fewer.

A request reaches one of them. What concerns them all (the page of metrics, a retry) goes by a
folder that only they can enter, with a file for each place. A worker writes there once a second
what it has counted, and goes on from what its predecessor had: so a sum never goes back, whoever
dies. A lock that its holder's end releases says which of the places are taken.

This is what the multiprocess mode of the library of Prometheus does with a file for each value.
"""

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, ValidationError

from indexrelay.reloaders.fastapi import Lifespan
from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.files import open_private
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.service.metrics import Samples, counted_for_good

log = get_logger(__name__)

GIVE_WAY_SECONDS: Final = 0.005
"""How long a connection waits for a worker that has fewer of them."""
MOST_WORKERS: Final = 64
_COUNT: Final = struct.Struct("I")
"""Connections of one worker, and one more; 0: nobody has the place."""
POST_SECONDS: Final = 1.0
"""How often a worker writes down what it has counted: so old is what the others see of it."""


class WorkerNote(BaseModel):
    """What one worker says of itself."""

    model_config = ConfigDict(frozen=True)

    pid: int
    ready: bool
    retries: int
    """How many retries were asked of this place, for all of them."""
    families: Mapping[str, Samples]
    """By the name of a family of metrics."""


class WorkerBoard:
    """The notes of all workers of one address, as anyone sees them who may enter the folder."""

    def __init__(self, folder: Path) -> None:
        """``folder``: private to those who share it."""
        self._folder = folder

    def note(self, number: int) -> WorkerNote | None:
        """The last note of a place; ``None``: there is none."""
        try:
            return WorkerNote.model_validate_json(self._file(number).read_bytes())
        except (OSError, ValidationError):
            return None

    def numbers(self) -> list[int]:
        """The places that somebody has, or had."""
        return sorted(
            int(each.stem) for each in self._folder.glob("*.json") if each.stem.isdecimal()
        )

    def is_taken(self, number: int) -> bool:
        """Whether the process of a place lives."""
        try:
            with open_private(self._lock_file(number), "ab") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def is_ready(self, number: int, pid: int) -> bool:
        """Whether this process has the place, and serves every required component."""
        note = self.note(number)
        return note is not None and note.pid == pid and note.ready

    def write(self, number: int, note: WorkerNote) -> None:
        """Replace the note of a place.

        Raises:
            OSError: it cannot be written.
        """
        new = self._file(number).with_suffix(".new")
        new.unlink(missing_ok=True)
        with open_private(new, "wb") as file:
            file.write(note.model_dump_json().encode())
        new.replace(self._file(number))

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Hold a place, once its last process is gone.

        Raises:
            OSError: the folder is not there.
        """
        with open_private(self._lock_file(number), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def connections(self) -> mmap.mmap:
        """The number of connections of each place, shared by all workers.

        Raises:
            OSError: it cannot be made.
        """
        with open_private(self._folder / "connections", "a+") as file:
            os.ftruncate(file.fileno(), _COUNT.size * (MOST_WORKERS + 1))
            return mmap.mmap(file.fileno(), _COUNT.size * (MOST_WORKERS + 1))

    def forget_connections(self, number: int) -> None:
        """Nobody has a place: no other worker gives way to it."""
        with contextlib.suppress(OSError), self.connections() as shared:
            _COUNT.pack_into(shared, _COUNT.size * number, 0)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _lock_file(self, number: int) -> Path:
        return self._folder / f"{number}.lock"


class WorkerPlace:
    """The place of this process among the workers; from any thread."""

    def __init__(self, board: WorkerBoard, number: int) -> None:
        """Go on from the note of whoever had the place before; it has to be `WorkerBoard.held`."""
        self._board = board
        self._number = number
        self._lock = threading.Lock()
        self._complaints = LogOnce()
        self._connections = board.connections()
        self._count = 1
        board.forget_connections(number)  # those of whoever had it, until this one listens
        before = board.note(number)
        self.replaces_another = before is not None
        """Whether another process had the place before."""
        self.counted: Mapping[str, Samples] = (
            {} if before is None else counted_for_good(before.families)
        )
        """What the processes before had counted, by the name of a family."""
        self._retries = 0 if before is None else before.retries
        self._retries_seen = self._retries_of_others()
        self._last = WorkerNote(
            pid=os.getpid(), ready=False, retries=self._retries, families=self.counted
        )
        self._drains = False
        if before is not None:
            self._write()  # its gauges are of nobody that lives

    def post(self, gather: Callable[[], tuple[bool, Mapping[str, Samples]]]) -> None:
        """Write down whether this process is ready, and what it has counted.

        Args:
            gather: gives both; called by one thread at a time, so that no older note takes the
                place of a newer one.
        """
        with self._lock:
            ready, families = gather()
            self._last = self._last.model_copy(
                update={"ready": ready, "retries": self._retries, "families": families}
            )
            self._write()

    def count_connections(self, count: int) -> None:
        """Show the others how many connections this worker has; not once it takes no more."""
        if self._drains:
            return
        self._count = count + 1
        _COUNT.pack_into(self._connections, _COUNT.size * self._number, self._count)

    def drain(self) -> None:
        """Have no connection left to this worker, which takes no more; for good."""
        self._drains = True
        _COUNT.pack_into(self._connections, _COUNT.size * self._number, 0)

    @property
    def has_fewest_connections(self) -> bool:
        """Whether no other worker has fewer."""
        counts = (each for (each,) in _COUNT.iter_unpack(self._connections) if each)
        return min(counts, default=self._count) >= self._count

    def others(self) -> list[tuple[WorkerNote, bool]]:
        """The notes of the other places, each with whether its process lives."""
        found = [
            (self._board.note(number), self._board.is_taken(number))
            for number in self._board.numbers()
            if number != self._number
        ]
        return [(note, is_taken) for note, is_taken in found if note is not None]

    def ask_retry(self) -> None:
        """Have all workers retry what failed, within `POST_SECONDS`."""
        with self._lock:
            self._retries += 1
            self._last = self._last.model_copy(update={"retries": self._retries})
            self._write()

    def take_retry(self) -> bool:
        """Whether another worker was asked for a retry since this was asked last."""
        now = self._retries_of_others()
        before, self._retries_seen = self._retries_seen, now
        return now != before

    def _retries_of_others(self) -> int:
        numbers = (each for each in self._board.numbers() if each != self._number)
        notes = (self._board.note(each) for each in numbers)
        return sum(0 if note is None else note.retries for note in notes)

    def _write(self) -> None:
        said: dict[str, Any] = {}
        try:
            self._board.write(self._number, self._last)
        except OSError as error:
            said = {"worker.note_not_written": str(error)}
        for event, reason in self._complaints.new(said).items():
            log.warning(
                event,
                worker=self._number,
                error=reason,
                consequence="the metrics of the other workers lack what this one counts",
            )


class SharedListener(socket.socket):
    """A listening socket from which several workers take connections, whoever has fewest first."""

    place: WorkerPlace
    now: Callable[[], float] = staticmethod(time.monotonic)
    _since = float("-inf")
    """When a connection was first left to others."""

    @classmethod
    def of(cls, file: int, place: WorkerPlace) -> Self:
        """From an open file, which is this object's from now on, and no child's."""
        os.set_inheritable(file, False)
        listener = cls(fileno=file)
        listener.place = place
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            BlockingIOError: there is none, or it is another worker's; asyncio tries again at once
                for as long as it is there.
        """
        if not self.place.has_fewest_connections:
            now = self.now()
            if now - self._since > 2 * GIVE_WAY_SECONDS:
                self._since = now  # what was left to others then is gone
            if now - self._since < GIVE_WAY_SECONDS:
                raise BlockingIOError
        taken = super().accept()
        self._since = float("-inf")
        return taken


class Worker:
    """What a service does as one of several workers, on a thread of its own."""

    def __init__(
        self,
        place: WorkerPlace,
        *,
        post: Callable[[WorkerPlace], object],
        retry: Callable[[], None],
    ) -> None:
        """Nothing runs yet.

        Args:
            place: that of this process.
            post: writes down what it has counted.
            retry: lets it retry what failed.
        """
        self._place = place
        self._post = post
        self._retry = retry
        self._stopping = threading.Event()

    def retry_everywhere(self) -> None:
        """Have every worker retry what failed; the others within `POST_SECONDS`."""
        self._retry()
        self._place.ask_retry()

    def turn(self) -> None:
        """Write down what was counted, and take up what others were asked for."""
        self._post(self._place)
        if self._place.take_retry():
            self._retry()

    def around(self, lifespan: Lifespan) -> Lifespan:
        """A lifespan in which it takes connections and its turns, the last one at its end."""

        @contextlib.asynccontextmanager
        async def working(app: Any) -> AsyncIterator[None]:
            async with lifespan(app):
                thread = SupervisedThread(
                    self._run, name="indexrelay-worker", wait=self._stopping.wait
                )
                thread.start()
                self._place.count_connections(0)  # it listens from now on
                try:
                    yield
                finally:
                    self._stopping.set()
                    await to_thread.run_sync(thread.join)
                    await to_thread.run_sync(self.turn)

        return working

    def _run(self) -> None:
        while True:
            self.turn()
            if self._stopping.wait(POST_SECONDS):
                return
