"""One event of each type, with every field set to something."""

from datetime import UTC, datetime, timedelta

from indexrelay.schemas.messages import (
    BatchCompleted,
    BuildOutcome,
    ChangedEntries,
    ChangesCommitted,
    ComponentResult,
    ComponentState,
    Event,
    EventData,
    LoadOutcome,
    RebuildFinished,
    RebuildRequested,
    RebuildStatus,
    ReleaseApplied,
    ReleasePublished,
)
from indexrelay.schemas.versions import Check

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
DIGEST = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4

SAID: tuple[EventData, ...] = (
    BatchCompleted(
        collection="tracks",
        epoch="5f3a",
        batch_id="nightly 2026-03-01 ♫",
        generation=2**62,
        upserts=1000,
        deletes=3,
    ),
    ChangesCommitted(
        collection="tracks",
        epoch="5f3a",
        after=6,
        generation=8,
        changes=ChangedEntries(
            ids=("a", "♫"),
            vectors="AACAPwAAAEAAAEBAAACAQA==",
            texts=("one", None),
            payloads=(None, '{"year":1999}'),
            deletes=("gone",),
        ),
    ).signed("indexrelay", b"a key of at least 32 characters.."),
    RebuildRequested(request_id="r-1", components=("voyager",), force=True, reason="after a fix"),
    RebuildFinished(
        status=RebuildStatus.PARTIAL_SUCCESS,
        message="Rebuilt 1 of 2 index(es); failed: main_map",
        indexes_rebuilt=("voyager",),
        indexes_failed=("main_map",),
        components={
            "voyager": ComponentResult(
                outcome=BuildOutcome.REBUILT,
                version=DIGEST,
                covers={"tracks": 7},
                entries=1000,
                bytes=512_000,
                started_at=NOON,
                seconds=1.5,
                build_seconds=1.0,
                verify_seconds=0.5,
                checks=(Check(name="recall", passed=True, measured=0.99, limit=0.95, blob=DIGEST),),
            ),
            "main_map": ComponentResult(
                outcome=BuildOutcome.FAILED, version=OTHER, error="out of memory"
            ),
        },
        release=42,
        batch_ids=("nightly 2026-03-01 ♫",),
        request_ids=("r-1",),
        woken_at=NOON,
        started_at=NOON + timedelta(seconds=0.2),
        finished_at=NOON + timedelta(seconds=2),
    ),
    ReleasePublished(release=42, digest=DIGEST, components={"voyager": DIGEST}),
    ReleaseApplied(
        reader="reader-a",
        instance="8c1f0e5d2b7a4693",
        release=42,
        ready=True,
        seconds=0.25,
        components={
            "voyager": ComponentState(
                outcome=LoadOutcome.APPLIED,
                version=DIGEST,
                wanted=DIGEST,
                covers={"tracks": 7},
                epochs={"tracks": "5f3a"},
                entries=1000,
                seconds=0.2,
                applied_at=NOON,
            )
        },
    ),
)


def event_of(data: EventData) -> Event:
    """The same envelope each time, so that its bytes are the same each time."""
    return Event.of(
        data,
        source="indexrelay/tests",
        time=NOON,
        id=f"id-{data.TYPE}",
        subject="tracks",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
