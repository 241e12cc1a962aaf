"""The files of a version, by name, as a kind's `load` gets them."""

from pathlib import Path

from indexrelay.components.errors import DamagedFileError


class VersionFiles(dict[str, Path]):
    """Where each file lies; one that the kind needs and the version lacks is damage."""

    def __missing__(self, name: str) -> Path:
        raise DamagedFileError(Path(name), "the version does not have it")
