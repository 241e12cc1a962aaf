"""The settings as they are read, and where each value comes from."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.commands.config import settings_in
from indexrelay.schemas.origins import Origins
from indexrelay.schemas.settings import Settings
from tests.console.conftest import Run

SECRETS = {
    "[redis]\nurl": "redis://me:s3cret@host:6379/1?ssl_password=s3cret",
    "operator_url": "redis+sentinel://:s3cret@a:1,b:2/main?sentinel_password=s3cret",
    "[catalog]\nurl": "postgresql://me:s3cret@db:5432/index?password=s3cret",
    "[notifications.targets.team]\nurl": "json://host/s3cret",
    "[monitoring]\ntoken_sha256": "5ec7e7" * 10 + "5ec7",
    "[http.tokens.web]\nsha256": "5ec7e7" * 10 + "5ec7",
}
CONFIG = "\n".join(
    [
        *(f'{key} = "{value}"' for key, value in SECRETS.items()),
        f"[live]\nkeys = [{'s3cret' * 8!r}]",
        "[collections.author]\ndimension = 3\nfilterable = { author = 'keyword' }",
        "source = { kind = 'table', url = 'sqlite:///songs.db', table = 'songs' }",
        "[components.forecast]\nkind = 'vector_index'\nfrom = 'author'",
        "matrix = { index = ['Flat', 'SQ8'] }",
    ]
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "indexrelay.toml"
    file.write_text(CONFIG)
    return file


def shown(run: Run, config: Path, *arguments: str) -> dict[str, Any]:
    said = run("config", "show", *arguments, "--json", "--config", str(config))
    assert said.code == 0, said.err
    document: dict[str, Any] = json.loads(said.out)
    return document


def test_every_setting_is_shown_with_where_it_comes_from(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEXRELAY_REBUILDER__WORKERS", "4")
    document = shown(run, config)
    assert document["file"] == str(config)
    settings = document["settings"]
    workers = {"value": 4, "from": "variable", "line": None}
    assert settings["rebuilder.workers"] == {
        **workers,
        "variable": "INDEXRELAY_REBUILDER__WORKERS",
    }
    assert settings["log.level"]["from"] == "default"
    assert settings["components.forecast_sq8.index"] == {
        "value": "SQ8",
        "from": "file",
        "line": CONFIG.split("\n").index("matrix = { index = ['Flat', 'SQ8'] }") + 1,
        "variable": None,
    }
    assert settings["collections.author.filterable"]["value"] == {"author": "keyword"}
    assert settings["data_dir"]["value"] == str(config.parent / "indexrelay-data")


def test_no_secret_is_shown(run: Run, config: Path) -> None:
    said = run("config", "show", "--config", str(config))
    assert said.code == 0, said.err
    for secret in ("s3cret", "5ec7e7"):
        assert secret not in said.out
    settings = shown(run, config)["settings"]
    values = {key: settings[key]["value"] for key in settings}
    assert values["redis.url"] == "redis://me:***@host:6379/1?ssl_password=***"
    assert (
        values["redis.operator_url"] == "redis+sentinel://:***@a:1,b:2/main?sentinel_password=***"
    )
    assert values["catalog.url"] == "postgresql://me:***@db:5432/index?password=***"
    assert values["notifications.targets.team.url"] == "json://***"
    assert values["collections.author.source.url"] == f"sqlite:///{config.parent / 'songs.db'}"
    assert values["live.keys"] == ["(hidden)"]
    assert values["http.tokens.web.sha256"] == values["monitoring.token_sha256"] == "(hidden)"


@pytest.mark.parametrize(
    "settings",
    [
        {"redis": {"url": "unix://me:s3/cret@/redis.sock"}},
        {"redis": {"url": "redis://:12#s3cret@host"}},
        {"redis": {"url": "redis+sentinel://me/s3cret@h"}},
        {"redis": {"url": "redis://me:53?x=s3cret@h"}},
        {"catalog": {"url": "postgresql://me:p@s3cret@host/db"}},
        {"catalog": {"url": "postgresql://me:1/s3cret@host/db"}},
        {"catalog": {"url": "postgresql://me:53?x=s3cret@host/db"}},
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown_in_part(settings: dict[str, Any]) -> None:
    found = list(settings_in(Settings.model_validate(settings), Origins()))
    [url] = (
        each.value for each in found if each.key in ("redis.url", "catalog.url") and each.value
    )
    assert "s3" not in url
    assert "53" not in url
    assert "cret" not in url


def test_one_table_one_key_or_what_is_given_is_shown(run: Run, config: Path) -> None:
    assert set(shown(run, config, "redis")["settings"]) == {
        "redis.url",
        "redis.operator_url",
        "redis.timeout_seconds",
    }
    assert list(shown(run, config, "log.level")["settings"]) == ["log.level"]
    assert set(shown(run, config, "redis", "--given")["settings"]) == {
        "redis.url",
        "redis.operator_url",
    }
    said = run("config", "show", "rebuilder.wokers", "--config", str(config))
    assert said.code == 2
    assert "did you mean 'rebuilder.workers'?" in said.err


def test_the_path_of_the_file_goes_alone(run: Run, config: Path) -> None:
    said = run("config", "show", "--path", "--config", str(config))
    assert (said.code, said.out) == (0, f"{config}\n")
    assert run("config", "show", "--path", "--json", "--config", str(config)).code == 2


def test_right_settings_are_right_although_nothing_that_they_name_is_there(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(
        "[redis]\nurl = 'redis://nobody.invalid'\n[collections.tracks]\ndimension = 3\n"
    )
    said = run("config", "check", "--config", str(file))
    assert said.code == 0
    assert f"✓ {file}: right, 1 collection(s)" in said.out
    document = json.loads(run("config", "check", "--json", "--config", str(file)).out)
    assert document == {"right": True, "file": str(file), "mistakes": [], "notes": []}
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_a_mistake_has_its_line_its_key_and_what_would_be_right(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(
        "[collections.tracks]\ndimension = 3\n[components.map]\nkind = 'projektion'\n"
        "from = 'tracks'\n"
    )
    said = run("config", "check", "--json", "--config", str(file))
    assert said.code == 2
    document = json.loads(said.out)
    assert document["right"] is False
    [mistake] = document["mistakes"]
    assert (mistake["line"], mistake["key"]) == (4, "components.map.kind")
    assert "did you mean 'projection'" in mistake["right"]
    assert "line 4: components.map.kind = 'projektion'" in said.err


def test_an_option_that_no_connection_takes_is_found_with_its_line(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text("[collections.tracks]\ndimension = 3\n[redis]\nurl = 'redis://h?nosuch=1'\n")
    said = run("config", "check", "--config", str(file))
    assert said.code == 2
    assert "line 4: redis.url" in said.err
    assert "nosuch" not in said.err
