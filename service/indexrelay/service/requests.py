"""Requests as h11 reads them, a few lines and pieces at a time, and by the letter of RFC 9112.

h11 is lenient where the RFC lets a server be. What a proxy in front may read in another way than we
do is refused here, since one of the two then answers a request that the other never saw: a line
that ends in LF alone or goes on in the next one, a body of two lengths, a length that HTTP/1.0 does
not have, a slash of a path that is encoded.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.service.problems import problem

MAX_HEADER_BYTES: Final = 16 * 1024
"""Of a request line with all its headers; also of what a client may send ahead of its answers."""
MAX_HEADER_LINES: Final = 100
"""Beside the request line. h11 takes 3 us for each; a header may else have 5,000 of them. A body in
chunks may end in so many, too (its trailers)."""
_END_OF_HEADER: Final = re.compile(rb"\n\r?\n")
_FOLDED: Final = re.compile(rb"\r\n[ \t]")
_LENGTHS: Final = frozenset({b"content-length", b"transfer-encoding"})
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
"""A target in absolute form: who is asked, the path, the query. A user's name has no place in it
(RFC 9110, section 4.2.4)."""
MAX_PIECES: Final = 1000
"""A body may come in so many pieces …"""
PIECE_BYTES: Final = 256
"""… and in one more for each so many bytes. A piece takes about 16 us, however small it is."""
TURN_PIECES: Final = 64
"""Pieces of one body that are read in its turn: about a millisecond."""


class Requests(h11.Connection):
    """Joins the pieces of a body, a few in each turn, and refuses one in too many pieces."""

    has_more = False
    """Whether something is left for another turn."""
    is_head = False
    """Whether the request that is answered is a HEAD: its answer has no body, whatever it is."""
    mistake = ""
    """Why the last request was refused, if that was here and not in h11."""
    _may_skip_line = True
    """An empty line before a request is ignored (RFC 9112, section 2.2), but not many."""
    _left = TURN_PIECES
    _pieces = 0
    _bytes = 0
    _next: Any = None
    _head = b""
    """Of an answer, as it is sent with the first of its body."""

    def begin_turn(self) -> None:
        """Let some more pieces be read."""
        self._left = TURN_PIECES
        self.has_more = False

    def next_event(self) -> Any:
        """The next event; `h11.NEED_DATA` also at the end of a turn.

        Raises:
            h11.RemoteProtocolError: it is no request, has too many lines, or is in too many pieces.
        """
        if self.their_state is h11.IDLE:
            self._check_header()
        if self._next is not None:
            event, self._next = self._next, None
            return event
        joined = bytearray()
        while True:
            if not self._left:
                self.has_more = True
                event = h11.NEED_DATA
                break
            event = super().next_event()
            if not isinstance(event, h11.Data):
                break
            joined += event.data
            self._count(len(event.data))
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            self.is_head = event.method == b"HEAD"
            event = self._checked(event)
            if isinstance(self._reader, ChunkedReader):
                self._reader = _Chunks(self._refuse)
        if not joined:
            return event
        self._next = event
        return h11.Data(data=bytes(joined))

    def send(self, event: Any) -> bytes:  # type: ignore[override] # h11 has overloads
        """What is to be sent; the head of an answer goes with what follows it, in one packet."""
        given: bytes = super().send(event) or b""
        if isinstance(event, h11.Response):
            self._head = given
            return b""
        if self._head:
            given, self._head = self._head + given, b""
        return given

    def start_next_cycle(self) -> None:
        """Be ready for another request."""
        super().start_next_cycle()
        self.is_head, self._may_skip_line = False, True

    def _check_header(self) -> None:
        """Before h11 takes the header apart, which takes its time for each line."""
        come = bytes(self._receive_buffer)
        if self._may_skip_line and come.startswith(b"\r\n"):
            self._may_skip_line = False
            self._receive_buffer.maybe_extract_at_most(2)
            come = come[2:]
        end = _END_OF_HEADER.search(come)
        size = end.end() if end else len(come)
        if size > MAX_HEADER_BYTES:
            self._refuse(f"a header may have at most {MAX_HEADER_BYTES} bytes")
        if come.count(b"\n", 0, end.start() if end else size) > MAX_HEADER_LINES:
            self._refuse(f"a header may have at most {MAX_HEADER_LINES} lines")
        if come.count(b"\n", 0, size) != come.count(b"\r\n", 0, size):
            self._refuse("the lines of a header end in CR and LF")
        if _FOLDED.search(come, 0, size):  # RFC 9112, section 5.2
            self._refuse("a line of a header does not go on in the next one")

    def _checked(self, request: h11.Request) -> h11.Request:
        """The request, with its target as a path.

        Raises:
            h11.RemoteProtocolError: others may read it in another way.
        """
        if not request.http_version.startswith(b"1."):
            self._refuse("the version of a request is HTTP/1.0 or HTTP/1.1")
        lengths = {name for name, _ in request.headers} & _LENGTHS
        if len(lengths) > 1:  # section 6.1
            self._refuse("the body has two lengths")
        if b"transfer-encoding" in lengths and request.http_version < b"1.1":  # section 6.1
            self._refuse("HTTP/1.0 has no Transfer-Encoding")
        target = request.target
        if b"%2f" in target.partition(b"?")[0].lower():  # no name of ours has a slash
            self._refuse("a path has no encoded slash")
        if target.startswith(b"/") or target == b"*" or request.method == b"CONNECT":
            return request
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            self._refuse("the target of a request is a path, or an http URI without a user")
        host, path, query = absolute.groups(default=b"")
        # What the URI names counts, and not the Host beside it (section 3.2.2).
        others = [(name, value) for name, value in request.headers if name != b"host"]
        return h11.Request(
            method=request.method,
            target=(path or b"/") + query,
            headers=[(b"host", host), *others],
            http_version=request.http_version,
        )

    def _refuse(self, mistake: str) -> NoReturn:
        self.mistake = mistake
        raise h11.RemoteProtocolError(mistake)

    def _count(self, size: int) -> None:
        self._left -= 1
        self._pieces += 1
        self._bytes += size
        if self._pieces > MAX_PIECES + self._bytes // PIECE_BYTES:
            self._refuse("the body comes in too many small pieces")


class _Chunks(ChunkedReader):
    """Drops the lines that may follow the last chunk (trailers), which h11 takes apart one by one:
    64 kB of them kept the event loop for some tenths of a second."""

    def __init__(self, refuse: Callable[[str], NoReturn]) -> None:
        super().__init__()
        self._refuse = refuse
        self._lines = self._bytes = 0

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """The next piece of the body, or its end; ``None``: more has to come first."""
        if not self._reading_trailer:
            return super().__call__(buf)
        while (line := buf.maybe_extract_next_line()) is not None:
            if line == b"\r\n":
                return h11.EndOfMessage()
            self._lines += 1
            self._bytes += len(line)
            if self._lines > MAX_HEADER_LINES or self._bytes > MAX_HEADER_BYTES:
                self._refuse("what follows a body may be as long as a header")
            if line.count(b"\n") > 1:
                self._refuse("the lines after a body end in CR and LF")
        return None


class Methods:
    """ASGI middleware: what is asked of every path alike.

    A HEAD is answered as a GET (RFC 9110, section 9.3.2); the server leaves the body away, as it
    knows what was asked. An OPTIONS about the whole service has an answer, and a CONNECT, which is
    for proxies, is refused as a method.
    """

    def __init__(self, app: ASGIApp, *, writes: bool = False) -> None:
        """``writes``: whether entries may be written."""
        self._app = app
        more = ", PATCH, PUT" if writes else ""
        self._allowed = {"Allow": f"GET, HEAD, POST{more}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered."""
        answer: Response | None = None
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
            elif scope["method"] == "CONNECT":
                answer = problem(405, "this is no proxy", self._allowed)
            elif scope["method"] == "OPTIONS" and scope["path"] == "*":
                answer = Response(status_code=204, headers=self._allowed)
        await (answer or self._app)(scope, receive, send)
