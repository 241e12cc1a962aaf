"""Reports to the service manager, as sd_notify(3) has them, read from a real socket."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from indexrelay.operations.systemd import START_SECONDS, ServiceManager

STARTING = f"EXTEND_TIMEOUT_USEC={START_SECONDS}000000"


@pytest.fixture(params=["a file", "an abstract name"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        named = str(tmp_path / "notify") if request.param == "a file" else f"\0{tmp_path}"
        listening.bind(named)
        listening.setblocking(False)
        yield listening


def environ_of(listener: socket.socket, **more: str) -> dict[str, str]:
    name = listener.getsockname()
    shown = name if isinstance(name, str) else "@" + name[1:].decode()
    return {"NOTIFY_SOCKET": shown, **more}


def manager_of(listener: socket.socket, **more: str) -> ServiceManager:
    manager = ServiceManager.of(environ_of(listener, **more))
    assert manager is not None
    return manager


def heard(listener: socket.socket) -> list[str]:
    reports = []
    with suppress(BlockingIOError):
        while True:
            reports.append(listener.recv(4096).decode())
    return reports


def test_a_start_is_extended_until_the_role_is_ready_and_ready_is_said_once(
    listener: socket.socket,
) -> None:
    manager = manager_of(listener)
    for ready in (False, False, True, True, False):
        manager.alive(ready=ready)
    manager.stopping()
    assert heard(listener) == [STARTING, STARTING, "READY=1", "STOPPING=1"]
    manager.close()


def test_a_role_that_goes_on_with_other_settings_says_when_it_is_ready_again(
    listener: socket.socket,
) -> None:
    manager = manager_of(listener)
    manager.alive(ready=True)
    manager.reloading()
    manager.alive(ready=False)
    manager.alive(ready=True)
    _, reloading, *rest = heard(listener)
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert rest == [STARTING, "READY=1"]
    manager.close()


def test_a_sentence_for_people_is_one_line_and_is_said_when_it_changes(
    listener: socket.socket,
) -> None:
    manager = manager_of(listener)
    for sentence in ("", "two\nREADY=1", "two\nREADY=1", ""):
        manager.say(sentence)
    assert heard(listener) == ["STATUS=two READY=1", "STATUS="]
    manager.close()


def test_the_watchdog_hears_nothing_while_the_loop_hangs(listener: socket.socket) -> None:
    manager = manager_of(listener, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))
    for turns in (1, 2, 2, 2, 3):
        manager.alive(ready=True, turns=turns)
    assert heard(listener) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    manager.close()


def test_a_watchdog_of_another_process_is_not_fed(listener: socket.socket) -> None:
    manager = manager_of(listener, WATCHDOG_USEC="60000000", WATCHDOG_PID="1")
    manager.alive(ready=True)
    assert heard(listener) == ["READY=1"]
    manager.close()


def test_a_manager_that_does_not_read_holds_up_nothing_and_hears_it_later(
    listener: socket.socket,
) -> None:
    manager = manager_of(listener)
    for _ in range(5_000):  # more than the kernel keeps
        manager.alive(ready=False)
    manager.alive(ready=True)
    assert "READY=1" not in heard(listener)
    manager.alive(ready=True)
    assert heard(listener) == ["READY=1"]
    manager.close()


@pytest.mark.parametrize("address", ["", "@", "/", "vsock:2:1234", "relative"])
def test_without_a_socket_that_can_be_one_there_is_no_manager(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "OTHER": "stays"}
    assert ServiceManager.of(environ) is None
    assert environ == {"OTHER": "stays"}, "a child process would report in our place"
