"""A reader inside a FastAPI application."""

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from indexrelay.reloaders import ReloaderStoppedError, Snapshot
from indexrelay.reloaders.fastapi import borrowing, reloader_lifespan
from tests.reloaders.bench import Bench
from tests.reloaders.web_errors import STATUSES, answer, statuses
from tests.service.app_server import running


def test_a_fastapi_application_starts_lends_and_stops(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    app = FastAPI(lifespan=reloader_lifespan(reader, wait_ready_seconds=30.0))
    lent: list[Snapshot] = []

    @app.get("/")
    def say(snapshot: Annotated[Snapshot, Depends(borrowing(reader))]) -> str:
        lent.append(snapshot)
        return str(snapshot["voyager"].read())

    with running(app) as client:
        assert client.get("/").json() == "v1"
        with reader.acquire() as snapshot:
            served = snapshot["voyager"]
        bench.publish(voyager="v2")
        reader.step()
        assert client.get("/").json() == "v2"
        assert served.closed == 1, "the request gave its snapshot back"
    assert len(lent) == 2
    with pytest.raises(ReloaderStoppedError):
        reader.acquire()


def test_what_cannot_be_answered_has_a_status_of_its_own_and_not_500(bench: Bench) -> None:
    reader = bench.reader()
    app = FastAPI(lifespan=reloader_lifespan(reader, wait_ready_seconds=0))

    @app.get("/{what}")
    def say(what: str, snapshot: Annotated[Snapshot, Depends(borrowing(reader))]) -> str:
        return answer(snapshot, what)

    with running(app) as client:
        assert statuses(client.get, bench, reader) == STATUSES
