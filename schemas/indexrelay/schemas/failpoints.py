"""Named points before and after every durable step, at which a test makes the process fail.

In production a point costs one look into an empty dict. A test arms points by the variable
`VARIABLE`, which each process reads once, at its edge; its value is a JSON object from names to
actions::

    {"release.before_link": {"do": "kill", "hit": 2, "token": "FILE"}}

``do`` is ``kill`` (SIGKILL to itself: no clean-up of any kind runs), ``stop`` (SIGSTOP, until a
SIGCONT), ``raise`` (`FailpointError`) or ``wait`` (until the file ``until_there`` exists, or the
file ``until_gone`` does not). The point acts on every hit, or with ``hit`` on the n-th one in this
process, or with ``token`` in the process that removes that file: once among all processes that were
armed with it, and not before the test makes the file. With both, hits count while the token exists.
A fork inherits what is armed.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from indexrelay.schemas.errors import IndexRelayError

VARIABLE: Final = "FAILPOINTS_INDEXRELAY"
"""Not ``INDEXRELAY_…``: it is no setting."""

FAILPOINTS: Final = (
    "producer.before_commit",
    "producer.after_commit",
    "producer.before_changes",
    "producer.before_emit",
    "producer.after_emit",
    "intake.after_read",
    "intake.after_inbox",
    "intake.after_acknowledge",
    "dispatch.after_lease",
    "build.before_blob",
    "build.after_blob",
    "build.before_manifest",
    "build.after_manifest",
    "file.before_link",
    "file.after_link",
    "release.before_link",
    "release.after_link",
    "announce.before",
    "announce.after",
    "inbox.before_finish",
    "inbox.after_finish",
    "reader.after_seeing",
    "reader.before_load",
    "reader.after_load",
    "reader.before_swap",
    "reader.after_swap",
    "reader.before_report",
    "reader.after_report",
)
"""Every point there is, in the order in which a batch passes them; each is in one place only."""

Action = Literal["kill", "stop", "raise", "wait"]
_LOOK_SECONDS: Final = 0.005


class FailpointError(IndexRelayError):
    """Raised at a failpoint that a test armed with ``raise``; never in production."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the failpoint {name} was armed to raise")
        self.name = name


@dataclass(kw_only=True)
class _Armed:
    """The action at one point."""

    name: str
    do: Action
    hit: int | None = None
    token: Path | None = None
    until_there: Path | None = None
    until_gone: Path | None = None
    _hits: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def meet(self) -> None:
        """Count the hit, and act if it is the armed one."""
        if self._is_due():
            self._act()

    def _is_due(self) -> bool:
        if self.token is not None and not self.token.exists():
            return False
        with self._counting:
            self._hits += 1
            if self.hit is not None and self._hits != self.hit:
                return False
        return self.token is None or _removed(self.token)

    def _act(self) -> None:
        match self.do:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                # To this thread: sent to the process another one might take it, while this one goes
                # on past the point until it is held.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case "raise":
                raise FailpointError(self.name)
            case "wait":
                while self._waits():
                    time.sleep(_LOOK_SECONDS)

    def _waits(self) -> bool:
        there, gone = self.until_there, self.until_gone
        return (there is not None and not there.exists()) or (gone is not None and gone.exists())


_armed: dict[str, _Armed] = {}


def failpoint(name: str) -> None:
    """The point ``name``; nothing happens unless a test armed it.

    Raises:
        FailpointError: it was armed to raise.
    """
    if name in _armed:
        _armed[name].meet()


def arm(environ: Mapping[str, str]) -> None:
    """Arm the points of the variable in ``environ``, and no others; call it once, at the edge.

    Raises:
        ValueError: the variable names a point or an action that does not exist.
    """
    _armed.clear()
    if text := environ.get(VARIABLE):
        _armed.update({name: _parsed(name, keys) for name, keys in json.loads(text).items()})


def _parsed(name: str, keys: Mapping[str, str | int]) -> _Armed:
    unknown = set(keys) - {"do", "hit", "token", "until_there", "until_gone"}
    if name not in FAILPOINTS or keys.get("do") not in get_args(Action) or unknown:
        raise ValueError(f"{VARIABLE}: {name!r} with {dict(keys)} is not a failpoint's action")
    paths = {key: Path(str(value)) for key, value in keys.items() if key not in ("do", "hit")}
    if keys["do"] == "wait" and not paths.keys() & {"until_there", "until_gone"}:
        raise ValueError(f"{VARIABLE}: {name!r} waits for nothing")
    hit = int(keys["hit"]) if "hit" in keys else None
    return _Armed(name=name, do=keys["do"], hit=hit, **paths)  # type: ignore[arg-type] # checked


def _removed(token: Path) -> bool:
    """Whether this process removed it."""
    try:
        token.unlink()
    except FileNotFoundError:
        return False
    return True
