"""A reader service, and beside it a FastAPI application that does nothing, on servers of one kind.

``service.py FOLDER URL DIMENSION NAME INDEX``: as `measuring.installation.settings_in`.

Both are in one process, on a unix socket each, under uvicorn with h11 and asyncio's loop; who is
not asked takes no time. Question: ``serve``, answered with the sockets' paths once both answer.
"""

import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from indexrelay.service import app as application
from indexrelay.service.metrics import QueryCounts
from indexrelay.service.queries import Observation
from indexrelay.service.server import serve
from measuring.companion_side import answering
from measuring.installation import settings_in
from measuring.requests import answered, request

_PATIENCE_SECONDS = 60.0


class Uncounted(QueryCounts):
    """Counts nothing."""

    def observe(self, observation: Observation) -> None: ...


def empty() -> FastAPI:
    """An application with one endpoint, which returns nothing."""
    app = FastAPI()

    @app.post("/empty")
    async def nothing() -> dict[str, Any]:
        return {}

    return app


def main() -> None:
    folder, url, dimension, name, index = sys.argv[1:]
    settings = settings_in(Path(folder), url, int(dimension), name=name, index=index, live=True)
    with tempfile.TemporaryDirectory(prefix="ir-") as own:
        ours, theirs = Path(own) / "ours.sock", Path(own) / "theirs.sock"
        config = uvicorn.Config(
            empty(), uds=str(theirs), http="h11", loop="asyncio", ws="none", access_log=False
        )
        config.log_config = None
        server = uvicorn.Server(config)
        for target in (lambda: serve(settings, reader_id="http", uds=ours), server.run):
            threading.Thread(target=target, daemon=True).start()

        def started() -> dict[str, Any]:
            _wait_for(ours, request("GET", "/ready"))
            _wait_for(theirs, request("POST", "/empty", b"{}"))
            return {"ours": str(ours), "empty": str(theirs)}

        def uncounted() -> dict[str, Any]:
            path = Path(own) / "uncounted.sock"
            application.QueryCounts = Uncounted  # type: ignore[attr-defined]
            serving = lambda: serve(settings, reader_id="uncounted", uds=path)  # noqa: E731
            threading.Thread(target=serving, daemon=True).start()
            _wait_for(path, request("GET", "/ready"))
            return {"uncounted": str(path)}

        answering(lambda do: {"serve": started, "serve_uncounted": uncounted}[do]())


def _wait_for(path: Path, asked: bytes) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _is_well(path, asked):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name} does not answer")
        time.sleep(0.02)


def _is_well(path: Path, asked: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        connection.sendall(asked)
        return answered(connection) == 200


if __name__ == "__main__":
    main()
