"""Who a process is, among all that talk to one Redis.

People give a label, and may give the same one to several processes: to the workers of one web
server, or by mistake. So presence is kept under the label and an *instance* that is drawn at random
for each process. A process number would not do: containers each have a process 1, a host's name
repeats, and numbers are used again. What is drawn before a fork belongs to the parent; the child
draws its own, in whatever order a program forks and starts.
"""

import os
import re
import secrets
import socket
import weakref
from typing import Final, Protocol

from indexrelay.schemas.names import READER_PATTERN, member_id

_MAX_LENGTH: Final = 128
_INSTANCE_BYTES: Final = 8
"""Two of a million processes have the same 64 bits once in forty million such fleets."""


class Forked(Protocol):
    """Something that has to change in a forked child."""

    def after_fork_in_child(self) -> None:
        """Called in the child, on its only thread, before anything else runs there."""
        ...


def follow_forks(forked: Forked) -> None:
    """Call ``forked`` in every child from now on; it is not kept alive by that.

    In the order in which they were given, so that what others rest on comes first.
    """
    reference = weakref.ref(forked)

    def tell() -> None:
        alive = reference()
        if alive is not None:
            alive.after_fork_in_child()

    os.register_at_fork(after_in_child=tell)


class Identity:
    """One process under one label; safe to read from any thread."""

    def __init__(self, label: str | None = None, *, distinct_label: bool = False) -> None:
        """Draw an instance.

        Args:
            label: ``None``: the host's name and the process number.
            distinct_label: a label that was not given ends in a part of the instance instead, for
                whoever uses the label alone.

        Raises:
            ValueError: ``label`` may not name a reader or a rebuilder.
        """
        self._given = None if label is None else check_label(label)
        self._distinct_label = distinct_label
        self._draw()
        follow_forks(self)

    @property
    def host(self) -> str:
        """This machine's name; that of the container, in one."""
        return host_name()

    @property
    def member(self) -> str:
        """What presence is kept under."""
        return member_id(self.label, self.instance)

    def after_fork_in_child(self) -> None:
        """Become another process under the same label."""
        self._draw()

    def _draw(self) -> None:
        self.pid = os.getpid()
        self.instance = secrets.token_hex(_INSTANCE_BYTES)
        own = self.instance[:8] if self._distinct_label else str(self.pid)
        self.label = self._given or _default_label(own)


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname() or "localhost"


def check_label(label: str) -> str:
    """Return ``label`` if it may name a reader or a rebuilder.

    Raises:
        ValueError: it may not.
    """
    if re.fullmatch(READER_PATTERN[1:-1], label) is None:
        raise ValueError(
            f"id {label!r}: letters, digits, '_', '.' and '-' after a letter or a digit, "
            f"at most {_MAX_LENGTH}"
        )
    return label


def _default_label(own: str) -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", host_name()).lstrip("_.-")
    suffix = f"-{own}"
    return (host or "process")[: _MAX_LENGTH - len(suffix)] + suffix
