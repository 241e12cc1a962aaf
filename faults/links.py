"""A TCP link to the server that can be cut, left half open, or made slow.

``cut`` refuses and ends connections. ``half_open`` keeps them and lets nothing through; what was
open then is dead for good, as after a router's restart. ``slow`` holds back each piece for five
seconds, and delivers it: also what its sender has long given up on.
"""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Literal

Mode = Literal["open", "cut", "half_open", "slow"]
DELAY_SECONDS = 5.0
_PIECE_BYTES = 65536


class Link:
    """Listens on a port of the loopback address, for one server on a unix socket."""

    def __init__(self, server: Path) -> None:
        self._server = str(server)
        self._changed = threading.Condition()
        self._mode: Mode = "open"
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        self._threads = [threading.Thread(target=self._accept, name=f"link-{port}")]
        self._threads[0].start()

    def become(self, mode: Mode) -> None:
        """From now on it is so."""
        with self._changed:
            before, self._mode = self._mode, mode
            self._changed.notify_all()
        if mode == "cut" or before == "half_open":
            self._end_all()

    def close(self) -> None:
        """End every connection and every thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._end_all()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            if self._mode == "cut":
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # the server is away, and so is the link
                server.close()
                client.close()
                continue
            pair = _Pair(client, server)
            with self._changed:
                self._sockets |= {client, server}
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._pump, args=(pair, source, target))
                self._threads.append(thread)
                thread.start()

    def _pump(self, pair: "_Pair", source: socket.socket, target: socket.socket) -> None:
        """One direction of one connection, until one side ends it."""
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                self._hold()
                target.sendall(piece)
        pair.end()
        if pair.done():
            with self._changed:
                self._sockets -= {source, target}
            source.close()
            target.close()

    def _hold(self) -> None:
        """Wait as long as the mode asks for."""
        due = time.monotonic() + DELAY_SECONDS
        with self._changed:
            while not self._closed and (
                self._mode == "half_open" or (self._mode == "slow" and time.monotonic() < due)
            ):
                self._changed.wait(max(0.0, due - time.monotonic()) or None)

    def _end_all(self) -> None:
        with self._changed:
            sockets = list(self._sockets)
        for each in sockets:
            with contextlib.suppress(OSError):  # it has ended by itself
                each.shutdown(socket.SHUT_RDWR)


class _Pair:
    """The two sockets of one connection; both directions end together."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets
        self._left = len(sockets)
        self._lock = threading.Lock()

    def end(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the other direction has closed it
                each.shutdown(socket.SHUT_RDWR)

    def done(self) -> bool:
        """Whether this was the last direction."""
        with self._lock:
            self._left -= 1
            return self._left == 0
