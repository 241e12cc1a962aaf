"""A map as a page draws it: one flat object for each point.

For ``from = ["main_map", "songs"]``: the points of the projection ``main_map``, each with the keys
of its payload in ``songs``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from indexrelay.components.errors import DocumentFunctionError
from indexrelay.components.json_cache.kind import CollectionReader
from indexrelay.components.projection import ProjectionMap

_NAME = f"{__name__}:map_points"
_OWN_KEYS = frozenset({"id", "x", "y"})


def map_points(
    inputs: Mapping[str, Any], *, decimals: int = 4, fields: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return ``{"points": [{"id", "x", "y", …payload}]}``, in the order of the map.

    Args:
        inputs: exactly one projection, and any number of collections to take payloads from.
        decimals: of the coordinates. A map is about 2 wide, so four are finer than any screen,
            and the document gzips far better than with all the digits of a float.
        fields: the keys of the payload to take along; ``None``: all.

    A payload that is not an object goes under ``payload``. Where the payload has keys that are
    called like the point's own (``id``, ``x``, ``y``), the point's own are kept.

    Raises:
        DocumentFunctionError: there is not exactly one projection among the inputs.
    """
    chart = _only_projection(inputs)
    wanted = None if fields is None else frozenset(fields)
    payloads = {
        entry.id: _extras(entry.payload, wanted)
        for reader in inputs.values()
        if isinstance(reader, CollectionReader)
        for entry in reader
        if entry.payload is not None
    }
    # Rounded as float64: a rounded float32 prints as 0.10000000149.
    rounded = np.round(chart.coordinates.astype(np.float64), decimals) + 0.0
    points = zip(chart.ids, rounded.tolist(), strict=True)
    return {
        "points": [
            {**payloads.get(entry_id, {}), "id": entry_id, "x": x, "y": y}
            for entry_id, (x, y) in points
        ]
    }


def _only_projection(inputs: Mapping[str, Any]) -> ProjectionMap:
    found = {name: value for name, value in inputs.items() if isinstance(value, ProjectionMap)}
    if len(found) != 1:
        there_is = ", ".join(sorted(found)) or "none"
        raise DocumentFunctionError(
            _NAME, f"`from` must name exactly one projection; there is {there_is}"
        )
    return next(iter(found.values()))


def _extras(payload: Any, wanted: frozenset[str] | None) -> dict[str, Any]:
    """What of a payload goes beside the point's own keys."""
    table = payload if isinstance(payload, dict) else {"payload": payload}
    return {
        key: value
        for key, value in table.items()
        if key not in _OWN_KEYS and (wanted is None or key in wanted)
    }
