"""Requests as h11 reads them, a few lines and pieces at a time."""

import re
from typing import Any, Final

import h11

MAX_HEADER_LINES: Final = 100
"""Beside the request line. h11 takes 3 us for each; a header may else have 5,000 of them."""
_END_OF_HEADER: Final = re.compile(rb"\n\r?\n")
_LENGTHS: Final = frozenset({b"content-length", b"transfer-encoding"})
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
            self._check_lines()
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
            if len({name for name, _ in event.headers} & _LENGTHS) > 1:
                # A proxy in between may have taken the other one (RFC 9112, section 6.1).
                raise h11.RemoteProtocolError("the body has two lengths")
        if not joined:
            return event
        self._next = event
        return h11.Data(data=bytes(joined))

    def _check_lines(self) -> None:
        """Before h11 takes the header apart, which takes its time for each line."""
        come = bytes(self._receive_buffer)
        end = _END_OF_HEADER.search(come)
        lines = come.count(b"\n", 0, end.start() if end else len(come))
        if lines > MAX_HEADER_LINES:
            raise h11.RemoteProtocolError("too many header lines")

    def _count(self, size: int) -> None:
        self._left -= 1
        self._pieces += 1
        self._bytes += size
        if self._pieces > MAX_PIECES + self._bytes // PIECE_BYTES:
            raise h11.RemoteProtocolError("too many small pieces")
