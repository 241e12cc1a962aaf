"""A reader in a FastAPI application: ``uvicorn --workers 2 fastapi_app:app``.

Each worker imports this module, and so has a reader of its own. The id is a label: they share it.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from indexrelay.reloaders import Reloader, Snapshot
from indexrelay.reloaders.fastapi import borrowing, reloader_lifespan

reloader = Reloader.open(reader_id="web")
# 0: answer 503 until something is served. By default a worker first waits for it, up to 30 s.
app = FastAPI(lifespan=reloader_lifespan(reloader, wait_ready_seconds=0))


@app.get("/similar/{track}")
def similar(
    track: str, snapshot: Annotated[Snapshot, Depends(borrowing(reloader))], k: int = 3
) -> dict[str, object]:
    hits = snapshot["similar"].search_by_id(track, k=k)
    return {"similar": [hit.id for hit in hits], "release": snapshot.release, "pid": os.getpid()}
