"""What right settings still want of a host: folders that can be made, functions that are there."""

from pathlib import Path

from indexrelay.components.registry import kind_of
from indexrelay.schemas.settings import Settings


def lacking(settings: Settings) -> dict[str, str]:
    """By key of the settings: what a build on this host would not find.

    A host that only reads needs none of it.
    """
    found = {
        f"components.{name}": f"{sentence}; a build on this host would fail"
        for name, definition in settings.components.items()
        for sentence in kind_of(definition).lacks()
    }
    folders = {"data_dir": settings.data_dir, "artifacts.dir": settings.artifacts_dir}
    for key, folder in folders.items():
        obstacle = _obstacle(folder)
        if obstacle is not None:
            found[key] = f"{folder} cannot be a folder: {obstacle} is a file"
    return found


def _obstacle(folder: Path) -> Path | None:
    """The file that stands where ``folder`` or one above it would have to be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return None if there.is_dir() else there
