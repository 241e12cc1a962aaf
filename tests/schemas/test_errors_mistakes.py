"""Everything that is wrong with the settings, at once: the key, the value, what would be right."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from indexrelay.schemas.errors import Mistake, SettingsError
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.settings_file import load_settings

COLLECTION = "[collections.a]\ndimension = 1\n"
COMPONENT = COLLECTION + "[components.b]\nkind = 'k'\nfrom = 'a'\n"
TEN = Path(__file__).with_name("ten_mistakes.toml")


def mistakes_in(text: str, folder: Path, **variables: str) -> list[Mistake]:
    file = folder / "indexrelay.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ=variables)
    return list(caught.value.mistakes)


def test_a_file_with_ten_mistakes_gives_ten_errors() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(TEN, environ={})
    found = {(mistake.key, mistake.value) for mistake in caught.value.mistakes}
    assert len(caught.value.mistakes) == 10
    assert found == {
        ("namespce", "(hidden: text of 4 characters)"),
        ("rebuilder.quiet_seconds", "soon"),
        ("rebuilder.workers", 0),
        ("log.format", "xml"),
        ("collections.artists.dimension", None),
        ("collections.Songs", "Songs"),
        ("collections.covers.source.kind", "s3"),
        ("components.voyager.from", "trakcs"),
        ("components.tracks", "tracks"),
        ("components.main_map.from", "main_map → map_cache → main_map"),
    }


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("namespce", "did you mean 'namespace'?"),
        ("rebuilder.quiet_seconds", "must be a number"),
        ("rebuilder.workers", "must be greater than 0"),
        ("log.format", "must be 'auto', 'console' or 'json'"),
        ("collections.artists.dimension", "must be given"),
        ("collections.Songs", "starts with a lower-case letter"),
        ("collections.covers.source.kind", "'catalog', 'table', 'folder'"),
        ("components.voyager.from", "did you mean 'tracks'?"),
        ("components.tracks", "a collection has that name"),
        ("components.main_map.from", "break the circle"),
    ],
)
def test_each_error_names_what_would_be_right(key: str, right: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(TEN, environ={})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == f"{TEN}: 10 mistake(s)"
    assert [line for line in lines if re.match(rf"line \d+: {key} = ", line) and right in line]


@pytest.mark.parametrize(
    ("text", "key", "right"),
    [
        ("redis = 3", "redis", "must be a table"),
        ("redis.url = 'http://host'", "redis.url", "must begin with one of redis://"),
        ("redis.url = 'redis+sentinel://host'", "redis.url", "HOST:PORT,HOST:PORT/SERVICE/DB"),
        ("[reader]\ncomponents = 3", "reader.components", "must be a list"),
        ("[reader]\ncomponents = ['x']", "reader.components", "no such component; there is none"),
        ("[reader]\npoll_seconds = inf", "reader.poll_seconds", "must be a finite number"),
        ("[rebuilder]\nworkers = 1.5", "rebuilder.workers", "must be a whole number"),
        ("[rebuilder]\nblock_seconds = 3", "rebuilder.block_seconds", "less than or equal to 2"),
        ("data_dir = 3", "data_dir", "must be a path, as text"),
        (
            COLLECTION + "source = { path = 'x' }",
            "collections.a.source.kind",
            "'catalog', 'table' or 'folder'",
        ),
        (
            COLLECTION
            + "source = { kind = 'table', url = 'sqlite://', table = 'a; DROP TABLE a' }",
            "collections.a.source.table",
            "letters, digits and underscores",
        ),
        (
            COLLECTION + "source = { kind = 'folder', paht = 'x', path = 'x' }",
            "collections.a.source.paht",
            "did you mean 'path'?",
        ),
        (
            COLLECTION + "[components.b]\nkind = 'k'\nfrom = []",
            "components.b.from",
            "at least 1 item",
        ),
        (
            COMPONENT + "max_shrink = 2",
            "components.b.max_shrink",
            "less than or equal to 1",
        ),
        (
            COMPONENT + "since = 2026-03-01",
            "components.b.since",
            "write a date as text",
        ),
        (
            COMPONENT + "weight = nan",
            "components.b.weight",
            "no nan",
        ),
    ],
)
def test_a_mistake_names_its_key_in_the_words_of_the_file(
    text: str, key: str, right: str, tmp_path: Path
) -> None:
    (mistake,) = mistakes_in(text, tmp_path)
    assert mistake.key == key
    assert right in mistake.right


def test_what_is_no_toml_is_one_mistake_with_its_line(tmp_path: Path) -> None:
    (mistake,) = mistakes_in("[redis\n", tmp_path)
    assert mistake.key == "config"
    assert "line 1" in mistake.right


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings(tmp_path / "other.toml", environ={})
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings(environ={"INDEXRELAY_CONFIG": str(tmp_path / "other.toml")})


def test_a_variable_that_is_no_setting_is_a_mistake(tmp_path: Path) -> None:
    (mistake,) = mistakes_in("", tmp_path, INDEXRELAY_REDDIS__URL="x")
    assert mistake.key == "INDEXRELAY_REDDIS__URL"
    assert "did you mean 'REDIS'?" in mistake.right


def test_a_variable_below_a_setting_that_is_no_table_is_a_mistake(tmp_path: Path) -> None:
    (mistake,) = mistakes_in("", tmp_path, INDEXRELAY_NAMESPACE__X="x")
    assert mistake.key == "namespace"


def test_a_variable_that_begins_like_json_and_is_none_is_a_mistake(tmp_path: Path) -> None:
    (mistake,) = mistakes_in("", tmp_path, INDEXRELAY_READER__COMPONENTS="[a")
    assert mistake.key == "INDEXRELAY_READER__COMPONENTS"
    assert "JSON" in mistake.right


def test_what_a_kind_finds_wrong_is_reported_with_the_rest(tmp_path: Path) -> None:
    def check(
        name: str, definition: ComponentDefinition, components: Collection[str]
    ) -> Iterator[Mistake]:
        assert list(components) == ["b", "c"]
        for key in definition.parameters:
            yield Mistake(key=f"components.{name}.{key}", value=1, right="the kind has no such key")

    file = tmp_path / "indexrelay.toml"
    file.write_text(
        "namespce = 'x'\n[collections.a]\ndimension = 1\n"
        "[components.b]\nkind = 'k'\nfrom = 'a'\nnprob = 1\n"
        "[components.c]\nfrom = 'a'\nnprob = 1\n",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={}, check_kind=check)
    assert {mistake.key for mistake in caught.value.mistakes} == {
        "namespce",
        "components.c.kind",
        "components.b.nprob",
    }
