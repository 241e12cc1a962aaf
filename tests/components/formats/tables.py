"""What tests of tables share: rows to draw, and how they are written."""

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from indexrelay.components.formats.string_table import StringTableWriter

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
on_disk = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, rows: list[str | None]) -> Path:
    with StringTableWriter(path) as writer:
        writer.extend(rows[:2])
        writer.extend(rows[2:])
    return path
