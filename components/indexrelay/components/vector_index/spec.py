"""What an index is built for, how hard it is searched, and the facts in its version.

An `IndexSpec` is what is given before a build chooses an index. An `Effort` is how hard the chosen
one is searched. `IndexFacts` are the small JSON file of a version: a reader has only the files, so
the metric and the tuned effort are in one of them. So is the length of each FAISS file, because
FAISS maps a file that lacks its last bytes without an error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.mapped_array import read_small
from indexrelay.components.kind import UNLIMITED, BuildMemory
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.schemas.names import canonical_json
from indexrelay.schemas.settings import Metric

_MAX_NPROBE: Final = 1 << 24
_MAX_EF_SEARCH: Final = 1 << 20
_MAX_K_FACTOR: Final = 1 << 12
_MAX_FACTS_BYTES: Final = 1 << 16
"""The file has a few hundred."""


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """What an index is built for."""

    parameters: VectorIndexParameters
    metric: Metric
    dimension: int
    count: int
    """Vectors that it will hold."""
    memory: BuildMemory = UNLIMITED
    """Bounds the rows that an index is trained on; its limit is raised before one is filled."""


class Effort(BaseModel):
    """How hard to search; ``None``: the index has no such number."""

    model_config = ConfigDict(frozen=True)

    nprobe: Annotated[PositiveInt, Field(le=_MAX_NPROBE)] | None = None
    """Inverted lists that a query searches."""
    ef_search: Annotated[PositiveInt, Field(le=_MAX_EF_SEARCH)] | None = None
    """Candidates that a graph search keeps."""
    k_factor: Annotated[PositiveInt, Field(le=_MAX_K_FACTOR)] | None = None
    """Candidates for each hit whose full vectors a refinement compares."""


class DeltaFacts(BaseModel):
    """What lies beside the base."""

    model_config = ConfigDict(frozen=True)

    count: NonNegativeInt
    """Entries that came or changed since the base was built."""
    dead: NonNegativeInt
    """Rows of the base that have a tombstone."""
    index_bytes: PositiveInt | None = None
    """Length of its FAISS file; ``None``: it has none and is scanned."""


class IndexFacts(BaseModel):
    """The content of ``index.json``."""

    model_config = ConfigDict(frozen=True)

    factory: str
    """The FAISS factory string that was built."""
    metric: Metric
    dimension: PositiveInt
    count: NonNegativeInt
    """Rows of the base."""
    base_bytes: PositiveInt
    """Length of the base's FAISS file."""
    effort: Effort
    refusal: str = ""
    """Why this index cannot be searched around tombstones; empty: it can, and may be extended."""
    delta: DeltaFacts | None = None
    """``None``: there is only the base."""

    @property
    def rows(self) -> int:
        """Rows of base and delta, those with a tombstone included."""
        return self.count + (self.delta.count if self.delta else 0)

    @property
    def entries(self) -> int:
        """How many entries the version holds."""
        return self.rows - (self.delta.dead if self.delta else 0)

    def save(self, path: Path) -> None:
        """Write it in canonical form."""
        path.write_bytes(canonical_json(self.model_dump(mode="json")))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            CorruptFileError: the file is not what was written.
        """
        try:
            return cls.model_validate_json(read_small(path, _MAX_FACTS_BYTES))
        except ValidationError as error:
            raise CorruptFileError(path, f"{error.error_count()} fact(s) that cannot be") from error
