"""``indexrelay dead``: events that could not be read: look at them, retry them, drop them.

A letter that is readable now becomes an event in the inbox. A rebuilder sees it at its next
reconcile; the same bytes, published to the events stream, wake it at once (the inbox has the
event's id already, so nothing happens twice). Anybody may have written the bytes: they are shown as
a hex dump, never as text.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.commands.status import facts_table
from indexrelay.console.errors import CommandError, ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import note, print_json, stdout, visible
from indexrelay.rebuilder.dead_letters import (
    LetterOutcome,
    RetryOutcome,
    drop_letters,
    retry_letters,
)
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.catalog import DeadLetter, DeadLetterHeader

app = typer.Typer(add_completion=False)
Letter = Annotated[int, typer.Argument(metavar="ID", help="As dead list shows it.")]
Letters = Annotated[list[int] | None, typer.Argument(metavar="ID", help="As dead list shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]
_SHOWN_BYTES: Final = 4096
_ROW_BYTES: Final = 16
_MARKS: Final = {"received": "✓", "dropped": "✓", "unreadable": "✗", "gone": "⚠"}
_MEANINGS: Final = {
    "received": "is an event in the inbox again",
    "dropped": "is dropped",
    "unreadable": "still cannot be read",
    "gone": "is no letter: it was retried or dropped before, or never was",
}


@app.callback(invoke_without_command=True)
def dead(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each letter; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_letters(config=config, json=json)


@app.command("list")
def list_letters(config: Config = None, json: Json = False) -> None:
    """Each letter: where it came from, and why it could not be read."""
    with Installation.at(config) as installation:
        letters = installation.catalog.dead_letters.headers()
        dropped = installation.catalog.dead_letters.dropped()
    if json:
        print_json(
            {
                "letters": [
                    {
                        key: visible(value) if isinstance(value, str) else value
                        for key, value in asdict(letter).items()
                    }
                    | {"added_at": letter.added_at.isoformat()}
                    for letter in letters
                ],
                "dropped": 0 if dropped is None else dropped.count,
            }
        )
    else:
        stdout().print(letters_table(letters))
        if dropped is not None:
            stdout().print(f"{dropped.count:,} more could not be read and were not kept")


@app.command()
def show(letter: Letter, config: Config = None, json: Json = False) -> None:
    """One letter with its bytes, as far as they are kept: a hex dump, or base64 with --json."""
    with Installation.at(config) as installation:
        found = letter_of(installation, letter)
    if json:
        print_json(
            {
                "id": found.id,
                "stream": visible(found.stream),
                "entry_id": visible(found.entry_id),
                "size": found.size,
                "sha256": found.digest,
                "reason": visible(found.reason),
                "added_at": found.added_at.isoformat(),
                "raw_base64": b64encode(found.raw).decode("ascii"),
            }
        )
    else:
        stdout().print(letter_page(found))


@app.command()
def retry(
    letters: Letters = None, every: All = False, config: Config = None, json: Json = False
) -> None:
    """Read letters again: what is readable now becomes an event; exits 3 when some are not."""
    with Installation.at(config) as installation:
        retried = retry_letters(
            chosen(installation, letters, every=every),
            catalog=installation.catalog,
            connection=lambda: installation.connection,
            keys=installation.keys,
            clock=SystemClock(),
        )
        for letter in retried.letters:
            if letter.outcome != RetryOutcome.GONE:
                installation.audit(
                    AuditAction.RETRIED,
                    subject=f"dead letter {letter.id}",
                    outcome=letter.outcome,
                )
    if json:
        print_json(retried)
    else:
        stdout().print(outcomes_list(retried.letters))
    received = any(letter.outcome == "received" for letter in retried.letters)
    if received and not retried.woken:
        note("Redis does not answer; a rebuilder sees them at its next reconcile")
    raise typer.Exit(exit_code(retried.letters))


@app.command()
def drop(
    letters: Letters = None, every: All = False, config: Config = None, json: Json = False
) -> None:
    """Forget letters for good; exits 3 when some of them were not there."""
    with Installation.at(config) as installation:
        dropped = drop_letters(
            chosen(installation, letters, every=every), catalog=installation.catalog
        )
        for letter in dropped:
            if letter.outcome == "dropped":
                installation.audit(AuditAction.DELETED, subject=f"dead letter {letter.id}")
    if json:
        print_json({"letters": [letter.model_dump(mode="json") for letter in dropped]})
    else:
        stdout().print(outcomes_list(dropped))
    raise typer.Exit(exit_code(dropped))


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


def exit_code(letters: Sequence[LetterOutcome]) -> ExitCode:
    """0: all done as asked; 3: some of them; 1: none."""
    done = sum(letter.outcome in (RetryOutcome.RECEIVED.value, "dropped") for letter in letters)
    if done == len(letters):
        return ExitCode.SUCCESS
    return ExitCode.PARTIAL if done else ExitCode.FAILURE


def letters_table(letters: Sequence[DeadLetterHeader]) -> RenderableType:
    """One row for each, oldest first."""
    if not letters:
        return Text("✓ there are no dead letters", style="green")
    sheet = Sheet(
        "Dead letters",
        number("id"),
        spare("stream"),
        flowing("entry"),
        number("size"),
        whole("since"),
        flowing("reason"),
    )
    for letter in letters:
        sheet.add(
            str(letter.id),
            visible(letter.stream),
            visible(letter.entry_id),
            figures.size(letter.size),
            figures.ago(letter.added_at),
            visible(letter.reason),
        )
    return sheet


def letter_page(letter: DeadLetter) -> RenderableType:
    """What is known of one, and its first bytes."""
    facts = {
        "letter": str(letter.id),
        "stream": letter.stream,
        "entry": letter.entry_id,
        "since": f"{figures.moment(letter.added_at)}, {figures.ago(letter.added_at)}",
        "size": f"{letter.size:,} bytes",
        "sha256": letter.digest,
        "reason": letter.reason,
    }
    parts: list[RenderableType] = [
        facts_table(facts),
        Text(),
        Text("\n".join(hex_dump(letter.raw))),
    ]
    if not letter.whole:
        parts.append(Text(f"… only the first {len(letter.raw):,} bytes are kept"))
    if len(letter.raw) > _SHOWN_BYTES:
        more = f"… {len(letter.raw) - _SHOWN_BYTES:,} more bytes: --json has them, in base64"
        parts.append(Text(more))
    return Group(*parts)


def hex_dump(raw: bytes) -> Iterable[str]:
    """The first bytes, 16 in a line: where, their codes, and what of them is printable ASCII."""
    for start in range(0, min(len(raw), _SHOWN_BYTES), _ROW_BYTES):
        row = raw[start : start + _ROW_BYTES]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<{_ROW_BYTES * 3 - 1}}  {shown}"


def outcomes_list(letters: Iterable[LetterOutcome]) -> RenderableType:
    """A line for each: what became of it."""
    return Group(
        *(
            Text(
                f"{_MARKS[letter.outcome]} {letter.id} {_MEANINGS[letter.outcome]}"
                + (f": {letter.reason}" if letter.reason else "")
            )
            for letter in letters
        )
    )
