"""The port of a role: ``/metrics`` and ``/health``, from the last look.

It answers from bytes that are ready, so that a request costs nothing and waits for nothing. It has
few connections, each for one request and for a few seconds; where all are taken, the oldest gives
way, so that nobody keeps others out by being slow. What is not asked for by GET or HEAD is refused,
bodies are not read. Errors are problem documents (RFC 9457).

Where there is a token, nothing is answered without it, in the header ``Authorization`` (RFC 6750).
Where there is none it listens on a loopback address, and answers to names of this machine only: a
web page that a browser here shows cannot ask it under a name of its own (DNS rebinding).
"""

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any, Final

from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.monitoring import is_loopback, split_address

_log = get_logger(__name__)

CONNECTIONS: Final = 8
"""At a time: a monitoring system has one or two."""
SECONDS: Final = 5.0
"""How long one piece of a request, or of the answer, is waited for."""
Page = tuple[int, str, bytes]
"""Status, content type and body of an answer."""


class MonitoringServer:
    """Answers at one address until it is stopped."""

    def __init__(
        self,
        address: str,
        pages: Callable[[str], Page | None],
        *,
        token_sha256: str | None = None,
    ) -> None:
        """Take what it answers with.

        Args:
            address: ``HOST:PORT``; port 0 is any that is free.
            pages: gives the answer to a path; ``None``: there is no such page. Called on several
                threads.
            token_sha256: of the token that is asked for; ``None``: none is.

        Raises:
            ValueError: the address is none, or other machines reach it and there is no token.
        """
        host, port = split_address(address)
        if token_sha256 is None and not is_loopback(host):
            raise ValueError(f"{host} is reached by other machines, and there is no token")
        self._host, self._port = host, port
        self._pages = pages
        self._token = token_sha256
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before `start`."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen; safe twice, and nothing once it was stopped.

        Raises:
            OSError: the address is taken, or is none of this machine.
        """
        if self._server is not None or self._stopped.is_set():
            return
        server = self._server = _Server(self._host, self._port, self._pages, self._token)
        self._thread = SupervisedThread(
            lambda: server.serve_forever(poll_interval=0.2),
            name="indexrelay-monitoring",
            wait=self._stopped.wait,
        )
        self._thread.start()
        _log.info("monitoring.listening", host=self._host, port=self.port)

    def stop(self) -> None:
        """End every connection, and return when nothing listens any more; safe twice."""
        self._stopped.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.end_all()


class _Server(TCPServer):
    """Takes connections, each on a thread of its own, and not too many."""

    allow_reuse_address = True
    request_queue_size = 16

    def __init__(
        self, host: str, port: int, pages: Callable[[str], Page | None], token: str | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self.token = token
        self._lock = threading.Lock()
        self._open: dict[socket.socket, None] = {}
        super().__init__((host, port), _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread; the oldest connection gives way where there are too many."""
        with self._lock:
            while len(self._open) >= CONNECTIONS:
                _cut(next(iter(self._open)), self._open)
            self._open[request] = None
        threading.Thread(
            target=self._answer,
            args=(request, client_address),
            name="indexrelay-asked",
            daemon=True,
        ).start()

    def end_all(self) -> None:
        """Cut every connection."""
        with self._lock:
            for each in list(self._open):
                _cut(each, self._open)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            request.settimeout(SECONDS)
            self.finish_request(request, client_address)
        except OSError:
            pass  # a client that went away, was too slow, or gave way to another
        except Exception as error:  # noqa: BLE001 - one request's trouble
            _log.exception("monitoring.request_failed", error=f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - its signature
        """Log what kept a connection from being taken; nothing is written to stderr."""
        _log.exception("monitoring.connection_failed")


def _cut(connection: socket.socket, among: dict[socket.socket, None]) -> None:
    among.pop(connection, None)
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


class _Request(BaseHTTPRequestHandler):
    """One request; the connection ends with its answer."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "indexrelay"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        self._answer(*self._page())

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(*self._page())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what cannot be read: a wrong line, too many headers, another method."""
        detail = "this port answers GET and HEAD" if code == HTTPStatus.NOT_IMPLEMENTED else explain
        self.request_version = self.protocol_version  # where the line names none, or a wrong one
        self._answer(*problem(code, detail or message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
        """Log nothing: a monitoring system asks every few seconds, and paths are anybody's."""

    def _page(self) -> Page:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        found = self.server.pages(self.path.partition("?")[0])
        return found or problem(404, "there is /metrics and /health")

    def _refusal(self) -> Page | None:
        token = self.server.token
        if token is None:
            host = (self.headers.get("Host") or "").strip()
            name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
            if not is_loopback(name.strip("[]")):
                return problem(421, "this port answers to localhost and loopback addresses")
            return None
        given = self.headers.get_all("Authorization") or [""]
        kind, _, value = given[0].partition(" ")
        digest = hashlib.sha256(value.strip(" ").encode("utf-8", "surrogateescape")).hexdigest()
        known = hmac.compare_digest(digest.encode(), token.encode())
        if len(given) == 1 and kind.lower() == "bearer" and known:
            return None
        return problem(401, "send the token as the header Authorization: Bearer TOKEN")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.close_connection = True
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer realm="indexrelay"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def problem(status: int, detail: str) -> Page:
    """A problem document (RFC 9457)."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return status, "application/problem+json", json.dumps(document).encode()
