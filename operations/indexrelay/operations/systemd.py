"""What a role reports to systemd: that it is ready, that its loop turns, and that it stops.

The protocol is that of sd_notify(3): each report is one datagram of ``NAME=VALUE`` lines to the
unix socket that ``NOTIFY_SOCKET`` names. A name that begins with ``@`` is one of the abstract
namespace.

`ServiceManager.alive` is called by the loop that must not hang, or with the number of turns of that
loop. There is no thread for it: such a thread would go on while the loop hangs.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final, Self

from indexrelay.schemas.loggers import get_logger

_log = get_logger(__name__)

SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
START_SECONDS: Final = 90
"""How long a start may go on after the last report of a loop that turns and is not ready."""


class ServiceManager:
    """The service manager that started this process; for one thread."""

    def __init__(self, address: str, *, watches: bool) -> None:
        """Report to the socket at ``address``; ``watches``: it wants to hear of each turn."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watches = watches
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # a manager that does not read holds up no loop
        self._is_ready = False
        self._turns: int | None = None
        self._said = ""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self | None:
        """The one that the variables name; ``None``: there is none.

        Takes its variables out, so that no child process reports in this one's place.
        """
        address = environ.pop(SOCKET, "")
        watchdog, pid = environ.pop(_WATCHDOG, ""), environ.pop(_WATCHDOG_PID, "")
        if not address:
            return None
        if address[0] not in "/@" or len(address) == 1:
            _log.warning("systemd.unknown_socket", address=address)
            return None
        return cls(address, watches=bool(watchdog) and pid in ("", str(os.getpid())))

    def alive(self, *, ready: bool, turns: int | None = None) -> None:
        """Report that the loop turns.

        Args:
            ready: whether the role does its work; once it did, it stays ready.
            turns: of the loop so far, where another thread runs it: nothing is reported while the
                number stays the same. ``None``: the caller is the loop.
        """
        if turns is not None and turns == self._turns:
            return
        self._turns = turns
        if ready and not self._is_ready:
            self._is_ready = self._report("READY=1")
        elif not self._is_ready:
            self._report(f"EXTEND_TIMEOUT_USEC={START_SECONDS * 1_000_000}")
        if self._watches:
            self._report("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that it goes on with other settings, until it is ready again."""
        self._is_ready = False
        self._report(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def say(self, sentence: str) -> None:
        """Show a sentence in ``systemctl status``; empty: none."""
        if sentence != self._said and self._report(f"STATUS={' '.join(sentence.split())}"):
            self._said = sentence

    def stopping(self) -> None:
        """Report that it stops."""
        self._report("STOPPING=1")

    def close(self) -> None:
        """Close the socket; safe twice."""
        self._socket.close()

    def _report(self, line: str) -> bool:
        """Send it; whether it went out. What did not is sent again with the next turn."""
        try:
            self._socket.sendto(line.encode(), self._address)
        except OSError as error:
            _log.debug("systemd.not_reached", error=str(error))
            return False
        return True
