"""What an entry may be: the door that batches, tables and folders share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest
from sqlalchemy import create_engine, text

from indexrelay.producers import Producer
from indexrelay.schemas.settings import CollectionSettings, Metric, Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidEntriesError, SourceError
from indexrelay.storage.sources import open_source
from indexrelay.storage.validation import check_entries
from indexrelay.streams import Connection
from tests.security.limits.table import Row, exercises


def checked(
    id_: str = "a", *, text: str | None = None, payload: object = None, as_json: bool = False
) -> Entries:
    return check_entries(
        [id_],
        [[1.0, 0.0]],
        [text],
        [json.dumps(payload) if as_json else payload],
        dimension=2,
        metric=Metric.L2,
        payloads_are_json=as_json,
    )


@exercises("an entry's id, in bytes of UTF-8")
def _id(row: Row, _request: pytest.FixtureRequest) -> None:
    assert checked("ü" * (row.number // 2)).ids == ["ü" * (row.number // 2)]
    with pytest.raises(InvalidEntriesError, match="row 0"):
        checked("ü" * (row.number // 2) + "a")


@exercises("levels of lists and objects in a payload")
def _depth(row: Row, _request: pytest.FixtureRequest) -> None:
    deep: object = 1
    for _ in range(row.number):
        deep = [deep]
    for as_json in (False, True):
        assert checked(payload=deep, as_json=as_json).payloads[0] is not None
        with pytest.raises(InvalidEntriesError, match="deeper"):
            checked(payload={"a": deep}, as_json=as_json)


def through_every_door(folder: Path, column: str, values: dict[str, str], *, setting: str) -> None:
    """Hand the value that fits and the one that does not to a batch, a table and a folder.

    The other setting is small, so that one that is mixed up with it is found.
    """
    limit = len(values["fits"].encode())
    declared = {"dimension": 2, "metric": "l2", "max_text_bytes": 1, "max_payload_bytes": 1}
    declared |= {setting: limit}
    catalog = Catalog.open(f"sqlite:///{folder}/catalog.db")
    problem = f"{column} of more than {limit:,} bytes of UTF-8"

    def batch(value: str) -> None:
        server = fakeredis.FakeServer()
        connection = Connection(
            commands=fakeredis.FakeRedis(server=server), blocking=fakeredis.FakeRedis(server=server)
        )
        settings = Settings.model_validate({"data_dir": folder, "collections": {"a": declared}})
        given = value if column == "text" else json.loads(value)
        producer = Producer(settings, catalog=catalog, connection=connection)
        with producer, producer.batch("a") as opened:
            opened.upsert(["x"], [[1.0, 0.0]], **{f"{column}s": [given]})
            getattr(opened, f"set_{column}s")(["x"], [given])

    def source(name: str, **of: str) -> None:
        collection = CollectionSettings.model_validate({**declared, "source": of})
        with open_source(name, collection, catalog).snapshot() as snapshot:
            assert len(list(snapshot.chunks())) == 1

    def table(value: str) -> None:
        url = f"sqlite:///{folder}/own.db"
        with create_engine(url).begin() as database:
            database.execute(text("DROP TABLE IF EXISTS rows"))
            database.execute(text("CREATE TABLE rows (id TEXT, vector TEXT, value TEXT)"))
            row = {"value": value}
            database.execute(text("INSERT INTO rows VALUES ('x', '[1, 0]', :value)"), row)
        source("b", kind="table", url=url, table="rows", **{f"{column}_column": "value"})

    def files(value: str) -> None:
        path = folder / "files"
        path.mkdir(exist_ok=True)
        arrays: dict[str, Any] = {"vectors": np.array([[1, 0]], np.float32)}
        arrays[f"{column}s"] = np.array([value])
        np.savez(path / "x.npz", **arrays)
        source("c", kind="folder", path=str(path))

    doors: tuple[Callable[[str], None], ...] = (batch, table, files)
    for door in doors:
        door(values["fits"])
        with pytest.raises((InvalidEntriesError, SourceError), match=problem):
            door(values["is too large"])
    catalog.close()


@exercises("bytes of UTF-8 in a text")
def _text(row: Row, request: pytest.FixtureRequest) -> None:
    assert checked(text="x" * row.number).texts == ["x" * row.number]
    with pytest.raises(InvalidEntriesError, match="row 0"):
        checked(text="x" * (row.number - 1) + "ü")
    values = {"fits": "ü" * 50, "is too large": "ü" * 50 + "x"}
    folder = request.getfixturevalue("tmp_path")
    through_every_door(folder, "text", values, setting="max_text_bytes")


@exercises("bytes of UTF-8 in a payload's JSON")
def _payload(row: Row, request: pytest.FixtureRequest) -> None:
    for as_json in (False, True):
        assert checked(payload="x" * (row.number - 2), as_json=as_json).payloads[0] is not None
        with pytest.raises(InvalidEntriesError, match="row 0"):
            checked(payload="x" * (row.number - 1), as_json=as_json)
    values = {"fits": '{"a":"ü"}', "is too large": '{"a":"üx"}'}
    folder = request.getfixturevalue("tmp_path")
    through_every_door(folder, "payload", values, setting="max_payload_bytes")
