"""Messages as earlier releases wrote them stay readable: their bytes are kept here.

A folder for each schema version; never change a file in it, add a folder.
"""

from pathlib import Path

import pytest

from indexrelay.schemas.events import EVENT_TYPES, SCHEMA_VERSION, Event, EventData
from tests.schemas.said import SAID, event_of

MESSAGES = Path(__file__).parent / "messages"
STORED = sorted(MESSAGES.glob("v*/*.json"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_stored_message_is_still_read(file: Path) -> None:
    event = Event.from_bytes(file.read_bytes())
    assert event.type == file.stem
    assert f"v{event.schemaversion}" == file.parent.name


@pytest.mark.parametrize("data", SAID, ids=lambda data: data.TYPE)
def test_a_stored_message_still_says_the_same(data: EventData) -> None:
    stored = (MESSAGES / "v1.0" / f"{data.TYPE}.json").read_bytes()
    assert Event.from_bytes(stored) == event_of(data)


def test_every_type_is_stored_in_the_version_that_is_written_today() -> None:
    stored = {file.stem for file in (MESSAGES / f"v{SCHEMA_VERSION}").iterdir()}
    assert stored == set(EVENT_TYPES)
