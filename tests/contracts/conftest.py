"""Each contract is held against fakeredis and every real server."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fakeredis
import pytest

from indexrelay.streams import Connection
from tests.contracts.backends import FAKE, NO_PROCESS, REAL, Backend
from tests.contracts.serving import Serving
from tests.fixtures.servers import PrivateServer, fake_connection, program_or_skip


@pytest.fixture(params=[FAKE, *REAL])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, emptied."""
    name: str = request.param
    with ExitStack() as opened:
        if name == FAKE:
            server = fakeredis.FakeServer()
            _load_scripts(fake_connection(server))
            yield Backend(name, lambda: fake_connection(server), opened)
            return
        started: dict[str, str] = request.getfixturevalue("started_servers")
        url = started[name]
        with Connection.open(url) as connection:
            connection.commands.flushall()
        yield Backend(name, lambda: Connection.open(url), opened)


def _load_scripts(connection: Connection) -> None:
    """Spare fakeredis its first NOSCRIPT.

    It raises errors out of a variable, and that cycle keeps alive what its callers have in hand,
    such as the snapshot that a reader replaces, until Python collects garbage. redis-py does not.
    """
    connection.commands.script_load(connection.script("announce").script)


@pytest.fixture
def restartable(backend: Backend, server_folder: Path) -> Iterator[PrivateServer]:
    """A server of the backend's kind that the test has to itself, and may stop and start."""
    backend.needs_a_real_server(NO_PROCESS)
    folder = Path(tempfile.mkdtemp(dir=server_folder))
    server = PrivateServer(folder, program_or_skip(backend.name))
    yield server
    server.stop()


@pytest.fixture
def serving(tmp_path: Path, backend: Backend) -> Iterator[Serving]:
    """A store whose releases are announced over the backend, and readers that follow them."""
    serving = Serving(tmp_path, backend)
    yield serving
    serving.bench.stop_readers()


@pytest.fixture
def taking_turns_often() -> Iterator[None]:
    """Threads take turns often: more chances to meet, and nobody waits long for the publisher."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)
