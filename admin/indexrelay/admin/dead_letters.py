"""Dead letters: events that could not be read.

    GET  /dead-letters               the newest first, page by page
    POST /dead-letters/{id}/retry    read one again; what is readable now goes into the inbox
    POST /dead-letters/{id}/drop     forget one for good

The console does it by the same functions.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query

from indexrelay.admin.access import Operator
from indexrelay.admin.document import SHORT, Fact
from indexrelay.admin.resources import AdminResources
from indexrelay.rebuilder.dead_letters import RetryOutcome, drop_letters, retry_letters
from indexrelay.schemas.names import shown
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.catalog import DeadLetter
from indexrelay.storage.catalog.dead_letters import MAX_KEPT_BYTES
from indexrelay.streams.keys import Keys

_PREVIEW_BYTES: Final = 300

LetterId = Annotated[int, Path(gt=0, lt=2**63)]


class LetterView(Fact):
    """An event that could not be read."""

    id: int
    stream: str
    entry_id: str
    bytes: int
    """Of all of it."""
    kept_bytes: int
    sha256: str
    reason: str
    added_at: datetime
    preview: str
    """Its beginning, as text."""


class Letters(Fact):
    """Some of the dead letters, the newest first."""

    letters: tuple[LetterView, ...]
    next: int | None
    """``before`` of the next page; null: these are the oldest."""
    total: int
    not_kept: int
    """More that could not be read, and were not kept."""


class LetterOutcomeView(Fact):
    """What became of a letter."""

    id: int
    outcome: Literal["received", "unreadable", "gone", "dropped"]
    reason: str | None
    """Why it still cannot be read."""


def dead_letter_routes(resources: AdminResources) -> APIRouter:
    """List them, and deal with each."""
    router = APIRouter()
    letters = resources.catalog.dead_letters

    @router.get("/dead-letters")
    def dead_letters(
        before: Annotated[int | None, Query(gt=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Letters:
        """Some of the events that could not be read, the newest first."""
        found = letters.newest(most=limit + 1, before=before, raw_bytes=_PREVIEW_BYTES)
        found, more = found[:limit], len(found) > limit
        dropped = letters.dropped()
        return Letters(
            letters=tuple(map(_letter, found)),
            next=found[-1].id if more else None,
            total=letters.count(),
            not_kept=0 if dropped is None else dropped.count,
        )

    @router.post("/dead-letters/{letter}/retry")
    def retry(
        letter: LetterId,
        caller: Operator,
    ) -> LetterOutcomeView:
        """Read a letter again: what is readable now becomes an event in the inbox."""
        retried = retry_letters(
            [letter],
            catalog=resources.catalog,
            connection=resources.connection.get,
            keys=Keys(resources.settings.namespace),
            clock=resources.clock,
        )
        (outcome,) = retried.letters
        if outcome.outcome != RetryOutcome.GONE:
            subject = f"dead letter {letter}"
            resources.record(AuditAction.RETRIED, caller, subject=subject, outcome=outcome.outcome)
            resources.state.wake()
        return LetterOutcomeView(
            id=letter,
            outcome=outcome.outcome,
            reason=None if outcome.reason is None else shown(outcome.reason),
        )

    @router.post("/dead-letters/{letter}/drop")
    def drop(
        letter: LetterId,
        caller: Operator,
    ) -> LetterOutcomeView:
        """Forget a letter for good."""
        (outcome,) = drop_letters([letter], catalog=resources.catalog)
        if outcome.outcome == "dropped":
            resources.record(AuditAction.DELETED, caller, subject=f"dead letter {letter}")
            resources.state.wake()
        return LetterOutcomeView(id=letter, outcome=outcome.outcome, reason=None)

    return router


def _letter(letter: DeadLetter) -> LetterView:
    return LetterView(
        id=letter.id,
        stream=shown(letter.stream, SHORT),
        entry_id=shown(letter.entry_id, SHORT),
        bytes=letter.size,
        kept_bytes=min(letter.size, MAX_KEPT_BYTES),
        sha256=letter.digest,
        reason=shown(letter.reason),
        added_at=letter.added_at,
        preview=shown(letter.raw.decode(errors="backslashreplace"), 2 * _PREVIEW_BYTES),
    )
