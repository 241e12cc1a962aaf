"""Starts the reader in each worker, as a server that loads its application once wants it."""

from typing import Any


def post_worker_init(_worker: Any) -> None:
    """Called in a worker, after the application was loaded there or before the fork."""
    from tests.behaviour.web_app import reloader

    reloader.start()
