"""How far builds are, as messages of other versions say it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from indexrelay.schemas.messages import RebuilderState
from indexrelay.schemas.names import MAX_COMPONENTS
from indexrelay.schemas.progress import BuildProgress, BuildStep

AT = datetime(2026, 3, 1, tzinfo=UTC)
KNOWN = BuildProgress(step=BuildStep.VERIFYING, share=0.5, started_at=AT)


def published(**progress: Any) -> RebuilderState:
    """The presence of a rebuilder with ``progress``, read as a client reads it."""
    state = RebuilderState(
        rebuilder="a",
        release=1,
        host="h",
        pid=1,
        started_at=AT,
        updated_at=AT,
        progress={"known": KNOWN},
    )
    document = json.loads(state.model_dump_json())
    document["progress"] |= progress
    return RebuilderState.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    "given",
    [
        {"step": "polishing", "share": 0.5},
        {"step": "building", "share": 1.0000001},
        {"step": "building", "share": -1e-9},
        {"step": "building", "share": 10**400},
        {"step": "building", "share": float("nan")},
        {"step": "building", "share": [1]},
    ],
)
def test_what_a_newer_version_says_of_a_build_hides_no_rebuilder(given: dict[str, Any]) -> None:
    assert published(new={**given, "started_at": AT.isoformat()}).progress == {"known": KNOWN}


def test_a_field_that_a_newer_version_added_is_ignored() -> None:
    more = {**KNOWN.model_dump(mode="json"), "rows": 7}
    assert published(new=more).progress == {"known": KNOWN, "new": KNOWN}


@pytest.mark.parametrize("given", [None, 3, "building", {}, {"step": 3}, {"step": "building"}])
def test_what_is_no_progress_hides_no_rebuilder(given: object) -> None:
    assert published(new=given).progress == {"known": KNOWN}


def test_a_name_that_none_can_have_hides_no_rebuilder() -> None:
    assert published(**{"No Name": KNOWN.model_dump(mode="json")}).progress == {"known": KNOWN}


def test_there_is_progress_of_no_more_components_than_there_may_be() -> None:
    many = {f"c{i}": KNOWN.model_dump(mode="json") for i in range(MAX_COMPONENTS)}
    with pytest.raises(ValidationError, match="progress"):
        published(**many)
