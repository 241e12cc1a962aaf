"""Another user of this host, who tries things in a process of their own."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STRANGER = 65534
"""The user and the group ``nobody``."""


@contextmanager
def a_place_for_all() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="indexrelay-open-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_stranger(act: Callable[[], str], *, group: int = STRANGER) -> str:
    """What ``act`` returns, or the name of its error, done by another user.

    Skips where this process may not become somebody else.

    Args:
        group: the one group that the other user is in.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process, which never comes back
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(STRANGER)
            os.write(write, act().encode())
        except BaseException as error:  # noqa: BLE001 - told below
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        answer = said.read().decode()
    os.waitpid(child, 0)
    return answer
