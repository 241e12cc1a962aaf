"""The highest number that a release ever had, as far as the catalog was told.

The artifact store may lose releases, and Redis and readers may say anything about their numbers. So
the number is kept here as well, where nobody writes who is not trusted: what is above it was never
committed by this installation.
"""

from sqlalchemy import select

from indexrelay.schemas.clock import Clock
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import release_record

_ROW = 1


class ReleaseRecord:
    """One number, which only rises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def highest(self) -> int:
        """The number; 0: it was told of none yet."""
        with self._database.read() as connection:
            return int(connection.scalar(select(release_record.c.number)) or 0)

    def note(self, number: int) -> int:
        """Tell of a release that is in the store; what is the highest now.

        Nothing is written where it is known already: this is asked at every comparison.
        """
        known = self.highest()
        if number <= known:
            return known
        row = {"number": number, "noted_at": self._clock.now()}
        statement = self._database.insert(release_record).values(key=_ROW, **row)
        statement = statement.on_conflict_do_update(
            index_elements=[release_record.c.key],
            set_=row,
            where=release_record.c.number < number,
        )
        with self._database.write() as connection:
            connection.execute(statement)
        return number
