"""Readers that are asked by a command: who gets a token, and what is said without an answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from indexrelay.console.commands.readers import _is_here, asking
from indexrelay.console.errors import CommandError
from indexrelay.schemas.settings_file import TOKEN, load_settings
from indexrelay.service.server import address_of, listening

SECRET = "ir_secret"


@contextmanager
def refusing(received: list[bytes]) -> Iterator[str]:
    """The address of something that keeps what it is sent, and asks for a token."""
    with listening("127.0.0.1", 0, None) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield address_of(listener)
        thread.join()


def test_a_token_is_shown_to_a_reader_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    received: list[bytes] = []
    with (
        refusing(received) as address,
        pytest.raises(
            CommandError, match=f"'web-1' refused: .*; it does not know the one in {TOKEN}"
        ),
        asking("web-1", address) as client,
    ):
        client.state()
    assert f"Bearer {SECRET}".encode() in received[0]


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("unix:/run/reader.sock", True),
        ("http://127.0.0.1:8001", True),
        ("http://[::1]:8001", True),
        ("http://localhost:8001", True),
        ("http://reader.example:8001", False),
        ("http://10.0.0.1:8001", False),
        ("http://localhost.example:8001", False),
        ("http://127.0.0.1.example:8001", False),
        ("http://localhost@far.example:8001", False),
        ("http://[::1", False),
        ("http://", False),
    ],
)
def test_a_token_goes_to_no_address_that_another_machine_may_have(
    address: str, *, here: bool
) -> None:
    assert _is_here(address) is here


def test_who_is_shown_no_token_is_told_of_by_its_name() -> None:
    received: list[bytes] = []
    with (
        refusing(received) as address,
        pytest.raises(CommandError, match=f"refused: .*; {TOKEN} is shown to readers"),
        asking("web-1", address) as client,
    ):
        client.state()
    assert b"authorization" not in received[0].lower()


def test_a_reader_that_does_not_answer_is_named() -> None:
    with (
        pytest.raises(CommandError, match=r"reader 'web-1' does not answer: .*readers list"),
        asking("web-1", "http://127.0.0.1:1") as client,
    ):
        client.state()


def test_the_token_is_no_setting() -> None:
    environ = {
        TOKEN: SECRET,
        "INDEXRELAY_COLLECTIONS__TRACKS__DIMENSION": "2",
    }
    assert SECRET not in load_settings(environ=environ).model_dump_json()
