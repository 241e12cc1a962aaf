"""What builds write to their standard output and error: read here, and told in the log.

A build owns neither: its process has a pipe in their place, whose other end is read by a thread of
the rebuilder. So nothing that a user's function prints, a C library writes or a child of a child
says gets between a command's JSON or the lines of a log, and everything is told with the component
that said it. Whoever prints without end is cut short; the build goes on.
"""

import os
import select
from types import TracebackType
from typing import Final, Self

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.supervised_thread import SupervisedThread

_log = get_logger(__name__)
LOGGER: Final = __name__
"""Commands that answer and end show warnings only, and these lines nevertheless."""
_PIECE_BYTES: Final = 64 * 1024
_QUIET_SECONDS: Final = 0.05
"""What comes in one go, such as a traceback, is one event: it ends when it is quiet so long."""
_MOST_BYTES: Final = 100_000
"""Of one build; beyond, it is read and counted."""
_LINGER_SECONDS: Final = 0.2
"""How long what the build left in the pipe is waited for; a process that it left may hold it."""


class Output:
    """The write end of a pipe for a child, and a thread that tells what comes out of it.

    Hand `descriptor` to the child inside the ``with``; leaving it waits for the rest.
    """

    def __init__(self, **fields: str) -> None:
        """``fields`` go into every event: ``component="map"``."""
        self._fields = fields
        self._read, self.descriptor = os.pipe()
        self._ended, self._end = os.pipe()
        self._bytes = 0
        # Nobody may stop reading: a full pipe stops the build.
        self._thread = SupervisedThread(
            self._listen,
            name="indexrelay-output",
            wait=lambda seconds: bool(select.select([self._ended], [], [], seconds)[0]),
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)
        os.close(self._end)
        self._thread.join()
        for descriptor in (self._read, self._ended):
            os.close(descriptor)

    def _listen(self) -> None:
        """Until nobody can write any more, or the build ended and it was quiet since."""
        said = bytearray()
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        over = False
        while True:
            wait = _LINGER_SECONDS if over else _QUIET_SECONDS if said else None
            ready = [number for number, _ in poll.poll(None if wait is None else wait * 1000)]
            if self._read in ready:
                piece = os.read(self._read, _PIECE_BYTES)
                said += piece
                if piece and len(said) < _PIECE_BYTES:
                    continue
                self._tell(said)
                said.clear()
                if not piece:
                    break
            elif self._ended in ready:
                # What it wrote is in the pipe already; a process that it left may hold that for
                # ever, and is not waited for.
                over = True
                poll.unregister(self._ended)
            else:
                self._tell(said)
                said.clear()
                if over:
                    break
        if self._bytes > _MOST_BYTES:
            _log.warning(
                "build.said_too_much", **self._fields, bytes=self._bytes, shown=_MOST_BYTES
            )

    def _tell(self, said: bytearray) -> None:
        room = _MOST_BYTES - self._bytes
        self._bytes += len(said)
        text = said[: max(room, 0)].decode(errors="replace").rstrip()
        if text:
            _log.info("build.said", **self._fields, text=text)
