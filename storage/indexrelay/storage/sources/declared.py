"""A collection as the settings declare it, and as it then stands in the catalog."""

from dataclasses import dataclass

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog, Collection
from indexrelay.storage.errors import SourceError
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
