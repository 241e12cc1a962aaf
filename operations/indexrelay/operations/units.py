"""Units of systemd for the roles, shut in as far as the roles can work.

A unit says who runs the role, what it may see and where it may write: everything is read-only but
the folders of the installation, and home folders and the temporary files of others are not there.
`written` and `removed` touch only what they wrote themselves: a unit's first line has a digest of
the rest. What a host needs in another way belongs into a drop-in (``systemctl edit``).

Sources: systemd.exec(5), systemd.service(5); quoting by systemd.syntax(7) and the table of
specifiers in systemd.unit(5).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.operations.systemd import START_SECONDS
from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError

REBUILDER: Final = "indexrelay-rebuilder.service"
READER: Final = "indexrelay-reader@.service"
"""A template: the instance is the port."""
OPERATOR: Final = "indexrelay-operator.service"
ADMIN: Final = "indexrelay-admin.service"
UNITS: Final = (REBUILDER, READER, OPERATOR, ADMIN)

_MARK: Final = f"# Written by `{commands.INSTALL_SERVICE}`. Change it by a drop-in. sha256: "
_HIDDEN: tuple[Path, ...] = tuple(
    Path("/", each) for each in ("home", "root", "run/user", "tmp", "var/tmp")
)
"""What ``ProtectHome=`` and ``PrivateTmp=`` hide."""
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f\"'\\]|^\s|\s$")
"""What no quoting carries through every kind of line."""
_WATCHDOG_SECONDS: Final = {REBUILDER: 300, READER: 60, OPERATOR: 300, ADMIN: 60}
"""A turn of the rebuilder's loop may wait for a catalog and a server that do not answer. The
operator reports while none of its duties hangs; a backup may rightly take hours."""

# RestartForceExitStatus=: SIGHUP counts as an end in order, and may come before it is taken.
# No MemoryDenyWriteExecute=: functions of users may compile (numba, torch). No ProcSubset=pid:
# /proc/meminfo says whether a build has room. @resources is needed: builds lower their priority.
_TEMPLATE: Final = """\
[Unit]
Description={description}
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
User={user}
Group={user}
WorkingDirectory={folder}
EnvironmentFile=-/etc/indexrelay/environment
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartForceExitStatus=SIGHUP
RestartSec=2
TimeoutStartSec={start_seconds}
{watchdog}KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=60
LimitNOFILE=4096
UMask=0027

ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


class UnitError(IndexRelayError):
    """Raised when a unit cannot be written as it was asked for; nothing was written."""

    is_misuse = True


@dataclass(frozen=True, kw_only=True)
class ServicePlace:
    """Where an installation is, and who runs it.

    Raises:
        UnitError: a path that a unit cannot name or a role could not see, or no name of a user.
    """

    program: Path
    """The script ``indexrelay``."""
    config: Path
    """The settings."""
    writable: tuple[Path, ...]
    """The folders that roles write to: the data folder, and others that the settings name."""
    user: str = "indexrelay"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not _USER.fullmatch(self.user):
            raise UnitError(f"{self.user!r} is no name of a user of the system")
        for path in (self.program, self.config, *self.writable):
            require_usable(path)
        if "$" in str(self.program):
            raise UnitError(f"{str(self.program)!r}: a program's path has no $ in a unit")


def require_usable(path: Path) -> None:
    """Require that a unit can name ``path`` and that a role can see it.

    Raises:
        UnitError: it is relative, has quotes, backslashes or control characters, or is hidden.
    """
    text = str(path)
    with suppress(UnicodeEncodeError):
        text.encode()
        if path.is_absolute() and not _REFUSED.search(text):
            for place in {path, path.resolve()}:
                for hidden in _HIDDEN:
                    if place.is_relative_to(hidden):
                        raise UnitError(
                            f"{text} is below {hidden}, which these units hide from the roles: put "
                            "the program below /opt, the settings below /etc and the data below "
                            "/var/lib"
                        )
            return
    raise UnitError(
        f"a unit cannot name the path {text!r}: it has to be absolute, in UTF-8, without quotes, "
        "backslashes, control characters, and spaces at its ends"
    )


def units_of(
    place: ServicePlace, *, with_operator: bool, with_admin: bool = False
) -> dict[str, str]:
    """The text of each unit by its name.

    Args:
        place: where the installation is.
        with_operator: whether the settings give an operator something to do.
        with_admin: whether the settings say something of the admin page.
    """
    roles: dict[str, tuple[str, Sequence[str]]] = {
        REBUILDER: ("Rebuilder of indexrelay", ["rebuilder"]),
        READER: (
            "Reader of indexrelay at port %i",
            ["reader", "--id", "reader-%i", "--port", "%i"],
        ),
    }
    if with_operator:
        roles[OPERATOR] = ("Operator of indexrelay", ["operator"])
    if with_admin:
        roles[ADMIN] = ("Admin page of indexrelay", ["admin"])
    units = {}
    for name, (description, arguments) in roles.items():
        seconds = _WATCHDOG_SECONDS.get(name)
        text = _TEMPLATE.format(
            description=description,
            user=place.user,
            folder=_specified(place.config.parent),
            command=" ".join(
                [
                    f'"{_specified(place.program)}"',
                    *arguments,
                    "--config",
                    '"{}"'.format(_specified(place.config).replace("$", "$$")),
                ]
            ),
            start_seconds=START_SECONDS,
            watchdog="" if seconds is None else f"WatchdogSec={seconds}\n",
            writable=" ".join(f'"{_specified(each)}"' for each in place.writable),
        )
        units[name] = f"{_mark(text)}\n{text}"
    return units


def written(units: Mapping[str, str], folder: Path) -> list[Path]:
    """Write units into a folder, over older ones of ours; the files.

    Raises:
        UnitError: a file of that name is another's, or was changed; nothing was written.
        OSError: a file cannot be written.
    """
    files = [folder / name for name in units]
    for file in files:
        if os.path.lexists(file) and not _is_ours(file):
            raise UnitError(
                f"{file} was not written by this command, or was changed since: move it away, and "
                "put changes into a drop-in (systemctl edit)"
            )
    for file in files:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".indexrelay-")
        os.close(handle)
        draft = Path(name)
        try:
            draft.write_text(units[file.name], encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return files


def ours(folder: Path) -> tuple[list[Path], list[Path]]:
    """The units of ours in a folder, and files of such a name that are another's or changed."""
    there = [folder / name for name in UNITS if os.path.lexists(folder / name)]
    mine = [file for file in there if _is_ours(file)]
    return mine, [file for file in there if file not in mine]


def removed(files: Iterable[Path]) -> None:
    """Remove files that `ours` has found."""
    for file in files:
        file.unlink(missing_ok=True)


def _mark(text: str) -> str:
    return _MARK + hashlib.sha256(text.encode()).hexdigest()


def _is_ours(file: Path) -> bool:
    """Whether it is as we wrote it; a link or what cannot be read is not."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        mark, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return mark == _mark(text)


def _specified(path: Path) -> str:
    """A path, whose ``%`` is no specifier."""
    return str(path).replace("%", "%%")
