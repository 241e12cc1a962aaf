"""The Redis-compatible server that a benchmark runs on: our embedded one, on a unix socket.

A server for each program, with the settings that everybody gets who has none: append-only file on,
flushed every second. Both sides of a ratio use the same one.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from indexrelay.streams import EmbeddedServer


@dataclass(frozen=True, kw_only=True)
class BenchServer:
    """A running server."""

    url: str
    versions: dict[str, str]
    """Its kind and version, for `Findings.servers`."""

    def client(self) -> Redis:
        """A client as redis-py makes it when nobody says anything."""
        return Redis.from_url(self.url)


@contextmanager
def bench_server() -> Iterator[BenchServer]:
    """Run one for as long as the ``with`` lasts."""
    # A short path: a socket's may have about a hundred characters.
    with (
        tempfile.TemporaryDirectory(prefix="ir-") as folder,
        EmbeddedServer(Path(folder)) as server,
    ):
        url = server.start()
        with Redis.from_url(url) as client:
            info: dict[str, Any] = client.info("server")
        name = info.get("server_name") or "redis"
        yield BenchServer(url=url, versions={name: info.get(f"{name}_version", "")})
