"""An application as people write it: the reader at module level, under one id for all workers.

Served by gunicorn (``wsgi``) and uvicorn (``asgi``); ``python -m tests.behaviour.web_app METHOD``
makes two processes by `multiprocessing` instead.
"""

import multiprocessing
import sys
import time

from fastapi import FastAPI
from flask import Flask

from indexrelay.reloaders import Reloader
from indexrelay.reloaders.fastapi import reloader_lifespan
from indexrelay.reloaders.flask import IndexRelay

reloader = Reloader.open(reader_id="web")
wsgi = Flask(__name__)
IndexRelay(reloader, wsgi)
asgi = FastAPI(lifespan=reloader_lifespan(reloader))


def serve() -> None:
    """A process of a pool of one's own."""
    reloader.start()
    while True:
        time.sleep(60)


def main(method: str) -> None:
    context = multiprocessing.get_context(method)
    children = [context.Process(target=serve, daemon=True) for _ in range(2)]  # type: ignore[attr-defined]
    for child in children:
        child.start()
    sys.stdin.read()  # until whoever started this closes it
    for child in children:
        child.kill()


if __name__ == "__main__":
    main(sys.argv[1])
