"""Dead letters from a person's side: look at them, have them read again, drop them.

A letter that was read again is an event in the inbox, and a rebuilder sees it at its next
reconcile. To be seen at once it also goes back into the events stream, byte for byte: its id is in
the inbox already, so all that this does is wake.
"""

from collections.abc import Sequence

import typer
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from indexrelay.console.errors import CommandError
from indexrelay.console.escaping import visible
from indexrelay.console.exits import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.rebuilder.reviving import Rereading, reread
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.storage.catalog import DeadLetter
from indexrelay.streams.publishing import publish_many


class LetterOutcome(BaseModel):
    """What became of one letter."""

    model_config = ConfigDict(frozen=True)

    id: int
    outcome: str
    """``received``, ``unreadable`` or ``gone`` after a retry; ``dropped`` or ``gone``."""
    reason: str | None = None
    """Why it still cannot be read."""


class Retried(BaseModel):
    """What became of all that were to be read again."""

    model_config = ConfigDict(frozen=True)

    letters: tuple[LetterOutcome, ...]
    woken: bool
    """Whether a rebuilder hears of it at once; otherwise at its next reconcile."""


def letter_of(installation: Installation, letter_id: int) -> DeadLetter:
    """One letter.

    Raises:
        CommandError: there is no such letter.
    """
    letter = installation.catalog.dead_letters.get(letter_id)
    if letter is None:
        raise CommandError(
            f"there is no dead letter {letter_id}: it was retried or dropped, or never was; "
            f"those there are: {commands.DEAD_LETTERS}"
        )
    return letter


def chosen(
    installation: Installation, letter_ids: Sequence[int] | None, *, every: bool
) -> Sequence[int]:
    """The letters that a command is about: those that are named, or all there are.

    Raises:
        typer.BadParameter: neither, or both.
    """
    if bool(letter_ids) == every:
        raise typer.BadParameter("give the letters' ids, or --all")
    if not every:
        return letter_ids or ()
    return [letter.id for letter in installation.catalog.dead_letters.headers()]


def retry(installation: Installation, letter_ids: Sequence[int]) -> Retried:
    """Read letters again; doing so twice does what doing so once does."""
    clock = SystemClock()
    again = [
        reread(letter_id, catalog=installation.catalog, clock=clock)
        for letter_id in dict.fromkeys(letter_ids)
    ]
    return Retried(
        letters=tuple(
            LetterOutcome(
                id=each.letter,
                outcome=each.outcome.value,
                reason=None if each.reason is None else visible(each.reason),
            )
            for each in again
        ),
        woken=_wake(installation, [each.raw for each in again if each.raw is not None]),
    )


def drop(installation: Installation, letter_ids: Sequence[int]) -> tuple[LetterOutcome, ...]:
    """Forget letters for good."""
    return tuple(
        LetterOutcome(
            id=letter_id,
            outcome="dropped"
            if installation.catalog.dead_letters.discard(letter_id)
            else Rereading.GONE.value,
        )
        for letter_id in dict.fromkeys(letter_ids)
    )


def exit_code(letters: Sequence[LetterOutcome]) -> ExitCode:
    """0: all done as asked; 3: some of them; 1: none."""
    done = sum(letter.outcome in (Rereading.RECEIVED.value, "dropped") for letter in letters)
    if done == len(letters):
        return ExitCode.SUCCESS
    return ExitCode.PARTIAL if done else ExitCode.FAILURE


def _wake(installation: Installation, raws: Sequence[bytes]) -> bool:
    if not raws:
        return False
    try:
        publish_many(installation.connection, installation.keys.events, raws)
    except (RedisError, IndexRelayError, OSError):
        return False  # said by the caller; the rows are in the inbox
    return True
