"""Column types that hold the same on SQLite and on PostgreSQL."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator

ByteOrderedText = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by its UTF-8 bytes; SQLite's own order is that already."""

Serial = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit key that the database counts up; SQLite does so for INTEGER only."""


class Instant(TypeDecorator[datetime]):
    """A moment in UTC, as ISO 8601 text of fixed width: readable, and its order is time's."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To UTC, with microseconds even where they are 0."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """An aware `datetime`."""
        return None if value is None else datetime.fromisoformat(value)


class ForeignText(TypeDecorator[str]):
    """Text that came from elsewhere and must be storable whatever is in it.

    An error's message or a stranger's event id may hold NUL, which PostgreSQL refuses, or lone
    surrogates, which have no UTF-8. Both are shown instead of refused: noting a failure may not
    fail.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Show NUL as U+2400, and a lone surrogate as its escape."""
        if value is None:
            return None
        shown = value.replace("\0", "\N{SYMBOL FOR NULL}")
        return shown.encode("utf-8", "backslashreplace").decode()
