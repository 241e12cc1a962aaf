"""A web application behind a real server, on a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from indexrelay.service.server import address_of, listening
from tests.streams.polling import eventually


@contextmanager
def running(app: Any) -> Iterator[httpx.Client]:
    """A client of ``app``, which is started, lifespan and all, and stopped again."""
    with listening("127.0.0.1", 0, None) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive())
            with httpx.Client(base_url=address_of(listener), trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
