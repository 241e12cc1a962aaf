"""The payloads of a version: JSON by row number, parsed when it is asked for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.formats.string_table import Rows, StringTable, StringTableWriter


class PayloadTable:
    """Mapped payloads; immutable, and safe to read from many threads."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            DamagedFileError: it is no table, or not as long as it says.
            OSError: it cannot be opened.
        """
        self._table = StringTable(path)

    @staticmethod
    def writer(path: Path) -> StringTableWriter:
        """A writer of a new file; its rows are JSON texts or ``None``."""
        return StringTableWriter(path)

    def __len__(self) -> int:
        return len(self._table)

    def count(self, *, without: Rows | None = None) -> int:
        """How many rows have a payload, those of ``without`` (each once) not counted."""
        return self._table.count_texts(without=without)

    def many(self, rows: Rows) -> list[Any]:
        """The parsed payloads of ``rows`` (int64, each 0 ≤ row < ``len``), in that order."""
        if not self._table.text_bytes:  # JSON is never empty: there is no payload at all
            return [None] * len(rows)
        try:  # a quarter of the time of `json.loads`, which …
            return self._table.read_many(rows, from_json)
        except ValueError:  # … also reads half a surrogate pair
            return [None if text is None else self._parse(text) for text in self.text_many(rows)]

    def bytes_of(self, rows: Rows) -> int:
        """How many bytes of JSON the payloads of ``rows`` have, as the file says."""
        return self._table.bytes_of(rows)

    def text_many(self, rows: Rows) -> list[str | None]:
        """The payloads of ``rows`` as they were given."""
        return self._table.many(rows)

    def holds(self, first: int, payloads: Sequence[str | None]) -> bool:
        """Whether the rows from ``first`` on are exactly ``payloads``."""
        return self._table.holds(first, payloads)

    def copy(self, writer: StringTableWriter, rows: slice) -> None:
        """Append ``rows`` (from start to stop) to another table, as they are."""
        writer.copy(self._table, rows)

    def same(self, first: int, other: "PayloadTable", at: int, *, count: int) -> bool:
        """Whether ``count`` rows from ``first`` on are those of ``other`` from ``at`` on."""
        return self._table.same(first, other._table, at, count=count)  # noqa: SLF001

    def check(self) -> None:
        """Look at every row; raises `DamagedFileError` where the file is not what was written."""
        self._table.check()

    def close(self) -> None:
        """Let go of the map; nothing may be read afterwards."""
        self._table.close()

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(self._table.path, "a payload is not JSON") from error
