"""Fixtures of the tests that attack an installation."""

from collections.abc import Iterator

import pytest

from indexrelay.streams import Connection
from tests.fixtures.servers import emptied
from tests.rebuilder.conftest import make_bench
from tests.security.reader_service import Installation

__all__ = ["make_bench"]


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Indexes that a reader service may serve, and be attacked over."""
    made = Installation.made(tmp_path_factory.mktemp("attacked"), entries=1000, payload_bytes=1000)
    yield made
    made.pipeline.close()


@pytest.fixture(params=["valkey", "redis62"])
def real_connection(
    request: pytest.FixtureRequest, started_servers: dict[str, str]
) -> Iterator[Connection]:
    """The newest and the oldest server, emptied: an attack takes seconds of each."""
    with emptied(started_servers[request.param]) as connection:
        yield connection
