"""A password in the settings is never shown: not in a repr, not in a mistake."""

import json
import traceback
from pathlib import Path

import pytest

from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings

SECRET = "hunter2"
URL = f"redis://reader:{SECRET}@localhost:6379/0"


@pytest.fixture
def settings() -> Settings:
    source = {"kind": "table", "url": f"postgresql://u:{SECRET}@h/d", "table": "songs"}
    return load_settings(
        environ={
            "INDEXRELAY_REDIS__URL": URL,
            "INDEXRELAY_CATALOG__URL": f"postgresql://u:{SECRET}@h/d",
            "INDEXRELAY_COLLECTIONS__SONGS": json.dumps({"dimension": 3, "source": source}),
        }
    )


def test_settings_do_not_show_their_secrets(settings: Settings) -> None:
    for shown in (repr(settings), str(settings), f"{settings.redis}", settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.redis_url == URL
    assert SECRET in settings.catalog_url


@pytest.mark.parametrize(
    "text",
    [
        f"redis = '{URL}'",
        "[http.tokens.shop]\nsha256 = 'hunter2'",
        "[http.tokens.shop]\nsha265 = 'hunter2'",
        "[http.tokens]\nshop = 'hunter2'",
        "redis = 'hunter2'",
        f"[redis]\nulr = '{URL}'",
        "[redis]\npassword = 'hunter2'",
        "[redis]\nextra = 'hunter2'",
        "[redis]\nurl = ['hunter2']",
        "[redis]\nurl = { password = 'hunter2' }",
        "redis_password = 'hunter2'",
        f"database = '{URL}'",
        f"namespace = '{URL}'",
        f"[catalog.url]\ndsn = '{URL}'",
        "[collections.a]\ndimension = 1\nsource = 'postgresql://u:hunter2@h/d'",
        "[collections.a]\ndimension = 1\nsource = { kind = 'sql', url = 'hunter2' }",
        "[collections.a]\ndimension = 1\nsource = { url = 'hunter2', table = 'x' }",
        "collections.a.source = { kind = 'table', table = 'x', url = 'x', login = 'hunter2' }",
        f"[reader]\ncomponents = ['{URL}']",
        f"[components.a]\nkind = 'k'\nfrom = '{URL}'",
        f"[components.a]\nkind = 'k'\nfrom = ['{URL}', 'a']",
        f"['{URL}']\nx = 1",
        f"[collections.'{URL}']\ndimension = 1",
    ],
)
def test_a_mistake_does_not_show_a_secret(text: str, tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.mistakes)
    assert SECRET not in shown


@pytest.mark.parametrize(
    "variable",
    ["REDIS", "REDIS__ULR", "REDIS__PASSWORD", "REDIS_PASSWORD", "NAMESPACE", "READER__COMPONENTS"],
)
def test_a_mistaken_variable_does_not_show_a_secret(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={f"INDEXRELAY_{variable}": URL})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_value_that_cannot_be_a_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text("[rebuilder]\nquit_seconds = 3\nworkers = 'many'\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})
    assert {mistake.value for mistake in caught.value.mistakes} == {3, "many"}
