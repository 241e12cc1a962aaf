"""Dead letters for a person: a table of them, and one in detail with its bytes as a hex dump.

The bytes are a stranger's. They are never printed as text: a dump shows printable ASCII beside the
codes, and a dot for everything else.
"""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.escaping import visible
from indexrelay.console.letters import LetterOutcome
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.storage.catalog import DeadLetter, DeadLetterHeader

_SHOWN_BYTES = 4096
_ROW_BYTES = 16
_MARKS = {"received": "✓", "dropped": "✓", "unreadable": "✗", "gone": "⚠"}
_MEANINGS = {
    "received": "is an event in the inbox again",
    "dropped": "is dropped",
    "unreadable": "still cannot be read",
    "gone": "is no letter: it was retried or dropped before, or never was",
}


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
        whole("buried"),
        flowing("reason"),
    )
    for letter in letters:
        sheet.add(
            str(letter.id),
            visible(letter.stream),
            visible(letter.entry_id),
            figures.size(letter.size),
            figures.ago(letter.buried_at),
            visible(letter.reason),
        )
    return sheet


def letter_page(letter: DeadLetter) -> RenderableType:
    """What is known of one, and its first bytes."""
    table = Table.grid(padding=(0, 2))
    for key, value in (
        ("letter", str(letter.id)),
        ("stream", visible(letter.stream)),
        ("entry", visible(letter.entry_id)),
        ("buried", f"{figures.moment(letter.buried_at)}, {figures.ago(letter.buried_at)}"),
        ("size", f"{letter.size:,} bytes"),
        ("sha256", letter.digest),
        ("reason", visible(letter.reason)),
    ):
        table.add_row(Text(key, style="bold"), Text(value))
    parts: list[RenderableType] = [table, Text(), Text("\n".join(hex_dump(letter.raw)))]
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
