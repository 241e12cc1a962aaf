"""The table ``[admin]``: what is refused, in words that give no secret away."""

from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import check_settings, load_settings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9v"
USERS = {"ada": {"password": HASH, "role": "operator"}}
DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("admin", "right"),
    [
        ({"host": "0.0.0.0"}, "admin password"),  # noqa: S104 - refused
        ({"host": "relay.example"}, "use 127.0.0.1"),
        ({"users": {"ada": {"password": "hunter2"}}}, "admin password"),
        ({"users": {"ada": {"password": HASH.replace("65536", "999999")}}}, "too much"),
        ({"users": {"ada": {"password": HASH.replace("argon2id", "argon2i")}}}, "Argon2 hash"),
        ({"users": {"ada": {"password": HASH, "role": "root"}}}, "viewer"),
        ({"users": {"Ada Lovelace": {"password": HASH}}}, "lower-case"),
        ({"tokens": {"one": {"sha256": DIGEST}, "two": {"sha256": DIGEST}}}, "the same token"),
        ({"cookie_key": "hunter2"}, "32"),
        ({"cookie_key": "hunter2" * 10, "cookie_key_file": "key"}, "not both"),
        ({"proxies": ["relay.example"]}, "IPv4 or IPv6"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_would_let_strangers_in_or_cannot_be_is_refused(
    admin: dict[str, Any], right: str
) -> None:
    with pytest.raises(SettingsError, match=right) as refused:
        check_settings({"admin": admin}, origin="a test")
    assert "hunter2" not in str(refused.value)
    assert HASH not in str(refused.value)


def test_with_somebody_who_may_log_in_it_listens_anywhere() -> None:
    public = {"host": "::"}
    assert not check_settings({"admin": {**public, "users": USERS}}, origin="a test").admin.open
    token = {"ci": {"sha256": DIGEST}}
    assert not check_settings({"admin": {**public, "tokens": token}}, origin="a test").admin.open
    assert check_settings({"admin": {"host": "127.0.0.9"}}, origin="a test").admin.open


def test_a_user_may_come_by_variables_and_a_key_file_lies_beside_the_settings(
    tmp_path: Path,
) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text('[admin]\ncookie_key_file = "cookie.key"\n')
    user = "INDEXRELAY_ADMIN__USERS__ADA__PASSWORD"
    settings = load_settings(file, environ={user: HASH})
    assert settings.admin.users["ada"].password.get_secret_value() == HASH
    assert settings.admin.users["ada"].role == "viewer"
    assert settings.admin.cookie_key_file == tmp_path / "cookie.key"
    assert HASH not in repr(settings)


def test_the_page_is_meant_where_a_file_or_a_variable_says_anything_of_it(tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text("[collections.tracks]\ndimension = 2\n")
    assert not load_settings(file, environ={}).has_admin
    assert load_settings(file, environ={"INDEXRELAY_ADMIN__PORT": "8091"}).has_admin
    file.write_text("[admin]\n")
    assert load_settings(file, environ={}).has_admin
