"""A reloader in a Flask application.

    relay = IndexRelay(reloader)
    relay.init_app(app)

    @app.get("/similar/<song>")
    def similar(song: str):
        return [hit.id for hit in relay.snapshot["voyager"].search_by_id(song, k=10)]

What a snapshot raises becomes an answer: 503 with ``Retry-After`` until the first load, 404 for an
unknown id or component, 422 for a query that cannot be answered. The reloader starts with the first
request, in the process that serves it: servers that fork their workers (gunicorn, uWSGI) may load
the application before or after the fork. Where it was started before, it starts again in each
worker by itself. Every request sees one snapshot from beginning to end, and gives it back when its
context ends.
"""

from indexrelay.schemas.errors import missing_extra

try:
    from flask import Flask, g
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from indexrelay.reloaders.errors import HTTP_ERRORS, http_error
from indexrelay.reloaders.reloader import Reloader
from indexrelay.reloaders.snapshot import Snapshot


class IndexRelay:
    """The Flask extension; one for each reloader."""

    def __init__(
        self, reloader: Reloader, app: Flask | None = None, *, wait_ready_seconds: float = 30.0
    ) -> None:
        """Take the reloader, and the application unless `init_app` is called later.

        Args:
            reloader: started with the first request.
            app: an application to extend at once.
            wait_ready_seconds: how long the first request, and those that come meanwhile, may wait
                for the reader to become ready; later ones find what is served.
        """
        self.reloader = reloader
        self._wait_ready_seconds = wait_ready_seconds
        self._key = f"indexrelay_snapshot_{id(self)}"
        self._started = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Extend ``app``: its requests may use `snapshot`."""
        app.extensions["indexrelay"] = self
        app.teardown_appcontext(self._give_back)
        for each in HTTP_ERRORS:
            app.register_error_handler(each, self._refuse)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of this request, borrowed when it is first asked for.

        Raises:
            RuntimeError: outside of an application context.
            ReloaderStoppedError: the reloader was stopped.
        """
        if self._key not in g:
            self._start_once()
            setattr(g, self._key, self.reloader.acquire())
        snapshot: Snapshot = getattr(g, self._key)
        return snapshot

    def _start_once(self) -> None:
        """Only once: a reader that the application has stopped is not started again."""
        if self._started:
            return
        self.reloader.start()
        if self._wait_ready_seconds > 0:
            self.reloader.wait_ready(self._wait_ready_seconds)
        self._started = True

    def _refuse(self, error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
        found = http_error(error, ready=self.reloader.ready)
        return {"detail": found.detail}, found.status, found.headers

    def _give_back(self, _error: BaseException | None) -> None:
        snapshot: Snapshot | None = g.pop(self._key, None)
        if snapshot is not None:
            snapshot.close()
