"""Starts the demo's processes, and waits until each of them has said that it is there."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

from indexrelay.console.collecting import signals_of
from indexrelay.console.errors import CommandError, ProcessEndedError
from indexrelay.console.installation import Installation
from indexrelay.console.processes import Child
from indexrelay.console.roles import RoleSettings, reader_child, rebuilder_child, socket_folder
from indexrelay.console.supervising import stop_together

_START_SECONDS = 60.0
"""Importing FAISS in several processes at once takes a while on a small machine."""
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 10.0


def started(
    installation: Installation,
    *,
    config: Path,
    environ: Mapping[str, str],
    readers: int,
    stack: ExitStack,
) -> Sequence[Child]:
    """Start a rebuilder and readers; ``stack`` stops them in the reverse order.

    Raises:
        ProcessEndedError: one of them ended.
        CommandError: one of them did not report in time.
    """
    data_dir = installation.settings.data_dir
    shared = RoleSettings(config=config, environ=environ, logs=data_dir / "logs")
    sockets = socket_folder(data_dir)
    if data_dir not in sockets.parents:
        stack.callback(rmtree, sockets, ignore_errors=True)
    rebuilder = rebuilder_child(shared)
    serving = [
        reader_child(shared, f"reader-{number}", socket=sockets / f"reader-{number}.sock")
        for number in range(1, readers + 1)
    ]
    stack.callback(stop_together, [rebuilder], grace_seconds=_GRACE_SECONDS)
    stack.callback(stop_together, serving, grace_seconds=_GRACE_SECONDS)
    children = [rebuilder, *serving]
    for child in children:
        child.start()
    _await_presence(installation, children, readers=readers)
    return children


def check_running(children: Sequence[Child]) -> None:
    """Notice a child that ended.

    Raises:
        ProcessEndedError: with the end of its log.
    """
    for child in children:
        code = child.exit_code
        if code is not None:
            raise ProcessEndedError(child.name, code=code, tail=child.tail())


def _await_presence(installation: Installation, children: Sequence[Child], *, readers: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        check_running(children)
        signals = signals_of(installation)
        if len(signals.readers) == readers and signals.rebuilders:
            return
        if time.monotonic() > deadline:
            states = (*signals.readers.values(), *signals.rebuilders.values())
            there = ", ".join(sorted(state.label for state in states)) or "nobody"
            raise CommandError(
                f"after {_START_SECONDS:.0f} s only {there} had reported; "
                f"the logs are in {installation.settings.data_dir / 'logs'} (keep them with --data)"
            )
        time.sleep(_LOOK_SECONDS)
