"""What a reader serves at one moment, and how a query borrows it.

`Contents` is the moment itself: immutable, and shared by everyone who borrows it. A `Snapshot` is
one borrower's handle on it. Giving the handle back lets go of the contents, so that a variable that
outlives its ``with`` neither keeps an old index open nor reaches a closed one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from indexrelay.reloaders.errors import ComponentNotServedError, SnapshotClosedError
from indexrelay.reloaders.served import ServedComponent
from indexrelay.schemas.versions import VersionManifest


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The components that are served together, and the release that they came from."""

    release: int = 0
    """The newest release that was worked through; 0: none."""
    digest: str = ""
    """That release's digest."""
    components: Mapping[str, ServedComponent] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """For each component that flips with others: its group."""


class Snapshot(Mapping[str, Any]):
    """One borrowed snapshot: component → what its kind serves, such as ``snapshot["voyager"]``.

    Use it inside its ``with``, on any thread; what is taken out of it is valid that long, too.
    Everything raises `SnapshotClosedError` afterwards.
    """

    __slots__ = ("_contents",)

    def __init__(self, contents: Contents) -> None:
        self._contents: Contents | None = contents

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give it back; safe twice."""
        self._contents = None

    def __getitem__(self, component: str) -> Any:
        """What the component's kind serves.

        Raises:
            ComponentNotServedError: it is not in this snapshot.
        """
        return self._component(component).value

    def __iter__(self) -> Iterator[str]:
        return iter(self._open.components)

    def __len__(self) -> int:
        return len(self._open.components)

    def __eq__(self, other: object) -> bool:
        # By identity: comparing indexes entry by entry is never what is meant.
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def release(self) -> int:
        """The newest release that was worked through; 0: none.

        A component whose load failed is still at the version of an earlier one: see `versions`.
        """
        return self._open.release

    @property
    def versions(self) -> dict[str, str]:
        """The version of each component."""
        return {name: served.version for name, served in self._open.components.items()}

    @property
    def covers(self) -> dict[str, dict[str, int]]:
        """For each component: the generation that it contains of each collection."""
        return {name: dict(served.covers) for name, served in self._open.components.items()}

    def manifest(self, component: str) -> VersionManifest:
        """What is known of the version of a component.

        Raises:
            ComponentNotServedError: it is not in this snapshot.
        """
        return self._component(component).manifest

    @property
    def _open(self) -> Contents:
        contents = self._contents
        if contents is None:
            raise SnapshotClosedError
        return contents

    def _component(self, name: str) -> ServedComponent:
        contents = self._open
        try:
            return contents.components[name]
        except KeyError:
            raise ComponentNotServedError(name, contents.components) from None
