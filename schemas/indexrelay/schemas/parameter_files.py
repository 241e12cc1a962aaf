"""Files that a component's keys name: read where the settings are read, and known by their content.

``golden = "queries.jsonl"`` names a file, relative to the settings file. Whoever reads the settings
puts a table in its place: the name as it is written, where the file lies, and the sha256 of what is
in it. The sha256 alone counts for the definition's digest, so changed content makes the component
due, and the same installation in another folder does not. `ParameterFile.read` gives the content of
that sha256 or raises: a file that somebody changes is never used half, nor under the old name.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.names import Digest

FILE_KEYS: Final = ("golden",)
"""Keys of ``[components.NAME]`` that name a file, whatever the kind."""
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""Each process that reads the settings reads the file too."""


class FileChangedError(IndexRelayError):
    """Raised when a file that a component's key names is not what it was for the settings."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file} {reason} since the settings were read; start again to take it up")
        self.file = file


class ParameterFile(BaseModel):
    """One file, as the settings were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """As it is written in the settings."""
    path: Path | None = None
    """Where it can be read; ``None``: only its content is known, as in a version's manifest."""
    sha256: Digest
    """Of its content."""

    @classmethod
    def at(cls, folder: Path, file: str) -> Self:
        """Read ``file``, which is relative to ``folder``; a leading ``~`` is a home folder.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no regular file, or has more than `MAX_FILE_BYTES`.
        """
        try:
            path = folder.resolve() / Path(file).expanduser()
        except RuntimeError as error:  # no home folder
            raise ValueError(str(error)) from error
        content = _read(path)
        return cls(file=file, path=path, sha256=hashlib.sha256(content).hexdigest())

    def read(self) -> bytes:
        """Its content, which is that of the sha256.

        Raises:
            FileChangedError: it has other content by now, or cannot be read any more.
        """
        if self.path is None:
            raise FileChangedError(self.file, "is known by its content only, and was not kept")
        try:
            content = _read(self.path)
        except (OSError, ValueError) as error:
            raise FileChangedError(self.file, f"can no longer be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise FileChangedError(self.file, "has changed")
        return content

    def moved(self, path: Path | None) -> Self:
        """The same content in another place."""
        return self.model_copy(update={"path": path})


def located(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A component's keys with a table in place of each name of a file that can be read.

    What cannot be read stays as it is, and the kind refuses it: a host that only serves need not
    have the file.
    """
    found = dict(table)
    for key in FILE_KEYS:
        name = found.get(key)
        if not isinstance(name, str):
            continue
        try:
            file = ParameterFile.at(folder, name)
        except (OSError, ValueError):
            continue
        found[key] = file.model_dump(mode="json")
    return found


def with_files(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tables of a settings file, with each component's keys `located`."""
    tables = raw.get("components")
    if not isinstance(tables, Mapping):
        return dict(raw)
    components = {
        name: located(table, folder) if isinstance(table, Mapping) else table
        for name, table in tables.items()
    }
    return {**raw, "components": components}


def files_in(parameters: Mapping[str, Any]) -> dict[str, ParameterFile]:
    """By key: the files that these parameters name."""
    return {
        key: ParameterFile.model_validate(value)
        for key in FILE_KEYS
        if _is_file(value := parameters.get(key))
    }


def moved_to(parameters: Mapping[str, Any], paths: Mapping[str, Path | None]) -> dict[str, Any]:
    """The parameters with other places, by key, for files of the same content."""
    files = files_in(parameters)
    return {
        **parameters,
        **{key: files[key].moved(path).model_dump(mode="json") for key, path in paths.items()},
    }


def recorded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as a manifest keeps them: without the places of files on one host."""
    return _without(parameters, "path")


def named(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they are written in the settings."""
    return {
        key: as_written(value) if key in FILE_KEYS else value for key, value in parameters.items()
    }


def as_written(value: Any) -> Any:
    """The name of a file where the value is one, or the value."""
    return value["file"] if _is_file(value) else value


def digested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they count for a definition's digest: of files, only the content."""
    return _without(parameters, "path", "file")


def _without(parameters: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """The parameters, and of each file what is not among ``fields``."""
    return {
        key: {field: each for field, each in value.items() if field not in fields}
        if key in FILE_KEYS and _is_file(value)
        else value
        for key, value in parameters.items()
    }


_REQUIRED: Final = {"file", "sha256"}
_ALL: Final = {"file", "path", "sha256"}


def _is_file(value: Any) -> bool:
    return isinstance(value, Mapping) and _REQUIRED <= set(value) <= _ALL


def _read(path: Path) -> bytes:
    # Not blocking: a named pipe in place of the file would never open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is no regular file")
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes")
    return content
