"""What right settings still want of a host: folders that can be made, functions that are there."""

import os
from pathlib import Path

from indexrelay.components.registry import kind_of
from indexrelay.schemas.settings import Settings


def lacking(settings: Settings) -> dict[str, str]:
    """By key of the settings: what a build on this host would not find.

    A host that only reads needs none of it.
    """
    found = {}
    for name, definition in settings.components.items():
        lacks = "; ".join(kind_of(definition).lacks())
        if lacks:
            found[f"components.{name}"] = f"{lacks}; a build on this host would fail"
    folders = {"data_dir": settings.data_dir, "artifacts.dir": settings.artifacts_dir}
    for key, folder in folders.items():
        obstacle = _obstacle(folder)
        if obstacle is not None:
            found[key] = f"{folder} cannot be a folder: {obstacle} is something else"
    return found


def _obstacle(folder: Path) -> Path | None:
    """What stands where ``folder`` or one above it would have to be; a dangling link does, too."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return None if os.path.isdir(there) else there  # noqa: PTH112 - asks without raising
