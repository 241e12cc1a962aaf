"""The ACL file is made from the template and the environment, or not at all."""

import hashlib
import stat
from pathlib import Path

import pytest

from deploy.redis.render_acl import RenderError, main, render
from tests.deploy.compose import ROOT
from tests.fixtures.acl import PASSWORDS, USERS

TEMPLATE = ROOT / "deploy" / "redis" / "users.acl"


def test_passwords_become_hashes() -> None:
    rendered = render(TEMPLATE.read_text(encoding="utf-8"), PASSWORDS)
    for password in PASSWORDS.values():
        assert password not in rendered
        assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in rendered


def test_every_line_is_a_user() -> None:
    rendered = render(TEMPLATE.read_text(encoding="utf-8"), PASSWORDS)
    lines = rendered.splitlines()
    assert [line.split()[1] for line in lines] == ["default", *USERS]
    assert all(line.startswith("user ") for line in lines)
    assert "$" not in rendered
    assert "nopass" not in rendered


def test_the_namespace_is_part_of_every_key() -> None:
    rendered = render(
        TEMPLATE.read_text(encoding="utf-8"), {**PASSWORDS, "INDEXRELAY_NAMESPACE": "music"}
    )
    patterns = [part for part in rendered.replace(")", "").split() if "~" in part]
    assert patterns
    assert all("~{music}:" in pattern for pattern in patterns)


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
@pytest.mark.parametrize("value", [None, "", "short"])
def test_a_password_that_is_missing_or_short_is_refused(missing: str, value: str | None) -> None:
    environ = {key: given for key, given in PASSWORDS.items() if key != missing}
    if value is not None:
        environ[missing] = value
    with pytest.raises(RenderError, match=missing) as caught:
        render(TEMPLATE.read_text(encoding="utf-8"), environ)
    assert "short;" not in str(caught.value) or value


@pytest.mark.parametrize("namespace", ["*", "a}b", "A", "a b", "a\nuser x on nopass +@all ~*"])
def test_a_namespace_that_would_open_other_keys_is_refused(namespace: str) -> None:
    with pytest.raises(RenderError, match="INDEXRELAY_NAMESPACE"):
        render(
            TEMPLATE.read_text(encoding="utf-8"), {**PASSWORDS, "INDEXRELAY_NAMESPACE": namespace}
        )


def test_a_password_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("p" * 20 + "\n", encoding="utf-8")
    rendered = render("user a on #$a\n", {"A_PASSWORD_FILE": str(secret)})
    assert hashlib.sha256(b"p" * 20).hexdigest() in rendered
    with pytest.raises(RenderError, match="A_PASSWORD_FILE"):
        render("user a on #$a\n", {"A_PASSWORD_FILE": str(tmp_path / "none")})


def test_the_command_writes_the_file_whole_and_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, password in PASSWORDS.items():
        monkeypatch.setenv(name, password)
    target = tmp_path / "acl" / "users.acl"
    assert main([str(TEMPLATE), str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_the_command_leaves_the_old_file_when_a_password_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PASSWORDS:
        monkeypatch.delenv(name, raising=False)
    target = tmp_path / "users.acl"
    target.write_text("old")
    assert main([str(TEMPLATE), str(target)]) == 1
    assert target.read_text() == "old"
    assert "HEALTH_PASSWORD is not set" in capsys.readouterr().err
