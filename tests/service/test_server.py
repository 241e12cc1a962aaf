"""The service as a process of its own: it publishes its address, and ends in order on a signal."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from indexrelay.schemas.messages import ReaderState
from indexrelay.service.server import OpenAddressError, address_of, is_local, listening
from indexrelay.streams import Connection, Keys, Presence
from tests.reloaders.bench import Bench
from tests.streams.polling import eventually

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from pathlib import Path
from indexrelay.service import serve
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import RedisSettings
from tests.reloaders.bench import make_settings
folder, url, given = sys.argv[1:]
settings = make_settings(Path(folder), block_seconds=0.1)
settings = settings.model_copy(update={"redis": RedisSettings(url=url)})
configure_logs(settings.log)
given = json.loads(given)
serve(settings, reader_id="served", **({"uds": Path(given["uds"])} if "uds" in given else given))
"""


@contextmanager
def _served(bench: Bench, url: str, **given: object) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(bench.folder), url, json.dumps(given)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _address(connection: Connection) -> str:
    """The address in the reader's presence, once it says that it is ready."""
    states: list[ReaderState] = []

    def ready() -> bool:
        present = Presence(connection, Keys("test"), "reader").all().values()
        states.extend(ReaderState.model_validate_json(raw) for raw in present)
        return bool(states) and states[-1].ready

    eventually(ready)
    address = states[-1].address
    assert address is not None
    return address


def test_a_service_on_a_free_port_publishes_its_address_and_ends_with_0(
    bench: Bench, redis_connection: Connection, redis_url: str
) -> None:
    bench.publish(voyager="v1")
    with _served(bench, redis_url) as process:
        address = _address(redis_connection)
        assert httpx.get(f"{address}/ready", trust_env=False).json() == {"ready": True}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert Presence(redis_connection, Keys("test"), "reader").all() == {}


def test_a_service_on_a_unix_socket_takes_over_from_a_killed_one(
    bench: Bench, redis_connection: Connection, redis_url: str, server_folder: Path
) -> None:
    bench.publish(voyager="v1")
    path = server_folder / "reader.sock"
    for killed in (True, False):
        with _served(bench, redis_url, uds=str(path)) as process:
            assert _address(redis_connection) == f"unix:{path}"
            transport = httpx.HTTPTransport(uds=str(path), retries=3)
            with httpx.Client(transport=transport, base_url="http://reader") as client:
                assert client.get("/v1/state").json()["reader"] == "served"
            process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
            assert process.wait(20) == (-signal.SIGKILL if killed else 0)
        assert path.exists() is killed
        presence = Presence(redis_connection, Keys("test"), "reader")
        for member in presence.all():  # the killed one stays until its TTL ends
            presence.remove(member)


def test_a_socket_that_answers_is_not_taken_away(server_folder: Path) -> None:
    path = server_folder / "taken.sock"
    with listening("", 0, path):
        with pytest.raises(OSError, match="in use"), listening("", 0, path):
            pytest.fail("two services on one socket")
        assert path.exists()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep")
    with pytest.raises(OSError, match="in use"), listening("", 0, path):
        pytest.fail("listening on somebody's notes")
    assert path.read_text() == "keep"


def test_the_address_names_this_machine_where_it_listens_everywhere() -> None:
    with listening("127.0.0.1", 0, None) as here:
        assert address_of(here) == f"http://127.0.0.1:{here.getsockname()[1]}"
    with listening("0.0.0.0", 0, None, insecure=True) as everywhere:  # noqa: S104 - what is tested
        assert address_of(everywhere).startswith(f"http://{socket.gethostname()}:")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104 - what is refused
def test_where_other_machines_would_ask_nothing_listens_unless_insisted_on(
    host: str,
) -> None:
    with pytest.raises(OpenAddressError, match="--insecure"), listening(host, 0, None):
        pytest.fail("listening to everybody")
    with listening(host, 0, None, insecure=True) as everywhere:
        assert not is_local(everywhere)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_may_always_ask(host: str) -> None:
    with listening(host, 0, None) as here:
        assert is_local(here)
