"""A reader as another user, who is let in bit by bit: ``FOLDER``, whose data only root may read.

Root is refused nothing, so the program gives its rights up for good. It asks for what it needs on
stdout, line by line, and goes on when a line comes on stdin; at the end it prints JSON.
"""

import json
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path

from indexrelay.reloaders import Reloader
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import LogSettings
from tests.reloaders.bench import Bench, make_settings, texts

NOBODY = 65534
PATIENCE_SECONDS = 60


def ask(what: str) -> None:
    """Say what is to be done from outside, and wait until it is."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def import_everything() -> None:
    """Serve once as root: the other user may not be able to read this Python's modules."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.publish(voyager="v0")
        reader = Reloader(bench.settings, store=bench.store)
        reader.start()
        assert reader.wait_ready(PATIENCE_SECONDS)
        reader.stop()


def main(folder: Path) -> None:
    configure_logs(LogSettings(level="warning"))
    raised: list[str] = []
    threading.excepthook = lambda told: raised.append(repr(told.exc_value))
    logging.raiseExceptions = False
    import_everything()
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    settings = make_settings(
        folder, poll_seconds=0.05, block_seconds=0.05, presence_ttl_seconds=0.3, retry_seconds=0.05
    )
    reader = Reloader(settings, reader_id="web")
    stepped = reader.step()
    reader.start()
    early = reader.wait_ready(0.2)
    ask("artifacts")  # the socket's folder stays closed
    ready = reader.wait_ready(PATIENCE_SECONDS)
    served = texts(reader)
    running = sorted(thread.name for thread in threading.enumerate())
    reader.step()
    reader.stop()
    reader.stop()
    said = {
        "stepped": stepped,
        "early": early,
        "ready": ready,
        "served": served,
        "running": running,
        "raised": raised,
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
