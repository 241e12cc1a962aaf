"""The processes of one installation, as children of one parent: a rebuilder and some readers.

``indexrelay up`` and the demo start the same commands that a person, or a container, would start
alone. All that the parent adds is where Redis is.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indexrelay.console.processes import Child
from indexrelay.schemas.private_files import make_private_folder

_LONGEST_SOCKET_BYTES = 100
"""The kernel takes 107 bytes for a socket's path; the rest is for the file's own name."""


REDIS_URL = "INDEXRELAY_REDIS__URL"
"""The variable that tells a child where Redis is; a URL may hold a password, so it is no option."""


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """What all children of one parent share."""

    config: Path | None
    """``None``: found by the child as by its parent, whose folder and variables it has."""
    environ: Mapping[str, str]
    """The children's variables; they say where Redis is."""
    logs: Path | None
    """The folder for what they say; ``None``: our own stderr."""

    @property
    def options(self) -> list[str]:
        """The command-line options that all of them take."""
        return [] if self.config is None else ["--config", str(self.config)]

    def log(self, name: str) -> Path | None:
        """Where the child ``name`` says what it does."""
        return None if self.logs is None else self.logs / f"{name}.log"


def rebuilder_child(shared: RoleSettings) -> Child:
    """The rebuilder."""
    return Child(
        "rebuilder",
        ["rebuilder", *shared.options],
        environ=shared.environ,
        log=shared.log("rebuilder"),
    )


def reader_child(
    shared: RoleSettings, reader_id: str, *, socket: Path | None = None, port: int | None = None
) -> Child:
    """A reader service on a unix socket, or on a port of the loopback address."""
    address = ["--uds", str(socket)] if socket is not None else ["--port", str(port)]
    return Child(
        reader_id,
        ["reader", "--id", reader_id, *shared.options, *address],
        environ=shared.environ,
        log=shared.log(reader_id),
    )


def socket_folder(data_dir: Path) -> Path:
    """A folder for unix sockets that only we can enter: in the data folder, if its path is short.

    Otherwise it is a new one among the temporary files, and the caller removes it.
    """
    folder = data_dir / "sockets"
    if len(os.fsencode(folder)) > _LONGEST_SOCKET_BYTES - len("/reader-99.sock"):
        return Path(tempfile.mkdtemp(prefix="indexrelay-"))
    make_private_folder(folder)
    return folder
