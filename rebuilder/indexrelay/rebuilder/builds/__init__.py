"""What a build is asked for, and how it can fail.

The request is one JSON document, from the rebuilder to a child process of its own. It is sent over
a socket that no other process holds and is never written to a disk, because the catalog's URL in it
may hold a password.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from indexrelay.schemas.versions import Check


class BuildError(IndexRelayError):
    """Raised when one component's build fails; the other components go on."""


class GateFailedError(BuildError):
    """Raised when a built version does not pass its gates; it is not released."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        failed = [check for check in self.checks if not check.passed]
        super().__init__("; ".join(f"gate {check.name}: {_reason(check)}" for check in failed))


class BuildTimedOutError(BuildError):
    """Raised when a build was killed because it took longer than its limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"took longer than {seconds:g} s and was stopped; "
            "raise build_timeout_seconds if it needs more"
        )
        self.seconds = seconds


class BuildDiedError(BuildError):
    """Raised when the child process of a build ended without a result.

    ``transient``: whether the cause lies outside of the build (no room to write the result, no
    database), so that the same build may work later.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class BuildCancelledError(BuildError):
    """Raised when a build was stopped because the rebuilder stops."""


def _reason(check: Check) -> str:
    if check.detail:
        return check.detail
    if check.measured is None and check.limit is None:
        return "it did not pass, and its check says no more (Check.detail)"
    return f"measured {check.measured}, limit {check.limit}"


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
