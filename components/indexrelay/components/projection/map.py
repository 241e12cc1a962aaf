"""A map as a reader serves it: coordinates as a ``.npy``, ids beside them.

Both are mapped, so that a million points cost a reader nothing until they are drawn. The
coordinates are written in one piece each time, 8 bytes an entry; ids, which weigh more and take
longer, as a base and what came since (`indexrelay.components.layered.layers`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.mapped_array import mapped_array
from indexrelay.components.layered.layers import LayeredIds
from indexrelay.components.served import Closable

Coordinates = NDArray[np.float32]
"""Shape ``(n, 2)``."""

COORDINATES: Final = "coordinates.npy"


class ProjectionMap(Closable):
    """Entries and their coordinates; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"_coordinates"})

    def __init__(self, ids: LayeredIds, coordinates: Coordinates) -> None:
        self._ids = ids
        self._coordinates = coordinates

    @classmethod
    def open(cls, files: Mapping[str, Path]) -> Self:
        """Map the files.

        Raises:
            CorruptFileError: a file is not what was written, or they do not belong together.
            OSError: a file cannot be opened.
        """
        coordinates = mapped_array(files[COORDINATES], (None, 2), np.float32)
        ids = LayeredIds(files)
        count = len(ids)
        if count != len(coordinates):
            ids.close()
            raise CorruptFileError(
                files[COORDINATES], f"it has {len(coordinates)} rows for {count} ids"
            )
        return cls(ids, coordinates)

    @property
    def coordinates(self) -> Coordinates:
        """Shape ``(n, 2)``, float32, in [-1, 1], read-only; row for row with `ids`."""
        return self._coordinates

    @property
    def ids(self) -> LayeredIds:
        """The entries, in the order of the inputs and then of the ids' UTF-8 bytes."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._ids

    def get(self, entry_id: str) -> Coordinates:
        """Where an entry is: shape ``(2,)``, float32, read-only.

        Raises:
            UnknownEntryError: it is not on this map.
        """
        place: Coordinates = self._coordinates[self._ids.row(entry_id)]
        return place

    def close(self) -> None:
        """Let go of the maps; arrays that were handed out keep theirs until they are dropped."""
        self._ids.close()
        del self._coordinates
