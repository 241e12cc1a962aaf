"""One role in the foreground: what a container, a unit file or ``indexrelay up`` starts.

SIGTERM and Ctrl-C stop it cleanly; a second one changes nothing. A role that starts while the disk
or the database is away waits for it, as it does for Redis: started again it would only do the same.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, TypeVar

from indexrelay.console.exits import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.keeping_server import KeptServer
from indexrelay.console.stopping import Stop
from indexrelay.rebuilder.service import Rebuilder
from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.passing import may_pass

log = get_logger(__name__)
T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0


def run_rebuilder(installation: Installation, *, rebuilder_id: str | None) -> ExitCode:
    """Rebuild until a signal comes; without a Redis URL the embedded server runs meanwhile."""
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        server = None
        if installation.settings.redis_url is None:
            server = KeptServer(installation.settings.data_dir, clock=SystemClock())
            stack.callback(server.stop)
            if awaited(server.start, what="server", stop=stop) is None:
                return stop.role_exit_code
        catalog = awaited(lambda: installation.catalog, what="catalog", stop=stop)
        if catalog is None:
            return stop.role_exit_code
        settings = installation.settings
        rebuilder = Rebuilder(
            settings,
            catalog=catalog,
            store=ArtifactStore.of(settings, may_be_away=True),
            connection=installation.connection,
            rebuilder_id=rebuilder_id,
        )
        stack.callback(rebuilder.stop)
        rebuilder.start()
        while not stop.wait(_LOOK_SECONDS):
            if server is not None:
                server.look()
        return stop.role_exit_code


def awaited(opening: Callable[[], T], *, what: str, stop: Stop) -> T | None:
    """What ``opening`` gives, as soon as it does; ``None``: we were asked to stop before that.

    Raises:
        Exception: what waiting does not change, such as a URL that names no database.
    """
    failures = 0
    while not stop.asked:
        try:
            return opening()
        except Exception as error:
            # A folder that is not mounted, or a file in its place, is put right by a person.
            if not (isinstance(error, OSError) or may_pass(error)):
                raise
            failures += 1
            pause = backoff_seconds(
                failures, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS, key=what
            )
            log.warning(
                "role.waiting",
                waits_for=what,
                error=f"{type(error).__name__}: {error}",
                again_in_seconds=round(pause, 3),
            )
            stop.wait(pause)
    return None
