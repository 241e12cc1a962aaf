"""Writes today's messages and documents, and the made-up ones of the next minor version.

Usage: ``python -m tests.schemas.stored_messages_update``, after a new field in `schemas`. The
folders of earlier versions are not touched.
"""

import json
from typing import Any

from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.schemas.versions import SCHEMA_VERSION
from tests.schemas.sample_events import SAID, event_of
from tests.schemas.stored_messages import DOCUMENT_MODELS, DOCUMENTS, MESSAGES, NEXT, written_as

TODAY = f"v{SCHEMA_VERSION}"
FIRST = "v1.0"
SINCE: dict[str, dict[str, Any]] = {
    "reader_state": {
        "instance": "8c1f0e5d2b7a4693",
        "service_silent_since": "2026-03-01T11:59:30.000000Z",
        "live": {
            "tracks": {
                "status": "waiting",
                "epoch": "5f3a",
                "floor": 5,
                "generation": 7,
                "entries": 12,
                "ignored": 1,
                "reason": "changes after 7 are missing",
                "since": "2026-03-01T11:59:30.000000Z",
            }
        },
    },
    "rebuilder_state": {"instance": "8c1f0e5d2b7a4693", "namesakes": ["host-b:17"]},
}
"""What documents say beside what the first version knew; where nothing is here, the defaults."""


def with_what_is_unknown(today: Any, later: Any) -> Any:
    """``later``, with the fields that ``today`` has and it has not yet."""
    if isinstance(today, dict) and isinstance(later, dict):
        return {
            **today,
            **{key: with_what_is_unknown(today.get(key), later[key]) for key in later},
        }
    if isinstance(today, list) and isinstance(later, list) and len(today) == len(later):
        return [with_what_is_unknown(*pair) for pair in zip(today, later, strict=True)]
    return later


def renew_messages() -> None:
    """One file for each type."""
    (MESSAGES / TODAY).mkdir(exist_ok=True)
    for data in SAID:
        file = f"{data.TYPE}.json"
        today = json.loads(event_of(data).to_bytes())
        (MESSAGES / TODAY / file).write_bytes(canonical_json(today))
        later = with_what_is_unknown(today, json.loads((MESSAGES / NEXT / file).read_bytes()))
        later["schemaversion"] = written_as(NEXT)
        (MESSAGES / NEXT / file).write_bytes(canonical_json(later))


def renew_documents() -> None:
    """One file for each; the release names the manifest beside it."""
    (DOCUMENTS / TODAY).mkdir(exist_ok=True)
    versions: dict[str, str] = {}
    for name, model in DOCUMENT_MODELS.items():  # the manifest comes before the release
        file = f"{name}.json"
        first = model.model_validate_json((DOCUMENTS / FIRST / file).read_bytes())
        today = first.model_dump(mode="json") | SINCE.get(name, {})
        later = with_what_is_unknown(today, json.loads((DOCUMENTS / NEXT / file).read_bytes()))
        for version, fields in ((TODAY, today), (NEXT, later)):
            if "schema_version" in fields:
                fields["schema_version"] = written_as(version)
            if name == "release":
                fields["components"] = {"voyager": versions[version]}
                content = {key: value for key, value in fields.items() if key != "digest"}
                fields["digest"] = sha256_hex(canonical_json(content))
            raw = canonical_json(fields)
            versions.setdefault(version, sha256_hex(raw))
            (DOCUMENTS / version / file).write_bytes(raw)


if __name__ == "__main__":
    renew_messages()
    renew_documents()
