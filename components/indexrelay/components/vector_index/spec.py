"""What a reader must know about an index before it can search it: a small JSON file of the version.

A reader is handed files and nothing else, so the metric and the tuned effort travel as a file, and
so does the length of the big file: FAISS maps a file that lacks its last bytes without a word.
"""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.formats.mapped_array import read_small
from indexrelay.schemas.names import canonical_json
from indexrelay.schemas.settings import Metric

MOST_LISTS: Final = 1 << 24
MOST_CANDIDATES: Final = 1 << 20
MOST_LOOKED_AT_AGAIN: Final = 1 << 12
_MOST_BYTES: Final = 1 << 16
"""The file has a few hundred."""


class Effort(BaseModel):
    """How hard to search; what an index has no use for is ``None``."""

    model_config = ConfigDict(frozen=True)

    nprobe: Annotated[PositiveInt, Field(le=MOST_LISTS)] | None = None
    """Inverted lists to look into."""
    ef_search: Annotated[PositiveInt, Field(le=MOST_CANDIDATES)] | None = None
    """Candidates that a graph search keeps."""
    k_factor: Annotated[PositiveInt, Field(le=MOST_LOOKED_AT_AGAIN)] | None = None
    """Candidates for each hit that a refinement looks at again."""


class DeltaFacts(BaseModel):
    """What stands beside the base."""

    model_config = ConfigDict(frozen=True)

    count: NonNegativeInt
    """Entries that came or changed since the base was built."""
    dead: NonNegativeInt
    """Rows of the base that no longer count."""
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
    def entries(self) -> int:
        """How many entries the version holds."""
        delta = self.delta
        return self.count if delta is None else self.count - delta.dead + delta.count

    def save(self, path: Path) -> None:
        """Write it in canonical form."""
        path.write_bytes(canonical_json(self.model_dump(mode="json")))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            DamagedFileError: the file is not what was written.
        """
        try:
            return cls.model_validate_json(read_small(path, _MOST_BYTES))
        except ValidationError as error:
            raise DamagedFileError(path, f"{error.error_count()} fact(s) that cannot be") from error
