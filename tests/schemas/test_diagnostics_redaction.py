"""A password in the settings is never shown: not in a repr, not in a mistake."""

import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import Mistake, SettingsError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings, load_settings

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
    file.write_text(
        "[rebuilder]\nworkers = 'many'\nquiet_seconds = '5 min'\nblock_seconds = 3\n"
        "[log]\nformat = 'xml'\n[reader]\ncomponents = ['main_map']\n"
        "[collections.a]\ndimension = 1\nmetric = 'euclid'\n[components.'My maps']\nkind = 'k'\n",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})
    shown = {mistake.value for mistake in caught.value.mistakes}
    assert {"many", "5 min", 3, "xml", "main_map", "euclid", "My maps"} <= shown


def test_of_a_value_under_an_unknown_key_only_its_kind_is_shown() -> None:
    raw = {"rebuilder": {"quit_seconds": 3, "quiet": True, "words": ["a"], "more": {"a": "b"}}}
    with pytest.raises(SettingsError) as caught:
        check_settings(raw, origin="here")
    assert [mistake.value for mistake in caught.value.mistakes] == [
        "(hidden: number)",
        "(hidden: true or false)",
        "(hidden: list)",
        "(hidden: table)",
    ]
    assert "rebuilder.quiet = (hidden: true or false): no such key" in str(caught.value)


SECRETS = (
    "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGP",
    "xoxb-281-hunter",
    "Tr0ub4dor&3",
    "hunter:2@h",
    "8f3kX2pQz7LmW4vT",
)


def settings_keys(table: type[BaseModel] = Settings) -> Iterator[tuple[str, ...]]:
    """Every key that settings may have, its tables among them; a name is ``name``."""
    for name, declared in table.model_fields.items():
        key = declared.alias or name
        yield (key,)
        for inner, named in inner_tables(declared.annotation):
            if named:
                yield (key, "name")
            for below in settings_keys(inner):
                yield (key, *(("name",) if named else ()), *below)


def inner_tables(annotation: Any, *, named: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, named
    for argument in get_args(annotation):
        yield from inner_tables(argument, named=named or get_origin(annotation) is dict)


def tables_with(keys: Iterable[Sequence[str]], value: object) -> dict[str, Any]:
    """Tables that have ``value`` at each of the keys; every collection's source is a table."""
    raw: dict[str, Any] = {}
    for key in keys:
        table = raw
        for part in key[:-1]:
            if not isinstance(table.get(part), dict):
                table[part] = {}
            table = table[part]
            if part == "source":
                table.setdefault("kind", "table")
        table[key[-1]] = value
    return raw


def sentences_of(raw: dict[str, Any]) -> str:
    """What is said of these settings, in which one thing more is wrong in any case."""
    with pytest.raises(SettingsError) as caught:
        check_settings({**raw, "nothing": 1}, origin="here")
    return str(caught.value) + repr(caught.value.mistakes)


KEYS = sorted(set(settings_keys()))
LEAVES = [key for key in KEYS if not any(other[:-1] == key for other in KEYS)]
TABLES = [key for key in KEYS if key not in LEAVES]


def test_the_keys_are_all_found() -> None:
    assert {
        ("backups", "recipients"),
        ("admin", "users", "name", "password"),
        ("notifications", "targets", "name", "url"),
        ("collections", "name", "source", "url"),
        ("collections", "name", "embedder", "function"),
        ("rebuilder", "workers"),
    } <= set(KEYS)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_shown_at_no_place_of_the_settings(secret: str) -> None:
    misspelt = [(*key[:-1], f"{key[-1]}{key[-1][-1]}") for key in LEAVES]
    beside = {(*key[:-1], "beside") for key in LEAVES}
    below = [(*key, "below") for key in LEAVES]
    for keys in (LEAVES, misspelt, beside, below):
        for value in (secret, [secret], {"inner": secret}, {secret: 1}):
            assert secret not in sentences_of(tables_with(keys, value)), (keys, value)
    for table in TABLES:
        assert secret not in sentences_of(tables_with([table], secret)), table


def test_a_secret_in_one_place_alone_is_not_shown() -> None:
    for key in LEAVES:
        assert SECRETS[2] not in sentences_of(tables_with([key], SECRETS[2])), key


def test_secrets_in_variables_are_not_shown() -> None:
    misspelt = ["__".join((*key[:-1], f"{key[-1]}x")) for key in LEAVES]
    environ = {f"INDEXRELAY_{each.upper()}": SECRETS[2] for each in misspelt}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ=environ)
    assert SECRETS[2] not in str(caught.value)
    assert len(caught.value.mistakes) > len(LEAVES) / 2


def test_a_sentence_that_quotes_a_hidden_value_hides_it_there() -> None:
    mistake = Mistake(key="backups.dir", value="Tr0ub4dor&3", right="no folder 'Tr0ub4dor&3'")
    assert str(mistake) == "backups.dir = (hidden: text of 11 characters): no folder (hidden)"
    assert str(replace(mistake, line=3)) == f"line 3: {mistake}"


@pytest.mark.parametrize("secret", [*SECRETS[2:], "TOKEN", "0123456789abcdef" * 2])
@pytest.mark.parametrize("table", ["http.tokens", "admin.users", "notifications.targets"])
def test_a_secret_in_the_place_of_its_name_is_not_shown(table: str, secret: str) -> None:
    assert secret not in sentences_of(tables_with([(*table.split("."), secret)], "read"))


def test_the_names_of_people_are_parts_of_a_key() -> None:
    assert Mistake(key="http.tokens.shop_2.scope", value=None, right="no").key.endswith(
        "shop_2.scope"
    )


@pytest.mark.parametrize("secret", SECRETS[:2])
def test_an_error_hides_what_is_known_to_be_a_secret(secret: str) -> None:
    assert secret not in describe_error(ValueError(f"cannot read {secret}, or else"))
    assert describe_error(ValueError("the disk-space of ghosts")).endswith(
        "the disk-space of ghosts"
    )
