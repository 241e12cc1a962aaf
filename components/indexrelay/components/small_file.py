"""Files that are read whole, up to a size: what is larger is not what was written."""

from pathlib import Path

from indexrelay.components.errors import DamagedFileError


def read_small(path: Path, most_bytes: int) -> bytes:
    """The content of ``path``.

    Raises:
        DamagedFileError: it has more than ``most_bytes``.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DamagedFileError(path, f"it has more than {most_bytes} bytes")
    return content
