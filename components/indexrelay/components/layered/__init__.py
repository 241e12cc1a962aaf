"""The toolbox of kinds that build incrementally: base, delta, tombstones, and what follows.

A kind that stores one row for each entry derives from `LayeredKind` and needs little else. One
whose files do not follow from single entries starts from `incremental_or_full` and takes what it
needs: `read_batch` says what really changed, `succeed` makes the next layers of it, and `Unchanged`
are the gates on the rest. Each of these modules stands on those before it.

* `layers`: two layers of rows that are read as one, and the ids in them.
* `succession`: from one version's layers to the next one's.
* `build`: full or incremental, and what changed.
* `columns`: values beside the ids, in mapped files.
* `kind`: all of it, as a kind to derive from.
"""

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered.build import (
    Batch,
    Full,
    Increment,
    LayerLimits,
    build_details,
    changes_of,
    incremental_or_full,
    inherit_all,
    numbered_chunks,
    read_batch,
    refuse_entries,
    refuse_infinite,
)
from indexrelay.components.layered.columns import (
    ArrayColumn,
    Column,
    LayeredArray,
    LayeredTable,
    LayeredTexts,
    TextColumn,
)
from indexrelay.components.layered.kind import LayeredKind, LayeredParameters
from indexrelay.components.layered.layers import (
    IDS,
    LAYER_FILES,
    LayeredIds,
    Layers,
    among,
    row_set_of,
    runs,
    without,
)
from indexrelay.components.layered.succession import (
    ChangedIds,
    InputRows,
    Succession,
    Unchanged,
    succeed,
)

__all__ = [
    "IDS",
    "LAYER_FILES",
    "ArrayColumn",
    "Batch",
    "ChangedIds",
    "Column",
    "Full",
    "Increment",
    "InputRows",
    "LayerLimits",
    "LayeredArray",
    "LayeredIds",
    "LayeredKind",
    "LayeredParameters",
    "LayeredTable",
    "LayeredTexts",
    "Layers",
    "Rows",
    "Succession",
    "TextColumn",
    "Unchanged",
    "among",
    "build_details",
    "changes_of",
    "incremental_or_full",
    "inherit_all",
    "numbered_chunks",
    "read_batch",
    "refuse_entries",
    "refuse_infinite",
    "row_set_of",
    "runs",
    "succeed",
    "without",
]
