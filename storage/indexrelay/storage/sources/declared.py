"""A collection as the settings declare it, and as it then stands in the catalog."""

from dataclasses import dataclass

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import Catalog, Collection


@dataclass(frozen=True, kw_only=True)
class DeclaredCollection:
    """What a source is the source of."""

    catalog: Catalog
    name: str
    dimension: int
    metric: Metric

    def current(self) -> Collection:
        """The collection as it stands; made where it is missing, also after it was dropped.

        Raises:
            CollectionMismatchError: the catalog has it with another dimension or metric.
        """
        return self.catalog.collections.declare(
            self.name, dimension=self.dimension, metric=self.metric
        )

    def numbered(self, fingerprint: str) -> Collection:
        """The same, after what its outside source looks like has been given a generation.

        Epoch and generation come from one look at the row, so they belong together.
        """
        self.current()
        self.catalog.collections.number(self.name, fingerprint)
        return self.current()
