"""Settings for ``gunicorn -c gunicorn_conf.py flask_app:app``."""

from typing import Any

workers = 2
preload_app = True  # as --preload: imported once, before the workers are forked


def post_worker_init(worker: Any) -> None:
    """Load while no request waits yet; without this, the first request starts the reader."""
    worker.wsgi.extensions["indexrelay"].reloader.start()
