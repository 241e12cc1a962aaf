"""``indexrelay admin``: a password is typed, never shown, and the settings know its hash."""

import asyncio
import getpass
import io
import json
import sys
from collections.abc import Callable

import pytest

from indexrelay.admin.logins import Passwords
from indexrelay.schemas.admin import AdminUser
from tests.console.conftest import Run, Said

PASSWORD = "correct horse battery"

Typed = Callable[..., None]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """What comes over stdin, which is no terminal."""

    def pipe(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return pipe


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """What a person types where nothing is shown."""

    def types(*answers: str) -> None:
        left = list(answers)

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(getpass, "getpass", lambda *_asked, **_more: left.pop(0))

    return types


def is_of(known: str, password: str) -> bool:
    user = AdminUser.model_validate({"password": known})
    return asyncio.run(Passwords({"ada": user}).are_right("ada", password))


def of(said: Said) -> str:
    assert PASSWORD not in said.out + said.err
    return said.out.strip()


def test_a_password_comes_over_stdin_and_its_hash_is_printed_alone(run: Run, piped: Typed) -> None:
    piped(f"{PASSWORD}\n")
    said = run("admin", "password")
    assert said.code == 0
    assert is_of(of(said), PASSWORD)
    assert f'password = "{of(said)}"' in said.err
    assert "[admin.users.NAME]" in said.err


def test_a_person_types_it_twice(run: Run, typed: Typed) -> None:
    typed(PASSWORD, PASSWORD)
    said = run("admin", "password", "--json")
    assert PASSWORD not in said.out + said.err
    assert json.loads(said.out)["password"].startswith("$argon2id$")
    typed(PASSWORD, "another one")
    said = run("admin", "password")
    assert (said.code, said.out) == (2, "")
    assert "not the same" in said.err


def test_a_short_password_is_refused_and_not_shown(run: Run, piped: Typed) -> None:
    piped("hunter2\n")
    said = run("admin", "password")
    assert (said.code, said.out) == (2, "")
    assert "8 to 1024 characters" in said.err
    assert "hunter2" not in said.err
