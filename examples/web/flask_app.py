"""A reader in a Flask application: ``flask --app flask_app run``, or gunicorn."""

import os

from flask import Flask, request

from indexrelay.reloaders import Reloader
from indexrelay.reloaders.flask import IndexRelay

app = Flask(__name__)
reloader = Reloader.open(reader_id="web")
# 0: answer 503 until something is served. By default the first request waits for it, up to 30 s.
relay = IndexRelay(reloader, app, wait_ready_seconds=0)


@app.get("/similar/<track>")
def similar(track: str) -> dict[str, object]:
    k = request.args.get("k", default=3, type=int)
    hits = relay.snapshot["similar"].search_by_id(track, k=k)
    return {
        "similar": [hit.id for hit in hits],
        "release": relay.snapshot.release,
        "pid": os.getpid(),
    }
