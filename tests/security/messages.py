"""Messages and states to be mutated: one of each kind, with every field set to something."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from indexrelay.schemas.messages import RebuildRequested
from indexrelay.schemas.versions import SCHEMA_VERSION
from tests.schemas.sample_events import SAID, event_of
from tests.schemas.stored_messages import document
from tests.security.mutations import mutated, written


def messages(first: str, second: str) -> tuple[Any, ...]:
    """One of each type, about two components that there are.

    Among them are requests for all that would be built if anybody did as they say.
    """
    greedy = (
        RebuildRequested(request_id="r-2", force=True, full=True),
        RebuildRequested(request_id="r-3", components=(first, second), force=True, full=True),
    )
    return tuple(_about(first, second, event_of(data).to_bytes()) for data in (*SAID, *greedy))


def states(first: str, second: str) -> tuple[Any, ...]:
    """What a reader and a rebuilder say of themselves, about the same components."""
    stored = (document(f"v{SCHEMA_VERSION}", name) for name in ("reader_state", "rebuilder_state"))
    return tuple(_about(first, second, raw) for raw in stored)


def hostile(random: Random, of: Sequence[Any]) -> bytes:
    """One of these messages, mostly under a new id, and with nothing to five things wrong in it."""
    message: Any = random.choice(of)
    if random.random() < 0.8:
        message = {**message, "id": drawn_id(random)}
    for _ in range(random.choice([0, 1, 1, 1, 2, 5])):
        message = mutated(message, random)
        if not isinstance(message, dict):
            break
    return written(message, random)


def drawn_id(random: Random) -> str:
    """An event's id."""
    return f"{random.getrandbits(64):x}"


def _about(first: str, second: str, raw: bytes) -> Any:
    said = raw.replace(b"voyager", first.encode()).replace(b"main_map", second.encode())
    return json.loads(said)
