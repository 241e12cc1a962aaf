"""Who a reader is: an id that is stable across restarts where one was given, and unique anyway."""

import os
import re
import socket

from indexrelay.schemas.names import READER_PATTERN

_MAX_LENGTH = 128


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname() or "localhost"


def default_reader_id() -> str:
    """A reader that nobody named: its host and its process."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", host_name()).lstrip("_.-")
    suffix = f"-{os.getpid()}"
    return (host or "reader")[: _MAX_LENGTH - len(suffix)] + suffix


def forked_reader_id(given: str | None) -> str:
    """The same reader in a forked child: the given id and the child's process."""
    if given is None:
        return default_reader_id()
    suffix = f".{os.getpid()}"
    return given[: _MAX_LENGTH - len(suffix)] + suffix


def check_reader_id(reader_id: str) -> str:
    """Return ``reader_id`` if it may name a reader.

    Raises:
        ValueError: it may not.
    """
    if re.fullmatch(READER_PATTERN[1:-1], reader_id) is None:
        raise ValueError(
            f"reader id {reader_id!r}: letters, digits, '_', '.' and '-' after a letter or a "
            "digit, at most 128"
        )
    return reader_id
