"""Requests as h11 reads them, a few lines and pieces at a time, and by the letter of RFC 9112.

h11 is lenient where the RFC lets a server be. What a proxy in front may read in another way than we
do is refused here, since one of the two then answers a request that the other never saw: a line
that ends in LF alone, a body of two lengths, a length that HTTP/1.0 does not have.
"""

import re
from typing import Any, Final, NoReturn

import h11
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_HEADER_BYTES: Final = 16 * 1024
"""Of a request line with all its headers; also of what a client may send ahead of its answers."""
MAX_HEADER_LINES: Final = 100
"""Beside the request line. h11 takes 3 us for each; a header may else have 5,000 of them."""
_END_OF_HEADER: Final = re.compile(rb"\n\r?\n")
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
        if not joined:
            return event
        self._next = event
        return h11.Data(data=bytes(joined))

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

    def _checked(self, request: h11.Request) -> h11.Request:
        """The request, with its target as a path.

        Raises:
            h11.RemoteProtocolError: others may read it in another way.
        """
        lengths = {name for name, _ in request.headers} & _LENGTHS
        if len(lengths) > 1:  # section 6.1
            self._refuse("the body has two lengths")
        if b"transfer-encoding" in lengths and request.http_version < b"1.1":  # section 6.1
            self._refuse("HTTP/1.0 has no Transfer-Encoding")
        target = request.target
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


class HeadAsGet:
    """ASGI middleware: a HEAD is answered as a GET (RFC 9110, section 9.3.2).

    The server leaves the body away: it knows what was asked.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
