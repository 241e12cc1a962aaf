"""What a build is asked for, where it runs, and how it can fail: the contract of builds.

The request is one JSON document, from the rebuilder to a child process of its own. It is sent over
a socket that no other process holds and is never written to a disk, because the catalog's URL in it
may hold a password.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from indexrelay.components.kind import Goal
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.messages import ComponentResult
from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.progress import BuildStep
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from indexrelay.schemas.versions import Check

Progress = Callable[[BuildStep, float | None], None]
"""Is called with the step that a build is at, and the share of it that is done, from 0 to 1;
``None``: that is not known."""


class BuildRequest(BaseModel):
    """Everything that one build needs."""

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
    """Where this host keeps which files it has checked; ``None``: in the artifacts."""
    workdir: Path
    """An empty folder on the artifacts' file system."""
    threads: int = Field(gt=0)
    force: bool = False
    """Accept fewer entries than ``max_shrink`` allows."""
    full: bool = False
    """Build from scratch, and run every check again."""
    goal: Goal = Goal.BEST
    """What to make."""
    improvement: Digest | None = None
    """For `Goal.CATCH_UP`: the better version; it is continued in place of ``previous``."""

    def to_json(self) -> str:
        """The document, secrets included: for the child's socket only."""
        return json.dumps(self.model_dump(by_alias=True), default=_revealed)


class BuildSession(Protocol):
    """Builds one component after another, all from the same snapshots; for use by one thread.

    One that fails fails alone. Where the snapshots are lost with it (its process died, the source
    could not be read), the next build opens new ones.
    """

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,
        memory_bytes: int | None,
        progress: Progress,
    ) -> ComponentResult:
        """Build one component, and return when that is over.

        Raises:
            BuildError: it was killed by a limit, died, or was stopped. A build that fails in any
                other way is a result, not an error.
        """
        ...


class BuildRunner(Protocol):
    """Runs builds; safe to use from several threads, which then build at the same time."""

    parallel: bool
    """Whether builds may run at the same time."""

    def start(self) -> None:
        """Get ready; safe twice."""
        ...

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """Builds of these components, in this order; any of them may be left out.

        Nothing of it is left running after the ``with``, nor after the build of the last one.
        """
        ...

    def stop(self) -> None:
        """End every running build, at once; safe twice and before start."""
        ...


class BuildError(IndexRelayError):
    """Raised when one component's build fails; the other components are built."""


class GateFailedError(BuildError):
    """Raised when a built version does not pass its gates; it is not released."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        failed = [check for check in self.checks if check.refuses]
        super().__init__("; ".join(f"gate {check.name}: {_reason(check)}" for check in failed))


class NoRoomError(BuildError):
    """Raised when a build does not begin, because disk or memory have less room than the ``gates``
    of its component ask for; it is retried for as long as that lasts."""

    def __init__(self, what: str, *, free: int, wanted: int, setting: str) -> None:
        super().__init__(
            f"it did not begin: {free:,} bytes of {what} are free, and {wanted:,} are asked for "
            f"(gates.{setting}); make room, or lower that setting"
        )
        self.free = free
        self.wanted = wanted


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

    ``transient``: whether the cause lies outside of the build (a full disk, no database), so that
    the same build may succeed later.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class BuildCancelledError(BuildError):
    """Raised when a build was stopped because the rebuilder stops."""


def _revealed(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} does not belong into a build request")


def _reason(check: Check) -> str:
    """Its figures and its detail; the detail is last, since it may end with a command to type."""
    figures = ", ".join(
        f"{name} {figure:.6g}"
        for name, figure in (("measured", check.measured), ("limit", check.limit))
        if figure is not None
    )
    parts = [part for part in (figures, check.detail) if part]
    return "; ".join(parts) or "it did not pass, and its check says no more (Check.detail)"
