"""The fault of ``--fail``: a kind that builds as another one does, unless a file is there.

It is declared by the demo's own settings (``kind = "module:Class"``), so the fault runs the way of
any build that raises: in its child process, through the rebuilder's own handling, into the result.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from indexrelay.components.kind import Built, Job, Kind, KindParameters, Served
from indexrelay.components.registry import kind_class
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.versions import Check

KIND = f"{__name__}:Breakable"


class StagedFaultError(IndexRelayError):
    """Raised when the demo was asked for a failing build; the next batch heals it."""

    def __init__(self) -> None:
        super().__init__("a fault that --fail asked for; the next batch heals it")


class BreakableParameters(KindParameters):
    """What to build, and when not to."""

    wraps: str
    """The installed kind that does the work."""
    marker: Path
    """While this file exists every build raises."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The parameters of that kind."""


class Breakable(Kind[Served]):
    """Builds, verifies and loads by another kind."""

    Parameters: ClassVar[type[KindParameters]] = BreakableParameters
    preload: ClassVar[tuple[str, ...]] = (
        "faiss",
        "sklearn.decomposition",
        "sklearn.manifold",
        "sklearn.neighbors",
        "threadpoolctl",
    )
    """What any of the demo's kinds imports: which one it is, is a parameter."""

    def __init__(self, parameters: KindParameters) -> None:
        super().__init__(parameters)
        assert isinstance(parameters, BreakableParameters)  # noqa: S101 - the registry checked
        self._marker = parameters.marker
        inner = kind_class(parameters.wraps)
        self._inner: Kind[Any] = inner(inner.Parameters.model_validate(parameters.settings))

    def build(self, job: Job) -> Built:
        """As the other kind, unless the marker is there."""
        if self._marker.exists():
            raise StagedFaultError
        return self._inner.build(job)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """As the other kind."""
        return self._inner.verify(job, built, files)

    def load(self, files: Mapping[str, Path]) -> Served:
        """As the other kind."""
        served: Served = self._inner.load(files)
        return served
