"""What the rebuilder remembers: failed builds, paused components, the highest release number.

It is kept in the catalog, so that a rebuilder that restarts continues to count where it stopped.
The artifact store may lose releases, and Redis and readers may report any number. So the highest
release number is recorded here as well, where only trusted processes write: a number above it was
never committed by this installation.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, Table, and_, case, delete, func, not_, or_, select

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.names import MAX_ERROR, shortened
from indexrelay.storage.catalog.database import Database, Instant
from indexrelay.storage.catalog.schema import attempts, pauses, release_record


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The last failure of a component that has not been built since."""

    component: str
    failures: int
    """How many times in a row the same inputs failed."""
    error: str
    inputs: str
    """The digest of the definition and of the versions that it is built from."""
    targets: dict[str, int]
    """For each collection: the generation that the build was to cover."""
    transient: bool
    """Whether the cause was outside of the build, so that the same build may succeed later."""
    failed_at: datetime
    first_failed_at: datetime
    """The first failure since it was built last, whatever its inputs were then."""


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A component that is not built until it is resumed."""

    component: str
    reason: str
    since: datetime


class Failures:
    """The rows of failures of one sort."""

    def __init__(self, database: Database, clock: Clock, table: Table) -> None:
        self._database = database
        self._clock = clock
        self._table = table

    def failed(
        self,
        component: str,
        *,
        error: str,
        inputs: str,
        targets: dict[str, int],
        transient: bool = False,
    ) -> Attempt:
        """Count one more failure.

        The count starts again at 1 for other ``inputs``, and for a permanent failure after
        transient ones, which say nothing about the build. It does not for new targets.
        """
        table = self._table
        statement = self._database.insert(table).values(
            component=component,
            failures=1,
            error=shortened(error, MAX_ERROR),
            inputs=inputs,
            targets=targets,
            transient=transient,
            failed_at=(now := self._clock.now()),
            first_failed_at=now,
        )
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.component],
            set_={
                "failures": case(
                    (
                        and_(
                            table.c.inputs == new.inputs,
                            or_(new.transient, not_(table.c.transient)),
                        ),
                        table.c.failures + 1,
                    ),
                    else_=1,
                ),
                "error": new.error,
                "inputs": new.inputs,
                "targets": new.targets,
                "transient": new.transient,
                "failed_at": new.failed_at,
                "first_failed_at": func.coalesce(
                    table.c.first_failed_at, table.c.failed_at, type_=Instant
                ),
            },
        )
        with self._database.write() as connection:
            return _attempt(connection.execute(statement.returning(table)).mappings().one())

    def succeeded(self, component: str) -> None:
        """Remove its failures."""
        table = self._table
        with self._database.write() as connection:
            connection.execute(delete(table).where(table.c.component == component))

    def all(self) -> dict[str, Attempt]:
        """The components whose last build of this sort failed, by name."""
        table = self._table
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.component))
            return {row["component"]: _attempt(row) for row in rows.mappings()}


class Attempts(Failures):
    """The rows of failed builds, and of pauses."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, clock, attempts)

    def pause(self, component: str, reason: str) -> None:
        """Stop its builds; a component that is paused already gets the new reason."""
        statement = self._database.insert(pauses).values(
            component=component, reason=shortened(reason, MAX_ERROR), since=self._clock.now()
        )
        statement = statement.on_conflict_do_update(
            index_elements=[pauses.c.component], set_={"reason": statement.excluded.reason}
        )
        with self._database.write() as connection:
            connection.execute(statement)

    def resume(self, component: str) -> bool:
        """Allow its builds again; ``False``: it was not paused."""
        with self._database.write() as connection:
            gone = connection.execute(delete(pauses).where(pauses.c.component == component))
            return gone.rowcount > 0

    def paused(self) -> dict[str, Pause]:
        """The paused components, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(pauses).order_by(pauses.c.component))
            return {row["component"]: Pause(**row) for row in rows.mappings()}


def _attempt(row: RowMapping) -> Attempt:
    return Attempt(
        component=row["component"],
        failures=row["failures"],
        error=row["error"],
        inputs=row["inputs"],
        targets=row["targets"],
        transient=row["passing"],
        failed_at=row["failed_at"],
        first_failed_at=row["first_failed_at"] or row["failed_at"],
    )


_ROW = 1


class ReleaseRecord:
    """The highest release number; it never decreases."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def highest(self) -> int:
        """The number; 0: there was no release yet."""
        with self._database.read() as connection:
            return int(connection.scalar(select(release_record.c.number)) or 0)

    def note(self, number: int) -> int:
        """Record the number of a release that is in the store; returns the highest one.

        Nothing is written for a known number, since this is called often.
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
