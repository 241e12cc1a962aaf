"""Sources outside the catalog (tables, folders): their generation is assigned by the catalog.

`DeclaredCollection` is a collection as the settings declare it, and as the catalog then has it. A
snapshot of an outside source covers the generation that the catalog had **before** the first row
was read. What is written in between is then in the rows and not yet in the number, so it makes the
component due once more; the other order would call rows current that are not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog, Collection
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries
from indexrelay.storage.errors import InvalidEntriesError, SourceError
from indexrelay.storage.validation import SizeLimits


@dataclass(frozen=True, kw_only=True)
class DeclaredCollection:
    """What a source is the source of."""

    kept_in: Catalog | None
    """``None``: there is no catalog yet, so that its source can be looked at, and nothing else."""
    name: str
    dimension: int
    metric: Metric
    sizes: SizeLimits

    @property
    def catalog(self) -> Catalog:
        """Where it is numbered.

        Raises:
            SourceError: there is none yet.
        """
        if self.kept_in is None:
            raise SourceError(f"there is no catalog yet to number {self.name!r} in")
        return self.kept_in

    def current(self) -> Collection:
        """The collection as it stands; made where it is missing, also after it was dropped.

        Raises:
            CollectionMismatchError: the catalog has it with another dimension or metric.
        """
        return self.catalog.collections.declare(
            self.name, dimension=self.dimension, metric=self.metric
        )

    def there(self) -> Collection:
        """The collection as it stands; nothing is made.

        Raises:
            UnknownCollectionError: nobody has declared it yet.
            CollectionMismatchError: the catalog has it with another dimension or metric.
        """
        return self.catalog.collections.expect(
            self.name, dimension=self.dimension, metric=self.metric
        )

    def numbered(self, fingerprint: str) -> Collection:
        """The same, after what its outside source looks like has been given a generation.

        Epoch and generation come from one look at the row, so they belong together.
        """
        self.current()
        self.catalog.collections.number(self.name, fingerprint)
        return self.current()


class OutsideSnapshot(ABC):
    """`SourceSnapshot` of a collection whose entries the catalog does not keep."""

    def __init__(
        self, collection: Collection, sizes: SizeLimits, count: int, left_out: Mapping[str, int]
    ) -> None:
        self._collection = collection
        self._sizes = sizes
        self._count = count
        self._left_out = {kind: number for kind, number in left_out.items() if number}

    @property
    def collection(self) -> str:
        """Its name."""
        return self._collection.name

    @property
    def epoch(self) -> str:
        """The life of the collection that ``generation`` counts in."""
        return self._collection.epoch

    @property
    def generation(self) -> int:
        """What the catalog had numbered before the first row was read."""
        return self._collection.generation

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._collection.dimension

    @property
    def metric(self) -> Metric:
        """How near two of its vectors are."""
        return self._collection.metric

    @property
    def count(self) -> int:
        """How many rows it gives."""
        return self._count

    @property
    def left_out(self) -> Mapping[str, int]:
        """What is there and is not given, by its kind."""
        return self._left_out

    @abstractmethod
    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every row once, in the order of the ids' UTF-8 bytes."""

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:  # noqa: ARG002 - the protocol's signature
        """Always ``None``: nobody notes there what changed."""
        return None


def refused(error: InvalidEntriesError, where: str, place: Callable[[int], str]) -> SourceError:
    """The same complaint in terms of the source: ``place`` says where a row of the chunk is."""
    places = ", ".join(place(row) for row in error.rows)
    more = f" … at least {error.total} rows" if error.total > len(error.rows) else ""
    return SourceError(f"{where}: {error.problem}{': ' if places else ''}{places}{more}")
