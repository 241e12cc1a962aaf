"""Messages as earlier releases wrote them, and as a later one may, are readable.

Their bytes are kept beside this file; see ``messages/README.md``.
"""

from pathlib import Path

import pytest
from pydantic import BaseModel

from indexrelay.schemas.messages import EVENT_TYPES, ComponentResult, Event, EventData
from indexrelay.schemas.versions import SCHEMA_VERSION, Release, VersionManifest
from tests.schemas.sample_events import SAID, event_of
from tests.schemas.stored_messages import (
    DOCUMENT_MODELS,
    DOCUMENTS,
    MESSAGES,
    NEXT,
    VERSIONS,
    document,
    message,
    unknown_fields,
    written_as,
)

STORED = sorted(MESSAGES.glob("*/*.json"))
TODAY = f"v{SCHEMA_VERSION}"
SINCE = {"changes.committed.v1": "v1.4"}
"""The version that brought a type; the others are of the first."""


@pytest.mark.parametrize("file", STORED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_stored_message_is_still_read(file: Path) -> None:
    event = Event.from_bytes(file.read_bytes())
    assert event.type == file.stem
    assert event.schemaversion == written_as(file.parent.name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("data", SAID, ids=lambda data: data.TYPE)
def test_a_stored_message_is_read_with_the_same_content(data: EventData, version: str) -> None:
    if version != NEXT and version < SINCE.get(data.TYPE, ""):
        assert not (MESSAGES / version / f"{data.TYPE}.json").exists()
        return
    stored = Event.from_bytes(message(version, data.TYPE))
    today = event_of(data).model_copy(update={"schemaversion": written_as(version)})
    assert_says_no_other(stored, today)
    if version != "v1.0":  # that one has fewer fields
        assert stored == today


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", DOCUMENT_MODELS)
def test_a_stored_document_is_still_read(name: str, version: str) -> None:
    read = DOCUMENT_MODELS[name].model_validate_json(document(version, name))
    if isinstance(read, VersionManifest | Release):
        assert read.schema_version == written_as(version)


@pytest.mark.parametrize("name", ["reader_state", "rebuilder_state"])
def test_a_stored_state_is_read_with_the_same_content_in_every_version(name: str) -> None:
    model = DOCUMENT_MODELS[name]
    read = {version: model.model_validate_json(document(version, name)) for version in VERSIONS}
    for each in read.values():
        assert_says_no_other(each, read[TODAY])


def assert_says_no_other(earlier: BaseModel, today: BaseModel) -> None:
    """What an earlier version wrote has its value of today; what it did not know, its default."""
    for field, value in earlier:
        if field not in earlier.model_fields_set:
            assert value == type(earlier).model_fields[field].get_default(call_default_factory=True)
        elif isinstance(value, BaseModel):
            assert_says_no_other(value, getattr(today, field))
        elif isinstance(value, dict):
            assert value.keys() == getattr(today, field).keys()
            for key, each in value.items():
                if isinstance(each, BaseModel):
                    assert_says_no_other(each, getattr(today, field)[key])
                else:
                    assert each == getattr(today, field)[key], (field, key)
        else:
            assert value == getattr(today, field), field


def test_every_type_is_stored_in_the_version_that_is_written_today() -> None:
    for version in (TODAY, NEXT):
        assert {file.stem for file in (MESSAGES / version).iterdir()} == set(EVENT_TYPES)
        assert {file.stem for file in (DOCUMENTS / version).iterdir()} == set(DOCUMENT_MODELS)


@pytest.mark.parametrize("data", SAID, ids=lambda data: data.TYPE)
def test_the_next_minor_version_has_fields_that_are_unknown_today(data: EventData) -> None:
    more = unknown_fields(message(NEXT, data.TYPE), event_of(data).to_bytes())
    assert {"/partitionkey", "/data/since_the_next_minor"} <= more


@pytest.mark.parametrize("name", DOCUMENT_MODELS)
def test_so_do_its_documents(name: str) -> None:
    raw = document(NEXT, name)
    known = DOCUMENT_MODELS[name].model_validate_json(raw).model_dump_json().encode()
    assert "/since_the_next_minor" in unknown_fields(raw, known)


def test_a_failure_that_an_earlier_version_called_passing_is_transient() -> None:
    stored = {"outcome": "failed", "passing": True}
    assert ComponentResult.model_validate(stored).transient
    assert not ComponentResult.model_validate({**stored, "passing": False}).transient
