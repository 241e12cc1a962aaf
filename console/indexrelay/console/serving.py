"""One role in the foreground: what a container, a unit file or ``indexrelay up`` starts.

SIGTERM and Ctrl-C stop it cleanly; a second one changes nothing.
"""

from contextlib import ExitStack

from indexrelay.console.exits import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.keeping_server import KeptServer
from indexrelay.console.stopping import Stop
from indexrelay.rebuilder.service import Rebuilder
from indexrelay.schemas.clock import SystemClock

_LOOK_SECONDS = 1.0


def run_rebuilder(installation: Installation, *, rebuilder_id: str | None) -> ExitCode:
    """Rebuild until a signal comes; without a Redis URL the embedded server runs meanwhile."""
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        server = None
        if installation.settings.redis_url is None:
            server = KeptServer(installation.settings.data_dir, clock=SystemClock())
            stack.enter_context(server)
        rebuilder = Rebuilder(
            installation.settings,
            catalog=installation.catalog,
            store=installation.store,
            connection=installation.connection,
            rebuilder_id=rebuilder_id,
        )
        stack.callback(rebuilder.stop)
        rebuilder.start()
        while not stop.wait(_LOOK_SECONDS):
            if server is not None:
                server.look()
        return stop.role_exit_code
