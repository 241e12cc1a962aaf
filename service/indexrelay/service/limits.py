"""What one request may be: its host, the size of its body, and a thread for its search.

How long a request may take to come, half sent or not at all, is a matter of its connection:
`indexrelay.service.connections`.

A web page may resolve a name of its own to 127.0.0.1, and then read what a reader there answers, as
if it were the page's own server (DNS rebinding). The request names that host, and is refused.

Bodies are received up to a size before anything looks into them. Searches run a few at a time:
Python runs one thread at a time, and forty of them that parse and encode would each take their turn
before the event loop has its own again.
"""

import asyncio
import contextlib
import contextvars
import ipaddress
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Literal, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.connections import GuardedConnection, connection_of
from indexrelay.service.problems import OverloadedError, problem


def names_host(given: str, hosts: Collection[str]) -> bool:
    """Whether a Host header names this machine by a loopback name or address, or one of ``hosts``.

    Args:
        given: the header, with or without a port.
        hosts: in lower case, without a port.
    """
    host = given.strip().lower()
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        if port and not (port.startswith(":") and port[1:].isdigit()):
            return False
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host in hosts or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HostCheck:
    """ASGI middleware; answers 421 to a request for another host."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or refuse."""
        if scope["type"] == "http":
            given = (value for name, value in scope["headers"] if name == b"host")
            host = next(given, b"localhost").decode("latin-1")  # HTTP/1.0 may name none
            if not names_host(host, self._hosts):
                detail = f"this reader does not answer as {host!r:.100}; add it to http.hosts"
                await problem(421, detail, close=True)(scope, receive, send)
                return
        await self._app(scope, receive, send)


T = TypeVar("T")

_BLOCK_BYTES: Final = 64 * 1024
_PATIENCE_SECONDS: Final = 0.001
"""What a search takes at most, as a rule."""


class BodyLimit:
    """ASGI middleware; answers 413 to a body that is, or says that it is, larger than it may be."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive a body whole, up to the limit, and hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = connection_of(scope)
        try:
            message = await self._received(scope, receive)
            if message is None:
                detail = f"the body may have at most {self._max_bytes} bytes"
                await problem(413, detail, close=True)(scope, receive, send)
            elif message["type"] != "http.disconnect":
                await self._app(scope, replayed(message, receive), send)
        finally:
            if connection is not None:
                connection.release()

    async def _received(self, scope: Scope, receive: Receive) -> Message | None:
        """The whole body as one message, or the client's leaving; ``None``: it is too large."""
        if _announced(scope) > self._max_bytes:
            return None
        body, size = _Blocks(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return message
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._max_bytes:
                return None
            body.append(piece)
            if not message.get("more_body", False):
                return {"type": "http.request", "body": body.joined(), "more_body": False}


class _Blocks:
    """Collects a body in blocks of one size: one that grows is copied, and leaves gaps behind."""

    def __init__(self) -> None:
        self._full: list[bytes] = []
        self._last = bytearray()

    def append(self, piece: bytes) -> None:
        """Add what has come."""
        if len(self._last) + len(piece) > _BLOCK_BYTES and self._last:
            self._full.append(bytes(self._last))
            self._last = bytearray()
        self._last += piece

    def joined(self) -> bytes:
        """All of it."""
        return b"".join((*self._full, self._last))


def _announced(scope: Scope) -> int:
    """What the header says of the body's length; the server has checked that it is a number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def replayed(message: Message, receive: Receive) -> Receive:
    """Give ``message`` first, then whatever comes."""
    pending = [message]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


class AnswerRoom:
    """What one answer takes of `http.max_buffered_bytes`, counted before it is encoded."""

    def __init__(self, connection: GuardedConnection | None) -> None:
        """``connection``: whose answer it is; ``None``: another server's, and nothing counts."""
        self._connection = connection
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Count so many bytes; to be called on the thread that answers, not on the event loop's.

        Raises:
            OverloadedError: there is no room for them.
        """
        if self._connection is None:
            return
        if not self._connection.hold_on_thread(count):
            raise OverloadedError("answers on their way, and no room for one more")
        self.held_bytes += count


class Room:
    """Where so many requests wait, or are worked on; for one event loop.

    One caller alone, of several, takes half of it, so that there is some for the others.
    """

    def __init__(self, most: int, settings: HttpSettings, what: str) -> None:
        """``what``: those who are in it, as the error says it: ``searches{} to answer``."""
        self._most = most
        self._most_of_one = most if len(settings.tokens) < 2 else max(1, most // 2)
        self._what = what
        self._inside: Counter[str | None] = Counter()

    def __len__(self) -> int:
        """How many there are."""
        return self._inside.total()

    @contextlib.contextmanager
    def place(self, caller: str | None) -> Iterator[None]:
        """Be one of them; takes and raises as `enter`."""
        self.enter(caller)
        try:
            yield
        finally:
            self.leave(caller)

    def enter(self, caller: str | None) -> None:
        """Be one of them until `leave`.

        Args:
            caller: whose token was shown; ``None``: nobody has to.

        Raises:
            OverloadedError: there is no room.
        """
        if len(self) >= self._most:
            raise OverloadedError(f"{self._most} {self._what.format('')}")
        if self._inside[caller] >= self._most_of_one:
            raise OverloadedError(f"{self._most_of_one} {self._what.format(' of this token')}")
        self._inside[caller] += 1

    def leave(self, caller: str | None) -> None:
        """Be none of them any more."""
        self._inside[caller] -= 1


class FewThreads:
    """Runs what another machine may keep waiting, such as a look into a database, on a few threads
    of its own, so that searches keep theirs; for one event loop."""

    def __init__(self, count: int, what: str) -> None:
        """``what``: there is too much of, where nobody gets a thread."""
        self._what = what
        self._limiter = CapacityLimiter(count)
        self._turns = asyncio.Semaphore(count)

    async def run(
        self, function: Callable[[], T], *, seconds: float, answer_seconds: float | None = None
    ) -> T:
        """What ``function`` returns.

        Args:
            function: runs to its end, however long that takes.
            seconds: for which a thread is waited for.
            answer_seconds: for which the end of ``function`` is waited for; ``None``: as long as it
                takes. Its thread is not free before that.

        Raises:
            OverloadedError: there was none in time.
            TimeoutError: ``function`` did not end in time.
            Exception: what ``function`` raises.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise OverloadedError(self._what) from None
        work = asyncio.ensure_future(  # which only the end of the loop cancels
            anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)
        )
        work.add_done_callback(self._ended)
        async with asyncio.timeout(answer_seconds):
            return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[Any]) -> None:
        self._turns.release()
        if not work.cancelled():
            work.exception()  # so that one that nobody waits for any more is not warned of


@dataclass(eq=False, slots=True)
class _Call:
    """One call for a thread."""

    function: Callable[[], Any]
    context: contextvars.Context
    ended: asyncio.Future[None]
    """Of the loop that waits for it."""
    is_over: bool = False
    """Whether the loop knows that it has ended."""
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        """Call it; on the thread."""
        try:
            self.result = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            self.error = error


class OwnThreads:
    """Runs functions on a few threads of its own; for one event loop.

    Most calls are short, and Python runs one thread at a time: to wake a thread, and the loop after
    it, takes as long as a search. So a thread that is awake takes the next call as well, another is
    woken only for what has waited `_PATIENCE_SECONDS`, and the loop is woken once for all that
    ended in about that time.
    """

    def __init__(self, count: int, name: str) -> None:
        """Threads start when they are needed, and end with this object."""
        self._work = _Work()
        self._count = count
        self._name = name
        self._threads = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns, once it has ended, also where the task is cancelled before.

        Raises:
            Exception: what ``function`` raises.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._looking = loop, None
            self._work.tell = partial(loop.call_soon_threadsafe, self._work.deliver)
            self._work.is_told = False
        call = _Call(function, contextvars.copy_context(), loop.create_future())
        self._work.calls.append(call)
        if self._work.wakes_first():
            self._wake()
        elif self._looking is None:
            self._looking = loop.call_later(_PATIENCE_SECONDS, self._look, loop)
        await _ending(call)
        if call.error is None:
            result: T = call.result
            return result
        try:
            raise call.error
        finally:
            del call  # or its traceback would hold itself

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake one more thread for calls that wait.

        And who waits for a call that has ended: its thread may be in a long one by now, which it
        had found in the queue.
        """
        self._looking = None
        self._work.deliver()
        if self._work.calls:
            if self._work.wakes_another(self._count):
                self._wake()
            self._looking = loop.call_later(_PATIENCE_SECONDS, self._look, loop)

    def _wake(self) -> None:
        if self._threads < self._work.awake:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._work.run, name=name, daemon=True).start()
            weakref.finalize(self, self._work.wakes.put, False)
        self._work.wakes.put(True)


class _Work:
    """What the threads of one `OwnThreads` share with it; it does not keep that alive."""

    def __init__(self) -> None:
        self.calls: deque[_Call] = deque()
        self.wakes: SimpleQueue[bool] = SimpleQueue()
        """One for each thread that is to wake; ``False``: to end."""
        self.awake = 0
        """Threads that work, or were woken."""
        self.is_told = False
        """Whether the loop is going to look at what has ended."""
        self.tell: Callable[[], object] = lambda: None
        self._ended: deque[_Call] = deque()
        self._counting = threading.Lock()

    def wakes_first(self) -> bool:
        """Count one thread as awake, where none is; whether it is to be woken."""
        return self.wakes_another(1)

    def wakes_another(self, most: int) -> bool:
        """Count one more as awake, where fewer than ``most`` are; whether it is to be woken."""
        with self._counting:
            if self.awake >= most:
                return False
            self.awake += 1
        return True

    def run(self) -> None:
        """What each thread does."""
        while self.wakes.get():
            while True:
                self._work_off()
                with self._counting:
                    self.awake -= 1
                if not self.calls or not self.wakes_first():
                    break  # what came meanwhile has found this thread awake, or another one

    def _work_off(self) -> None:
        """Run calls until there are no more.

        While calls wait the loop looks by itself, so it is told only of what took longer.
        """
        untold_since: float | None = None
        while self.calls:
            try:
                call = self.calls.popleft()
            except IndexError:  # another thread has taken it
                break
            call.run()
            self._ended.append(call)
            del call
            now = time.monotonic()
            untold_since = untold_since or now
            if self.calls and now - untold_since >= _PATIENCE_SECONDS:
                untold_since = None
                self._tell()
        if untold_since is not None:
            self._tell()

    def _tell(self) -> None:
        if not self.is_told:
            self.is_told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits there
                self.tell()

    def deliver(self) -> None:
        """Wake who waits for what has ended; on the loop."""
        self.is_told = False  # before it looks: what ends from now on is told again
        while self._ended:
            call = self._ended.popleft()
            call.is_over = True
            if not call.ended.done():
                call.ended.set_result(None)


async def _ending(call: _Call) -> None:
    """Return when a call has ended; a task that is cancelled meanwhile is so afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not call.is_over:
        try:
            await call.ended
        except asyncio.CancelledError as error:
            cancelled, call.ended = error, asyncio.get_running_loop().create_future()
    if cancelled is not None:
        raise cancelled


class More(Enum):
    """What a search gives that gives its thread to others for now."""

    MORE = auto()


MORE: Final = More.MORE


class SearchThreads:
    """Runs searches on threads, a few at a time; for one event loop.

    Those that wait are taken in the order in which they came, but each caller's in turn with those
    of the others. A batch gives its thread back between its searches while others wait. So neither
    many nor long requests of one caller keep another's search for long.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._threads = OwnThreads(settings.searches, "indexrelay-search")
        self._free = settings.searches
        most = settings.searches + settings.max_waiting_searches
        self._room = Room(most, settings, "searches{} to answer")
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}
        """By caller; whose turn is next comes first."""

    def __len__(self) -> int:
        """How many run or wait."""
        return len(self._room)

    @property
    def others_wait(self) -> bool:
        """Whether a thread is waited for; from any thread."""
        return bool(self._waiting)

    async def run(
        self,
        function: Callable[[], T | Literal[More.MORE]],
        *,
        connection: GuardedConnection | None,
        caller: str | None = None,
    ) -> T:
        """What ``function`` returns, from a thread.

        Args:
            function: called again where it gives `MORE`, perhaps on another thread.
            connection: whose search it is; ``None``: another server's.
            caller: whose token was shown; ``None``: nobody has to.

        Raises:
            OverloadedError: too many searches are waiting, or the client has left.
            Exception: what ``function`` raises.
        """

        def work() -> T | Literal[More.MORE]:
            if connection is not None and connection.gone:
                raise OverloadedError("no client to answer")
            return function()

        self._room.enter(caller)
        try:
            while True:
                await self._take(caller)
                try:
                    found = await self._threads.run(work)
                finally:
                    self._give()
                if found is not MORE:
                    return found
        finally:
            self._room.leave(caller)

    async def _take(self, caller: str | None) -> None:
        """Wait for a thread."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # it had come already
            raise

    def _give(self) -> None:
        """Give a thread to the next caller who waits for one."""
        while self._waiting:
            caller = next(iter(self._waiting))
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
