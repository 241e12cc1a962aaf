"""The connections of the reader service, and for how long their clients may keep it waiting.

uvicorn and h11 speak HTTP; here is what they have no setting for.

**Time.** At any moment a connection waits for its client (for a header, for a body, or for an
answer to be read), or the client waits for the service. The first has a time limit.

**Room.** Where one connection more, or some memory more, is wanted than there is, the connection
that has waited for its client the longest makes room; one whose client has sent a request only
after a second of waiting. Whoever holds connections open, half sent or unread, loses them first.
Where none makes room, the one that wants it is refused. Memory is counted as it comes from the
socket.

**Turns.** A header is read at once, unless headers have kept the event loop for some milliseconds
already: then in turn, as bodies are. Bodies are read in turn, a few pieces of each and for a few
milliseconds at a time, and nothing more is read of a connection before what came has been looked
at. So many bodies in small pieces arrive slowly, and everything else goes on.
"""

import asyncio
import ctypes
import functools
import os
import resource
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Final, cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from indexrelay.reloaders.errors import RETRY_AFTER_SECONDS
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.problems import MEDIA_TYPE, ProblemDetails
from indexrelay.service.requests import MAX_HEADER_BYTES, Requests

log = get_logger(__name__)

_HEADER_PIECE_BYTES: Final = 1024
"""What h11 gets of a header at a time: it refuses what is beyond the limit and not whole yet."""
READ_BYTES: Final = 64 * 1024
"""What is read of a connection at a time."""
_LITTLE_BYTES: Final = 16 * 1024
"""Of a body, which take a fraction of a millisecond."""
TURN_SECONDS: Final = 0.004
"""How long bodies, and headers, may keep the event loop before it does everything else."""
_EXPIRE_SECONDS: Final = 0.5
"""How often time limits are checked: so much later than its limit a connection may end."""
_SEND_BUFFER_BYTES: Final = 256 * 1024
"""Of the kernel, for each connection; by itself it holds 4 MB for a client that does not read."""
_TRIMMED_BYTES: Final = 8 * 1024 * 1024
"""Once more than this was held at a time, and is no longer, its memory is given back."""
_LARGE_BYTES: Final = 128 * 1024
"""What glibc begins with."""
_M_MMAP_THRESHOLD: Final = -3
"""Of `mallopt`, from glibc's malloc.h."""
GRACE_SECONDS: Final = 1.0
"""So long a client that has sent a request is waited for before its connection makes room."""
_SPARE_PART: Final = 10
_FEWEST_SPARE: Final = 8
"""A tenth of the connections, and at least so many, may come in while all others are at work."""
ACCEPTED_AT_ONCE: Final = 16
"""Connections that the event loop takes in one turn: before one of them can be admitted or refused
all have their descriptors, and those of the turn before may not be closed yet."""
_RESERVED_DESCRIPTORS: Final = 100
"""Files that connections leave to everything else: indexes, the log, Redis, the next release."""
_NO_CONNECTION: Final = "this reader has no connection left; ask again in a moment"
_NO_ROOM: Final = "this reader has no room for one more body; ask again in a moment, or another one"


class Phase(Enum):
    """What a connection waits for."""

    WORK = auto()
    """The service."""
    HEADER = auto()
    BODY = auto()
    ANSWER = auto()
    """The client, which has not read what was sent."""


class Connections:
    """All connections of one service; for the thread of its event loop."""

    def __init__(
        self,
        settings: HttpSettings,
        *,
        now: Callable[[], float] = time.monotonic,
        grace_seconds: float = GRACE_SECONDS,
        counted: Callable[[int], None] | None = None,
    ) -> None:
        """Take the limits; see `fitting`.

        ``counted`` gets how many connections are open, whenever that changes.
        """
        self.now = now
        self._grace_seconds = grace_seconds
        self._counted = counted
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        """Where the kernel puts what a connection gets, which takes it out at once."""
        self.take_limits(settings)
        self._open: dict[GuardedConnection, None] = {}
        self._waiting: dict[GuardedConnection, None] = {}
        """Those that wait for their client; the longest comes first."""
        self._unread: deque[GuardedConnection] = deque()
        """Those with bytes of a body that have not been looked at."""
        self._counting = threading.Lock()
        self._buffered = 0
        self._highest = 0
        """Bytes that were held at a time since memory was given back last."""
        self._header_seconds = 0.0
        """Spent on headers since the event loop did everything else."""
        self._timer: asyncio.TimerHandle | None = None

    def take_limits(self, settings: HttpSettings) -> None:
        """Go by these limits from now on; no connection is cut for that."""
        self._max_connections = settings.max_connections
        self._max_buffered_bytes = settings.max_buffered_bytes
        self._seconds = {
            Phase.HEADER: settings.header_seconds,
            Phase.BODY: settings.body_seconds,
            Phase.ANSWER: settings.send_seconds,
        }

    @property
    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn makes a connection with."""
        made: object = functools.partial(GuardedConnection, self)
        return cast("type[asyncio.Protocol]", made)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def buffered_bytes(self) -> int:
        """What is held of bodies and answers."""
        return self._buffered

    def admit(self, connection: "GuardedConnection") -> bool:
        """Count one more in, if need be in place of another; whether there is a place.

        Requests that came whole in the same moment are at work, if only for a moment: while all
        are, some more come in, and make room for each other as soon as one is not.
        """
        while len(self._open) >= self._max_connections:
            if self._make_room(connection):
                continue
            if len(self._open) < _with_spare(self._max_connections):
                break
            log.warning("connections.all_at_work", most=self._max_connections)
            return False
        self._open[connection] = self._waiting[connection] = None
        self._count()
        if self._timer is None:
            self._timer = connection.loop.call_later(_EXPIRE_SECONDS, self.tick, connection.loop)
        return True

    def leave(self, connection: "GuardedConnection") -> None:
        """Count one out; safe twice."""
        self._open.pop(connection, None)
        self._count()
        self._waiting.pop(connection, None)
        self.release(connection)

    def _count(self) -> None:
        if self._counted is not None:
            self._counted(len(self._open))

    def phase_changed(self, connection: "GuardedConnection") -> None:
        """It waits for something else from now on."""
        self._waiting.pop(connection, None)
        if connection in self._open and connection.phase is not Phase.WORK:
            self._waiting[connection] = None

    def waiting(self) -> tuple["GuardedConnection", ...]:
        """Those that wait for their client; the longest comes first."""
        return tuple(self._waiting)

    def hold(self, connection: "GuardedConnection", count: int) -> bool:
        """Count ``count`` bytes for it, if need be in place of another's; whether there is room."""
        while not self.hold_free(connection, count):
            if not self._make_room(connection, holding=True):
                log.warning("buffers.all_at_work", buffered_bytes=self._buffered)
                return False
        return True

    def hold_free(self, connection: "GuardedConnection", count: int) -> bool:
        """Count ``count`` bytes for it, if there is room without any other's; from any thread."""
        with self._counting:
            if self._buffered + count > self._max_buffered_bytes:
                return False
            if connection in self._open:  # one that was cut meanwhile holds nothing
                connection.held_bytes += count
                self._buffered += count
                self._highest = max(self._highest, self._buffered)
        return True

    def release(self, connection: "GuardedConnection") -> None:
        """Nothing is held for it any longer."""
        with self._counting:
            self._buffered -= connection.held_bytes
            connection.held_bytes = 0

    def read_in_turn(self, connection: "GuardedConnection") -> None:
        """Have it read its body when it is its turn."""
        if not self._unread:
            connection.loop.call_soon(self._read_bodies, connection.loop)
        self._unread.append(connection)

    @property
    def has_unread(self) -> bool:
        """Whether a body waits for its turn."""
        return bool(self._unread)

    @property
    def has_time_for_headers(self) -> bool:
        """Whether a header may be read at once."""
        return self._header_seconds < TURN_SECONDS

    def spend(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """A header took so long."""
        if not self._header_seconds:
            loop.call_soon(self._begin_headers)
        self._header_seconds += max(seconds, 1e-9)

    def _begin_headers(self) -> None:
        self._header_seconds = 0.0

    def _read_bodies(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read bodies for a moment; the rest after whatever else the loop has to do."""
        end = self.now() + TURN_SECONDS
        while self._unread:
            connection = self._unread.popleft()
            if connection.read_body():
                self._unread.append(connection)
            if self.now() >= end:
                break
        if self._unread:
            loop.call_soon(self._read_bodies, loop)

    def expire(self) -> None:
        """End every connection that has waited for its client too long."""
        now = self.now()
        for connection in list(self._open):
            connection.update_phase()
            limit = self._seconds.get(connection.phase)
            if limit is not None and now - connection.since >= limit:
                connection.expire(limit)

    def tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is over, give back memory that was held, and come again in a while."""
        self._timer = None
        self.expire()
        if self._highest > _TRIMMED_BYTES > self._buffered:
            self._highest = 0
            loop.run_in_executor(None, give_memory_back)
        if self._open or self._highest > _TRIMMED_BYTES:
            self._timer = loop.call_later(_EXPIRE_SECONDS, self.tick, loop)

    def _make_room(self, newcomer: "GuardedConnection", *, holding: bool = False) -> bool:
        """Cut the connection that has waited for its client the longest, if there is one.

        One that has had a request has some grace: a client that reads, sends or thinks as fast as
        it can is waited for as well, again and again for a moment.

        Args:
            newcomer: for which room is made; it is not cut itself.
            holding: whether to cut one that gives back some bytes.
        """
        now = self.now()
        for longest in tuple(self._waiting):
            if longest is newcomer or (holding and not longest.held_bytes):
                continue
            since = longest.since
            if longest.update_phase() is Phase.WORK:
                self._waiting.pop(longest, None)  # whatever it was doing there
                continue
            if longest.since != since:
                continue  # it has moved on, and stands at the end now
            if longest.has_asked and now - since < self._grace_seconds:
                continue
            log.warning("connection.made_room", waited_for=longest.phase.name.lower())
            self.leave(longest)
            longest.transport.abort()
            return True
        return False


class GuardedConnection(H11Protocol, asyncio.BufferedProtocol):
    """One connection, with the time of its client and the memory that is held for it."""

    flow: "_Flow"

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._all = connections
        self.conn: Requests = Requests(h11.SERVER, MAX_HEADER_BYTES)
        self.app_state = {**self.app_state, _STATE: self}
        self.phase = Phase.HEADER
        self.since = connections.now()
        """Since when it is in its phase."""
        self.held_bytes = 0
        """Counted by `Connections`."""
        self._ahead = 0
        self._later = b""
        """What came while there was no time to read it."""
        self._is_answered = False
        """Whether the next request waits for this answer to be read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit it, or refuse it."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        set_up(transport.get_extra_info("socket"))
        if not self._all.admit(self):
            self.refuse(503, _NO_CONNECTION)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._all.leave(self)
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Where the next bytes go."""
        return self._all.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self.data_received(bytes(self._all.read_buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Read a header at once if there is time, and a body when it is its turn."""
        if not (self._is_receiving or self._all.has_time_for_headers):
            self._later += data
            self._queue()
            self.update_phase()
            return
        started = self._all.now()
        self._read(data)
        self._all.spend(self._all.now() - started, self.loop)

    def _read(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self.transport.is_closing():
            if self._is_receiving:
                self._keep(data[start:], is_ahead=not start)
                break
            # In pieces, since h11 limits a header only where more of it is to come.
            piece = data[start : start + _HEADER_PIECE_BYTES]
            start += len(piece)
            if self._is_whole:
                self._ahead += len(piece)
                if self._ahead > MAX_HEADER_BYTES:
                    self.transport.abort()
                    return
            self.conn.begin_turn()
            super().data_received(piece)
            self._queue_rest()
            if self._is_receiving and not self._hold_body(len(piece)):
                return
        self.update_phase()

    def read_body(self) -> bool:
        """Read some pieces of what came; whether there are more."""
        if self._later and not self.transport.is_closing():
            data, self._later = self._later, b""
            self._read(data)  # it is queued already, and does not queue itself again
        elif not self.transport.is_closing():
            self.conn.begin_turn()
            self.handle_events()
        if self.transport.is_closing():
            return False
        if self.conn.has_more:
            return True
        self.flow.behind = False
        self.flow.resume_reading()
        self.update_phase()
        return False

    def on_response_complete(self) -> None:
        """The next request may begin, once this answer is read; it may be there already."""
        if self.flow.write_paused and not self.transport.is_closing():
            self._is_answered = True
            self.flow.pause_reading()
            self.update_phase()
            return
        self._ahead = 0
        self.conn.begin_turn()
        super().on_response_complete()
        self._queue_rest()
        self.update_phase()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self.update_phase()

    def resume_writing(self) -> None:
        """The client has read what was waiting."""
        super().resume_writing()
        if self._is_answered:
            self._is_answered = False
            self.on_response_complete()
        self._enter(Phase.WORK)  # if it waits for the client again, that begins now
        self.update_phase()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as a request: in our words, and our shape."""
        self.refuse(400, self.conn.mistake or msg)

    @property
    def has_asked(self) -> bool:
        """Whether the header of a request has ever come whole."""
        return self.cycle is not None

    @property
    def gone(self) -> bool:
        """Whether no client waits for an answer."""
        return self.transport.is_closing()

    def hold(self, count: int) -> bool:
        """Count bytes that are held for this client; ``False``: there is no room for them."""
        return self._all.hold(self, count)

    def hold_on_thread(self, count: int) -> bool:
        """As `hold`, on another thread than the event loop's, which makes room if there is none."""
        if self._all.hold_free(self, count):
            return True
        held: Future[bool] = Future()

        def ask() -> None:
            try:
                held.set_result(self.hold(count))
            except BaseException as error:
                held.set_exception(error)  # or the thread would wait for ever
                raise

        self.loop.call_soon_threadsafe(ask)
        return held.result()

    def release(self) -> None:
        """They are not held any longer."""
        self._all.release(self)

    def update_phase(self) -> Phase:
        """See what it waits for now."""
        phase = self._phase()
        if phase is not self.phase:
            self._enter(phase)
        return phase

    def _enter(self, phase: Phase) -> None:
        """Be in this phase from now on; the only place that sets it."""
        self.phase, self.since = phase, self._all.now()
        self._all.phase_changed(self)

    def expire(self, seconds: float) -> None:
        """End it, since its client took too long."""
        if self.phase is Phase.ANSWER:
            log.warning("answer.unread", seconds=seconds)
            self.transport.abort()
            return
        what = self.phase.name.lower()
        self.refuse(408, f"the {what} of a request may take {seconds:g} s")

    def refuse(self, status: int, detail: str) -> None:
        """Answer without the application, as far as an answer can still be given, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True  # the application stops waiting for it
            self.cycle.message_event.set()
        body = ProblemDetails.of(status, detail).to_bytes()
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(body)))]
        headers += [("connection", "close")]
        if status == 503:
            headers += [("retry-after", str(RETRY_AFTER_SECONDS))]
        try:
            pieces = [
                self.conn.send(h11.Response(status_code=status, headers=headers)),
                b"" if self.conn.is_head else self.conn.send(h11.Data(data=body)),
                self.conn.send(h11.EndOfMessage()),
            ]
        except h11.LocalProtocolError:  # there was an answer already
            self.transport.abort()
            return
        self.transport.write(b"".join(piece for piece in pieces if piece))
        self.transport.close()

    def _keep(self, data: bytes, *, is_ahead: bool) -> None:
        """Keep bytes of a body until it is its turn.

        A little that came with its header is read at once where nobody waits for a turn: most
        bodies are whole by then, and to stop and go on reading takes two calls of the system.
        """
        if self._hold_body(len(data)):
            self.conn.receive_data(data)
            if is_ahead or len(data) > _LITTLE_BYTES or self._all.has_unread:
                self.conn.has_more = True
            else:
                self.conn.begin_turn()
                self.handle_events()
            self._queue_rest()

    def _hold_body(self, count: int) -> bool:
        if self.hold(count):
            return True
        self.refuse(503, _NO_ROOM)
        return False

    def _queue_rest(self) -> None:
        """Read what is left in turn, and nothing more before."""
        if self.conn.has_more:
            self._queue()

    def _queue(self) -> None:
        if not self.flow.behind and not self.transport.is_closing():
            self.flow.behind = True
            self.flow.pause_reading()
            self._all.read_in_turn(self)

    @property
    def _is_whole(self) -> bool:
        """Whether the request that is answered now has come whole."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and not self.cycle.more_body

    @property
    def _is_receiving(self) -> bool:
        """Whether a body is coming."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and self.cycle.more_body

    def _phase(self) -> Phase:
        if self._later:
            return Phase.WORK
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete
        if self.flow.write_paused or (idle and self.transport.get_write_buffer_size()):
            return Phase.ANSWER
        if idle:
            return Phase.HEADER
        return Phase.BODY if cycle.more_body and not cycle.response_started else Phase.WORK


class _Flow(FlowControl):
    """Reads no more of a connection while something of it has not been looked at."""

    behind = False

    def resume_reading(self) -> None:
        """Read on, unless something is left."""
        if not self.behind:
            super().resume_reading()


_STATE: Final = "indexrelay_connection"


def connection_of(scope: Scope) -> GuardedConnection | None:
    """The connection of a request; ``None`` where another server runs the application."""
    found: GuardedConnection | None = scope.get("state", {}).get(_STATE)
    return found


def _with_spare(most: int) -> int:
    """How many connections there are at most, where so many may be."""
    return most + max(_FEWEST_SPARE, most // _SPARE_PART)


def fitting(settings: HttpSettings) -> HttpSettings:
    """The settings as far as this process can keep them.

    Connections leave some files to everything else, whatever clients do; searches leave half of the
    connections to those who ask for less, and who waits for a fresh answer leaves three quarters.
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.max_connections
    if soft != resource.RLIM_INFINITY:
        left = soft - len(os.listdir("/proc/self/fd")) - _RESERVED_DESCRIPTORS  # noqa: PTH208 - names do
        left -= 2 * ACCEPTED_AT_ONCE
        while most > 1 and _with_spare(most) > left:
            most -= 1
    if most < settings.max_connections:
        log.warning(
            "connections.limited",
            most=most,
            open_files=soft,
            advice="let the process open more files (ulimit -n), or set http.max_connections",
        )
    searching = max(1, most // 2)
    running = min(settings.searches, searching)
    waiting = min(settings.max_waiting_searches, searching - running)
    return settings.model_copy(
        update={
            "max_connections": most,
            "searches": running,
            "max_waiting_searches": waiting,
            "max_waiting_reads": min(settings.max_waiting_reads, max(1, most // 4)),
        }
    )


def give_memory_back() -> None:
    """Have the C library return what it keeps of memory that is free: by itself it keeps most."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)


def give_large_memory_back_at_once() -> None:
    """Have the C library return what is large as soon as it is free; called once, by a process.

    glibc lets this go after the first large block that is freed: from then on it keeps them, for
    each thread apart, and answers that nobody reads made it keep 150 MB more than they have bytes.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def set_up(opened: socket.socket | None) -> None:
    """Have the kernel send small packets at once, and keep little that is not read."""
    if opened is None:
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if opened.family != socket.AF_UNIX:
        # asyncio does so only where the listening socket names its protocol, which ours, made by
        # `socket.create_server`, does not: header and body of an answer would wait for each other.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
