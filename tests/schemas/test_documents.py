"""The documents in ``docs`` are those of the models, and are sound in themselves."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas.documents import asyncapi_document, json_schemas, main
from indexrelay.schemas.messages import EVENT_TYPES, FIELD
from indexrelay.streams.keys import Keys
from tests.schemas.sample_events import SAID, event_of

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = json_schemas()
"""Generated once; that twice gives the same is tested below."""


def references(node: Any) -> Iterator[str]:
    """Every ``$ref`` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def resolved(document: Any, reference: str) -> Any:
    """What ``reference`` points to; a file is looked for beside the AsyncAPI document."""
    if not reference.startswith("#"):
        return json.loads((DOCS / reference).read_text(encoding="utf-8"))
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_the_documents_in_the_repository_are_those_of_the_models() -> None:
    assert main([str(DOCS), "--check"]) == 0


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that was generated once, for whoever compares with it or takes a copy."""
    folder = tmp_path_factory.mktemp("written")
    assert main([str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below, by its place there."""
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.json")}


def test_generating_twice_gives_the_same_bytes(tmp_path: Path, written: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert contents(tmp_path) == contents(written) != {}


def test_drift_is_found_named_and_repaired(
    tmp_path: Path, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    schemas = tmp_path / "schemas"
    (schemas / "release.json").write_text("{}")
    (schemas / "manifest.json").unlink()
    (schemas / "old.json").write_text("{}")
    assert main([str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().err
    assert "release.json is not what the models say" in said
    assert "manifest.json is missing" in said
    assert "old.json belongs to no model" in said
    assert "make docs" in said
    assert main([str(tmp_path)]) == 0
    assert contents(tmp_path) == contents(written)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_reference_in_a_schema_leads_somewhere(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"].endswith("2020-12/schema")
    for reference in references(schema):
        assert resolved(schema, reference)


@pytest.mark.parametrize("data", SAID, ids=lambda data: data.TYPE)
def test_an_events_schema_has_every_key_that_is_sent(data: Any) -> None:
    schema = SCHEMAS[data.TYPE]
    sent = json.loads(event_of(data).to_bytes())
    assert set(sent) <= set(schema["properties"])
    assert set(schema["required"]) <= set(sent)
    assert schema["properties"]["type"]["const"] == data.TYPE
    inner = resolved(schema, schema["properties"]["data"]["$ref"])
    assert set(sent["data"]) == set(inner["properties"])


def test_the_sentences_under_the_fields_are_in_the_schema() -> None:
    tables = SCHEMAS["settings"]["$defs"]
    quiet = tables["RebuilderSettings"]["properties"]["quiet_seconds"]
    assert quiet["description"].startswith("A pass starts this long after the last event")
    metric = SCHEMAS["rebuild.finished.v1"]["$defs"]["RebuildFinished"]
    assert "description" in metric["properties"]["release"]


def test_a_component_is_described_as_it_is_written() -> None:
    component = SCHEMAS["settings"]["$defs"]["ComponentDefinition"]
    assert "parameters" not in component["properties"]
    assert component["additionalProperties"] is True
    assert {"kind", "from"} == set(component["required"])


def test_the_asyncapi_document_has_what_version_3_asks_for() -> None:
    document = asyncapi_document()
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    for channel in document["channels"].values():
        assert channel["address"].startswith("{tag}:")
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))
        assert channel["messages"]
        assert channel["x-redis"]["field"] == FIELD.decode()
    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        assert operation["messages"]
        for message in operation["messages"]:
            # AsyncAPI 3.0: an operation's messages are those of its channel.
            assert message["$ref"].startswith(f"{channel}/messages/")


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document()
    for reference in references(document):
        assert resolved(document, reference)


def test_the_channels_are_the_streams() -> None:
    keys = Keys("music")
    values = {"{tag}": "{music}", "{label}": "web-1", "{collection}": "tracks"}
    addresses = {
        re.sub(r"{\w+}", lambda found: values[found[0]], channel["address"])
        for channel in asyncapi_document()["channels"].values()
    }
    streams = {keys.events, keys.results, keys.reloads}
    assert addresses == {*streams, keys.reports("web-1"), keys.changes("tracks")}


def test_every_event_has_a_sender_and_a_receiver() -> None:
    document = asyncapi_document()
    for action in ("send", "receive"):
        names = {
            resolved(document, resolved(document, message["$ref"])["$ref"])["name"]
            for operation in document["operations"].values()
            if operation["action"] == action
            for message in operation["messages"]
        }
        assert names == set(EVENT_TYPES)
