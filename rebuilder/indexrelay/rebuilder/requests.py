"""What a build is told: one JSON document, from the rebuilder to a child process of its own.

It travels over a socket that nobody else holds and never touches a disk, because the catalog's URL
in it may hold a password.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.settings import CollectionSettings

MESSAGE_BYTES: Final = 128 * 1024
"""The most that one message may take: below the kernel's default socket buffer (about 200 KiB)."""


class BuildRequest(BaseModel):
    """Everything that one build needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    component: Name
    definition: ComponentDefinition
    collections: dict[Name, CollectionSettings]
    """Its inputs that are collections."""
    parents: dict[Name, Digest]
    """Its inputs that are components, each with the version to build from."""
    previous: Digest | None
    """The version that is served today."""
    catalog_url: SecretStr
    artifacts_dir: Path
    artifacts_group_readable: bool = False
    """As in the settings."""
    artifacts_marks: Path | None = None
    """Where this host remembers what it has checked; ``None``: in the artifacts."""
    workdir: Path
    """An empty folder on the artifacts' file system."""
    threads: int = Field(gt=0)
    force: bool = False
    """Accept fewer entries than ``max_shrink`` allows."""
    full: bool = False
    """Build from scratch, and take over no check of the previous version."""

    def to_json(self) -> str:
        """The document, secrets and all: for the child's socket only."""
        return json.dumps(self.model_dump(by_alias=True), default=_revealed)


def _revealed(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} does not belong into a build request")
