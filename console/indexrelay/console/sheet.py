"""A table that stays readable in a narrow terminal.

rich squeezes every column alike, until a state reads "curren t". Here a column is either *whole*
(a number, a state: never broken) or *flowing* (its text goes on in the next line), and one may be
*spare*: it is left out where the rest would not fit beside it. What is left out is in ``--json``.

Cells come from data: control characters are shown as their codes, line by line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from indexrelay.console.terminal import visible_lines

_ANY_WIDTH = 100_000
_FEWEST = 12
"""The least width of a flowing column that has so much text: room for a word or two."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a sheet."""

    name: str
    justify: JustifyMethod = "left"
    flowing: bool = False
    spare: bool = False


def whole(name: str) -> Column:
    """Words that are never broken: a state, an outcome."""
    return Column(name=name)


def number(name: str) -> Column:
    """Figures, never broken, to the right."""
    return Column(name=name, justify="right")


def flowing(name: str) -> Column:
    """Text that may take several lines: names, sentences."""
    return Column(name=name, flowing=True)


def spare(name: str) -> Column:
    """What is left out first."""
    return Column(name=name, spare=True)


class Sheet:
    """Columns and rows, laid out when the width is known."""

    def __init__(self, title: str, *columns: Column) -> None:
        self._title = title
        self._columns = columns
        self._rows: list[tuple[Sequence[Text], bool]] = []

    def add(self, *cells: str | Text, end_section: bool = False) -> None:
        """One row: a cell for each column. What comes as `Text` is ours, and printed as it is."""
        texts = [cell if isinstance(cell, Text) else Text(visible_lines(cell)) for cell in cells]
        self._rows.append((texts, end_section))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Every column if they fit side by side, otherwise those that are not spare."""
        table = self._laid_out(range(len(self._columns)))
        needed = Measurement.get(console, options.update(max_width=_ANY_WIDTH), table).maximum
        if needed > options.max_width:
            kept = [index for index, column in enumerate(self._columns) if not column.spare]
            table = self._laid_out(kept)
        yield table

    def _laid_out(self, indices: Iterable[int]) -> Table:
        kept = list(indices)
        table = Table(
            title=self._title or None,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for index in kept:
            column = self._columns[index]
            longest = max((_width(cells[index]) for cells, _ in self._rows), default=0)
            longest = max(longest, len(column.name))
            table.add_column(
                column.name,
                justify=column.justify,
                overflow="fold",
                no_wrap=not column.flowing,
                min_width=min(longest, _FEWEST) if column.flowing else longest,
            )
        for cells, end_section in self._rows:
            table.add_row(*(cells[index] for index in kept), end_section=end_section)
        return table


def _width(cell: Text) -> int:
    """Of its longest line, in terminal cells."""
    return max((line.cell_len for line in cell.split("\n", allow_blank=True)), default=0)
