"""A producer is opened by the settings that are found, or by those that are given."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexrelay.producers import AsyncProducer, Producer
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings_file import load_settings

FILE = 'data_dir = "data"\n[collections.tracks]\ndimension = 2\n'


@pytest.mark.parametrize(
    "given",
    [
        lambda file: file,
        str,
        load_settings,
        lambda _: None,
    ],
    ids=["a path", "text", "settings", "nothing"],
)
def test_it_opens_what_the_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Callable[[Path], object]
) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    settings: Any = given(file)
    with Producer.open(settings) as producer, producer.batch("tracks", "first") as batch:
        batch.upsert(["a"], [[1, 0]])
    assert batch.commit.generation == 1
    assert (tmp_path / "data" / "catalog.db").is_file()


def test_the_variable_names_the_file_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(FILE)
    monkeypatch.setenv("INDEXRELAY_CONFIG", str(tmp_path / "mine.toml"))
    with Producer.open() as producer, producer.batch("tracks") as batch:
        batch.upsert(["a"], [[1, 0]])
    assert batch.commit.generation == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        Producer.open(tmp_path / "none.toml")


async def _opened(file: Path) -> int:
    async with await AsyncProducer.open(file) as producer:
        async with producer.batch("tracks") as batch:
            await batch.upsert(["a"], [[1, 0]])
        return batch.commit.generation


def test_the_asynchronous_one_takes_the_same(tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(FILE)
    assert asyncio.run(_opened(file)) == 1
