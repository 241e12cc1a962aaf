"""A reader service with one more route, whose handler holds up the event loop.

``python -m tests.service.silent_program FOLDER URL``: serves what was released in that folder.
``GET /hang`` returns once a line came on standard input, and nothing else is answered meanwhile.
"""

import signal
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from indexrelay.reloaders import heartbeat
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import LogSettings, Settings
from indexrelay.service import app as app_module
from indexrelay.service import server
from tests.reloaders.bench import make_settings

SILENT_SECONDS = 2.0
"""Instead of ten."""
PATIENCE_SECONDS = 120

create_app = app_module.create_app


def with_a_route_that_hangs(*arguments: Any, **named: Any) -> FastAPI:
    app = create_app(*arguments, **named)

    @app.get("/hang")
    async def hang() -> bool:
        return bool(sys.stdin.readline())

    return app


def main(folder: Path, url: str) -> None:
    signal.alarm(PATIENCE_SECONDS)  # ends this process, whatever hangs
    configure_logs(LogSettings(format="json"))
    heartbeat.SILENT_SECONDS = SILENT_SECONDS  # type: ignore[misc]
    heartbeat.BEAT_SECONDS = 0.05  # type: ignore[misc]
    server.create_app = with_a_route_that_hangs  # type: ignore[attr-defined]
    settings = make_settings(folder, poll_seconds=600, block_seconds=0.05, start_spread_seconds=0)
    given = {"redis": {"url": url}, "components": settings.components}
    server.serve(Settings.model_validate(settings.model_dump() | given), reader_id="web")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
