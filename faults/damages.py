"""What a disk, or somebody with an editor, does to one file: cut, changed, gone."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    """Half of it is gone: what has mapped the file dies where it touches the other half."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Every 64th byte is another, in place: what has mapped the file sees that at once."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        content = bytearray(file.read())
        for position in range(len(content) // 2 % 64, len(content), 64):
            content[position] ^= 0x55
        file.seek(0)
        file.write(content)


def remove(path: Path) -> None:
    """Its name is gone; what has mapped the file keeps it."""
    path.unlink()


DAMAGES: Mapping[str, Damage] = {"truncated": truncate, "flipped": flip, "removed": remove}
