"""The reader as a service of its own: what is served, over HTTP.

    GET  /health                        the process is alive; whether it is well, and if not why
    GET  /ready                         200 when every required component is served, else 503
    GET  /state                         what this reader says of itself (`ReaderState`)
    GET  /components                    what is served, version by version
    POST /components/{name}/search      {"vector": […]} | {"id": "…"} | {"text": "…"}, and "k"
    GET  /components/{name}/document    a JSON cache, gzipped for those who accept that

A search names the version that answered it. Every error has a ``detail`` that says what would be
right.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.reloaders.errors import ComponentNotServedError, ReloaderStoppedError
from indexrelay.reloaders.listening import address_of, listening
from indexrelay.reloaders.querying import SearchRequest, search
from indexrelay.reloaders.reloader import Reloader
from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection

try:
    import uvicorn
    from fastapi import FastAPI, Header, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    from indexrelay.reloaders.body_limit import BodyLimit
    from indexrelay.reloaders.documents import document_response
    from indexrelay.reloaders.fastapi import reloader_lifespan
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "service") from error

_SHUTDOWN_SECONDS = 5
"""How long running requests may take after a signal; then they are cut off."""


def create_app(reloader: Reloader) -> FastAPI:
    """The service on ``reloader``, which is started and stopped with the application."""
    lifespan = reloader_lifespan(reloader, wait_ready_seconds=0)
    app = FastAPI(title="A reader of indexrelay", lifespan=lifespan)
    app.add_middleware(BodyLimit)
    _refuse_in_words(app)

    @app.get("/health")
    def health() -> dict[str, Any]:
        problems = [each.model_dump(mode="json") for each in reloader.problems]
        return {"status": "alive", "well": not problems, "problems": problems}

    @app.get("/ready")
    def ready(response: Response) -> dict[str, bool]:
        if not reloader.ready:
            response.status_code = 503
        return {"ready": response.status_code != 503}

    @app.get("/state")
    def state() -> Response:
        return Response(reloader.state.model_dump_json(), media_type="application/json")

    @app.post("/retry", status_code=202)
    def retry() -> dict[str, bool]:
        reloader.retry_failed()
        return {"accepted": True}

    @app.get("/components")
    def components() -> dict[str, Any]:
        with reloader.acquire() as snapshot:
            return {
                "release": snapshot.release,
                "components": {
                    name: _described(snapshot.versions[name], snapshot.manifest(name))
                    for name in sorted(snapshot)
                },
            }

    @app.post("/components/{name}/search")
    def search_component(name: str, query: SearchRequest) -> dict[str, Any]:
        with reloader.acquire() as snapshot:
            hits = search(snapshot[name], query)
            return {
                "component": name,
                "release": snapshot.release,
                "version": snapshot.versions[name],
                "hits": [
                    {"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in hits
                ],
            }

    @app.get("/components/{name}/document")
    def document(
        name: str,
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        with reloader.acquire() as snapshot:
            return document_response(
                snapshot[name], accept_encoding=accept_encoding, if_none_match=if_none_match
            )

    return app


def serve(
    settings: Settings,
    *,
    reader_id: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    uds: Path | None = None,
    address: str | None = None,
    store: ArtifactStore | None = None,
    connection: Connection | None = None,
) -> None:
    """Run the service until SIGTERM or SIGINT, in the foreground.

    Args:
        settings: the installation.
        reader_id: its name; see `Reloader`.
        host: the address to listen on.
        port: the port to listen on; ``None`` or 0: a free one.
        uds: a unix socket to listen on instead.
        address: where others find it, for its presence; ``None``: as it listens, with this
            machine's name where it listens everywhere.
        store: see `Reloader`.
        connection: see `Reloader`.

    Raises:
        OSError: it cannot listen there.
        KeyboardInterrupt: SIGINT came, once everything has been stopped.
    """
    with listening(host, port or 0, uds) as listener:
        reloader = Reloader(
            settings,
            reader_id=reader_id,
            store=store,
            connection=connection,
            address=address or address_of(listener),
        )
        config = uvicorn.Config(
            create_app(reloader),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        try:
            with _ending_well():
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            reloader.stop()  # also where requests did not end in time, and the lifespan did not


@contextlib.contextmanager
def _ending_well() -> Iterator[None]:
    """Let SIGTERM end in a return.

    uvicorn raises a signal again when it has shut down, and by default SIGTERM would then end the
    process as if it had been killed, although it did as it was told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    before = signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _described(version: str, manifest: VersionManifest) -> dict[str, Any]:
    """What a component's entry in the list says."""
    return {
        "kind": manifest.kind,
        # The manifest's own `id` is another where a newer minor version wrote fields unknown here.
        "version": version,
        "covers": manifest.covers,
        "entries": manifest.entries,
        "bytes": manifest.size,
        "created_at": manifest.created_at,
    }


def _refuse_in_words(app: FastAPI) -> None:
    """Give every error a status and a sentence, and never the input back: it may hold a NaN."""

    def refuse(status: int) -> Callable[[Request, Exception], JSONResponse]:
        return lambda _request, error: JSONResponse({"detail": str(error)}, status_code=status)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        sentences = [
            ".".join(str(part) for part in item["loc"] if part != "body") + f": {item['msg']}"
            for item in error.errors()
        ]
        detail = "; ".join(sentence.removeprefix(": ") for sentence in sentences)
        return JSONResponse({"detail": detail}, status_code=422)

    app.add_exception_handler(InvalidQueryError, refuse(422))
    app.add_exception_handler(UnknownEntryError, refuse(404))
    app.add_exception_handler(ComponentNotServedError, refuse(404))
    app.add_exception_handler(ReloaderStoppedError, refuse(503))
