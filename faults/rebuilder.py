"""A rebuilder whose clock a scenario may move: ``… CONFIG ID OFFSET_FILE``.

The file holds the seconds by which the wall clock is wrong; it is read at every look at the clock.
A machine's monotonic clock cannot be set, so that one is right.
"""

import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

from indexrelay.console.processes import Stop
from indexrelay.rebuilder import Rebuilder
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

_NEVER_SECONDS = 3600.0


class WrongClock(SystemClock):
    """Wrong by what the file says."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._offset.read_text(encoding="ascii")))


def main() -> None:
    arm(os.environ)
    config, rebuilder_id, offset = sys.argv[1:]
    settings = load_settings(Path(config), environ={})
    configure_logs(settings.log)
    clock = WrongClock(Path(offset))
    catalog = Catalog.open(settings.catalog_url, clock=clock)
    assert settings.redis_url is not None
    with Stop() as stop, Connection.open(settings.redis_url) as connection:
        rebuilder = Rebuilder(
            settings,
            catalog=catalog,
            store=ArtifactStore(settings.artifacts_dir, clock=clock),
            connection=connection,
            clock=clock,
            rebuilder_id=rebuilder_id,
        )
        rebuilder.start()
        while not stop.wait(_NEVER_SECONDS):
            pass
        rebuilder.stop()
    catalog.close()


if __name__ == "__main__":
    main()
