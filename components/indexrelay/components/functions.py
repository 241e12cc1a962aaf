"""A user's function that a component's table names as ``module:function``.

The name is checked with the settings; the module is imported where the function is called. One that
need not be safe to call from several threads is called in turns (`Turns`), what it prints can go to
stderr (`Stdout`), and where somebody waits for what it returns, it has a time limit (`TimedCalls`).
"""

import contextvars
import importlib
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Annotated, Any, Final, TextIO, cast

from pydantic import AfterValidator

from indexrelay.components.errors import FunctionError
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings_file import where_was_looked

_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _checked(name: str) -> str:
    """Return ``name`` if it is ``module:function``, both as Python spells them.

    Raises:
        ValueError: it is not.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("a function is written module:function")
    return name


FunctionName = Annotated[str, AfterValidator(_checked)]
"""``module:function``."""


def function_of(name: str, error: type[FunctionError]) -> Callable[..., Any]:
    """Import the function called ``name`` (``module:function``).

    Raises:
        FunctionError: an ``error``: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as cause:  # a module may raise anything while it is imported
        reason = f"{module_name} cannot be imported: {describe_error(cause)}"
        if isinstance(cause, ModuleNotFoundError):
            reason += f" ({where_was_looked()})"
        raise error(name, reason) from cause
    function = getattr(module, attribute, None)
    if not callable(function):
        raise error(name, f"{module_name} has no function {attribute!r}")
    return function  # type: ignore[no-any-return] # callable() narrows to an unknown signature


class Turns:
    """Lets one call at a time into each function, whichever collections of the process name it."""

    def __init__(self) -> None:
        self._start_over()
        os.register_at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[str, object] = {}
        """By the name of the function: the call that has its turn."""

    def begin(self, function: str, call: object, *, longest_seconds: float) -> None:
        """Wait for the turn of a call; one that had its own for ``longest_seconds`` hangs."""
        with self._changed:
            self._changed.wait_for(lambda: function not in self._calls, longest_seconds)
            self._calls[function] = call

    def end(self, function: str, call: object) -> None:
        """Let the next one begin; safe twice."""
        with self._changed:
            if self._calls.get(function) is call:
                del self._calls[function]
                self._changed.notify_all()


TURNS: Final = Turns()


class Stdout:
    """Sends to stderr what some threads print, for as long as they say; other threads print on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._before: TextIO | None = None
        os.register_at_fork(after_in_child=self._start_over)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """What this thread prints goes to stderr until the ``with`` ends."""
        me = threading.get_ident()
        with self._lock:
            if not self._threads:
                self._before = sys.stdout
                sys.stdout = cast("TextIO", _Divided(self))
            self._threads.add(me)
        try:
            yield
        finally:
            with self._lock:
                self._threads.discard(me)
                if not self._threads and isinstance(sys.stdout, _Divided):
                    sys.stdout = cast("TextIO", self._before)

    @property
    def of_this_thread(self) -> Any:
        """Where a thread prints; ``None``: nowhere, in a process without these."""
        return sys.stderr if threading.get_ident() in self._threads else self._before

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._threads = {threading.get_ident()} & self._threads
        if not self._threads and isinstance(sys.stdout, _Divided):
            sys.stdout = cast("TextIO", self._before)


class _Divided:
    """In the place of ``sys.stdout``: each thread's own."""

    def __init__(self, streams: Stdout) -> None:
        self._streams = streams

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streams.of_this_thread, name)


STDOUT: Final = Stdout()


class OverdueError(IndexRelayError):
    """Raised when a call took longer than it may, or could not begin in that time."""


class TimedCalls:
    """Calls functions on threads of its own, and waits no longer than it may; for many threads.

    No call can be ended from outside. One that is overdue goes on, and what it gives is dropped. So
    the number of threads is bounded, and while all of them are overdue nothing is begun. Threads
    are kept, since a function may keep a model or a connection for each. They keep no process from
    ending. A forked child starts its own.
    """

    def __init__(self, name: str, *, most: int) -> None:
        """Start at most so many threads, each when it is first needed, under this name."""
        self._name = name
        self._most = most
        self._start_over()
        _TIMED.add(self)

    def after_fork_in_child(self) -> None:
        """Leave the threads, and what they do, to the parent."""
        self._start_over()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads = self._open = self._overdue = 0

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """What ``function`` returns within so many seconds.

        Raises:
            OverdueError: it took longer.
            BaseException: what it raises.
        """
        call = _Call(function, arguments)
        with self._lock:
            if self._overdue >= self._most:
                raise OverdueError
            if self._threads < min(self._open + 1, self._most):
                self._start_thread()
            self._open += 1
        self._calls.put(call)
        if not call.ended.wait(seconds) and self._give_up(call):
            raise OverdueError
        if call.error is None:
            return call.result
        try:
            raise call.error
        finally:
            del call  # or its traceback would hold itself

    def _start_thread(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as error:  # the process may have no more, or no memory for one
            if not self._threads:
                raise OverdueError from error
        else:
            self._threads += 1

    def close(self) -> None:
        """End the threads, each after the call that it is in."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _give_up(self, call: "_Call") -> bool:
        with self._lock:
            if call.ended.is_set():  # in this moment
                return False
            call.given_up = True
            self._overdue += call.begun
        return True

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            with self._lock:
                call.begun = not call.given_up
            if call.begun:
                call.run()
            with self._lock:
                self._overdue -= call.begun and call.given_up
                call.ended.set()
                self._open -= 1


_TIMED: Final["weakref.WeakSet[TimedCalls]"] = weakref.WeakSet()
"""One hook for all: there is one object for each version that is loaded, and hooks are for good."""


def _after_fork_in_child() -> None:
    """On the child's only thread: of two that came later each would begin anew."""
    for each in list(_TIMED):
        each.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(slots=True)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """What belongs to the caller, such as what its logs are bound to."""
    ended: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    given_up: bool = False
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.context.run(self.function, *self.arguments)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.error = error
