"""The messages and documents that are kept as they were written, by the version that wrote them."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from indexrelay.schemas.messages import ReaderState, RebuilderState
from indexrelay.schemas.versions import SCHEMA_VERSION, Release, VersionManifest

MESSAGES = Path(__file__).parent / "messages"
DOCUMENTS = Path(__file__).parent / "documents"
NEXT = "next_minor"
"""Made up: what the version after today's could write."""
DOCUMENT_MODELS: dict[str, type[BaseModel]] = {
    "manifest": VersionManifest,
    "release": Release,
    "reader_state": ReaderState,
    "rebuilder_state": RebuilderState,
}
VERSIONS = sorted(folder.name for folder in MESSAGES.iterdir() if folder.is_dir())


def message(version: str, event_type: str) -> bytes:
    """The bytes of an event."""
    return (MESSAGES / version / f"{event_type}.json").read_bytes()


def document(version: str, name: str) -> bytes:
    """The bytes of a document."""
    return (DOCUMENTS / version / f"{name}.json").read_bytes()


def written_as(version: str) -> str:
    """What messages of that folder say in ``schemaversion``."""
    if version != NEXT:
        return version.removeprefix("v")
    major, minor = SCHEMA_VERSION.split(".")
    return f"{major}.{int(minor) + 1}"


def unknown_fields(raw: bytes, known: bytes, place: str = "") -> set[str]:
    """Where ``raw`` has a key that ``known`` has not; lists by their first element."""
    return set(_unknown(json.loads(raw), json.loads(known), place))


def _unknown(raw: Any, known: Any, place: str) -> list[str]:
    if isinstance(raw, dict) and isinstance(known, dict):
        found = [f"{place}/{key}" for key in raw.keys() - known.keys()]
        for key in raw.keys() & known.keys():
            found += _unknown(raw[key], known[key], f"{place}/{key}")
        return found
    if isinstance(raw, list) and isinstance(known, list):
        return [each for pair in zip(raw, known, strict=False) for each in _unknown(*pair, place)]
    return []
