"""What a reader serves at one moment, how a query borrows it, and how it is replaced.

A `ServedComponent` is one version of one component in memory. `Contents` are the components that
are served together: immutable, and shared by everyone who borrows them. A `Snapshot` is one
borrower's handle. `Current` holds the one reference that a reload replaces: reading an attribute is
atomic, so a query needs no lock, and gets the old contents whole or the new ones whole.

CPython counts the users of each component. When the last one lets go, `weakref.finalize` closes the
value. That takes milliseconds for a few hundred mapped megabytes, so the reloading thread stays a
user until a moment after the swap, when the queries that ran during it are over.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from indexrelay.components.live import LIVE_KINDS, Released, released_of
from indexrelay.components.served import Served
from indexrelay.reloaders.errors import (
    ComponentNotServedError,
    ReloaderStoppedError,
    SnapshotClosedError,
)
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.session import Life, SessionToken
from indexrelay.schemas.versions import VersionManifest

if TYPE_CHECKING:
    from indexrelay.components.live.rows import LiveView

log = get_logger(__name__)


class ServedComponent:
    """What `Kind.load` gave, and what it was loaded from; never changed after it is made."""

    __slots__ = (
        *("__weakref__", "applied_at", "inodes", "manifest", "seconds", "value", "version"),
        *("_laid", "_released", "live_collection", "overlap"),
    )

    def __init__(
        self,
        value: Served,
        *,
        version: str,
        manifest: VersionManifest,
        inodes: Mapping[str, int],
        seconds: float,
        applied_at: datetime,
        overlap: float | None = None,
    ) -> None:
        self.value: Any = value
        self.version = version
        self.manifest = manifest
        self.inodes = inodes
        """By the digest of each blob: the file that it was loaded from, whatever is there now."""
        self.seconds = seconds
        """How long the load took, warm-up included."""
        self.applied_at = applied_at
        self.overlap = overlap
        """Where only canaries serve it: the share of its answers to the last queries that are those
        of the version before; ``None``: not measured."""
        covers = [*manifest.covers] if manifest.kind in LIVE_KINDS else []
        self.live_collection: str | None = covers[0] if len(covers) == 1 else None
        """The collection whose changes can be laid over it; ``None``: it takes none."""
        self._released: Released | None = None
        self._laid: tuple[LiveView, Any] | None = None
        """The last view that was laid over it, and what answers for both."""
        closing = weakref.finalize(self, _close, value, manifest.component, version)
        # A process that ends takes its files and maps along; queries may still be running then.
        closing.atexit = False

    @property
    def name(self) -> str:
        """The component's name."""
        return self.manifest.component

    @property
    def covers(self) -> Mapping[str, int]:
        """For each collection at its root: the generation that it contains."""
        return self.manifest.covers

    def with_changes(self, view: "LiveView") -> Any:
        """The value with the changes since its version laid over it.

        The value itself where nothing changed since, and where the view does not go on from it:
        it is of another life of the collection, or begins later.
        """
        laid = self._laid
        if laid is not None and laid[0] is view:
            return laid[1]
        released = self._released_for(view)
        answers = self.value if released is None else released.with_changes(view)
        self._laid = (view, answers)
        return answers

    def prepare_changes(self, view: "LiveView") -> None:
        """Do now what the first query with these changes would have to."""
        released = self._released_for(view)
        if released is not None:
            released.prepare(view)

    def index_changes(self, view: "LiveView") -> bool:
        """Index what is not indexed of these changes, off the way of queries; whether any was."""
        released = self._released_for(view)
        return released is not None and released.index_rows(view)

    def reached(self, view: "LiveView | None") -> Iterator[Life]:
        """For each collection at its root: what it answers from, with a view laid over it."""
        for name, covers in self.covers.items():
            generation = covers
            if view is not None and name == self.live_collection and self._shows(view):
                generation = max(covers, view.generation)
            yield Life(name, self.manifest.epochs.get(name, ""), generation)

    def _shows(self, view: "LiveView") -> bool:
        """Whether its answers have everything up to a view's generation, if not more."""
        # Where nothing changed in between there is nothing to lay over it either.
        return self._goes_on(view) and (not view.count or self._released_for(view) is not None)

    def _goes_on(self, view: "LiveView") -> bool:
        """Whether a view holds every change after the version."""
        name = self.live_collection or ""
        rows = view.rows
        return rows.epoch == self.manifest.epochs.get(name) and rows.floor <= self.covers[name]

    def _released_for(self, view: "LiveView") -> "Released | None":
        """The version, to lay a view over; ``None``: it answers alone."""
        if not self._goes_on(view):
            return None
        covers = self.covers[self.live_collection or ""]
        if not view.count or view.generation <= covers:
            return None
        if self._released is None:
            manifest = self.manifest
            self._released = released_of(manifest.kind, self.value, covers, manifest.parameters)
        return self._released


def _close(value: Served, component: str, version: str) -> None:
    """Close a value on the thread of its last user; the query there does not fail with it."""
    try:
        value.close()
    except (Exception, SystemExit) as error:
        log.exception(
            "component.close_failed",
            component=component,
            version=version,
            error=describe_error(error),
        )
    else:
        log.debug("component.closed", component=component, version=version)


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
    held: frozenset[str] = frozenset()
    """Components that the release holds: nothing is laid over their versions."""


class Snapshot(Mapping[str, Any]):
    """One borrowed snapshot: component → what its kind serves, such as ``snapshot["voyager"]``.

    Use it inside its ``with``, on any thread; what is taken out of it is valid that long, too.
    Everything raises `SnapshotClosedError` afterwards.
    """

    __slots__ = ("_contents", "_views")

    def __init__(self, contents: Contents, views: "Mapping[str, LiveView] | None" = None) -> None:
        """``views``: by live collection, the changes that are laid over what is served."""
        self._contents: Contents | None = contents
        self._views = views

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
        served = self._component(component)
        if self._views and served.live_collection is not None:
            view = self._views.get(served.live_collection)
            if view is not None and component not in self._open.held:
                return served.with_changes(view)
        return served.value

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

    @property
    def live(self) -> dict[str, int]:
        """For each live collection: the generation up to which changes are laid over it.

        A component that covers more answers from its version alone, and so does one that is held.
        """
        self._open  # noqa: B018 - it raises where the snapshot was closed
        return {name: view.generation for name, view in (self._views or {}).items()}

    def reached(self, component: str) -> tuple[Life, ...]:
        """What a component answers from: each collection at its root, with epoch and generation.

        Raises:
            ComponentNotServedError: it is not in this snapshot.
        """
        served = self._component(component)
        view = None
        if self._views and served.live_collection is not None and component not in self._open.held:
            view = self._views.get(served.live_collection)
        return tuple(served.reached(view))

    def session(self, *components: str) -> SessionToken:
        """What is asked for by whoever has seen the answers of these components; none: of all.

        Raises:
            ComponentNotServedError: one of them is not in this snapshot.
        """
        seen = (life for name in components or self for life in self.reached(name))
        return SessionToken(life for life in seen if life.epoch)

    def released(self, component: str) -> Any:
        """What the component's version serves alone, without live changes.

        Raises:
            ComponentNotServedError: it is not in this snapshot.
        """
        return self._component(component).value

    def manifest(self, component: str) -> VersionManifest:
        """The manifest of a component's version.

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


SwapCallback = Callable[[Snapshot, Snapshot], object]
"""Called with the old and the new snapshot, both valid until it returns."""


class Current:
    """Holds what is served now."""

    def __init__(
        self, *, before_swap: Iterable[SwapCallback] = (), after_swap: Iterable[SwapCallback] = ()
    ) -> None:
        """Take the callbacks, which run in this order on the reloading thread.

        Args:
            before_swap: the new snapshot is not visible yet; the time to warm a cache.
            after_swap: queries get the new snapshot; the time to drop what belongs to the old one.

        A callback that raises is logged and stops neither the swap nor the others: it cannot veto.
        """
        self._before = tuple(before_swap)
        self._after = tuple(after_swap)
        self._contents: Contents | None = Contents()
        self._old: Contents | None = None

    @property
    def contents(self) -> Contents:
        """What is served now; nothing once it was closed."""
        return self._contents or Contents()

    def acquire(self, views: "Mapping[str, LiveView] | None" = None) -> Snapshot:
        """Borrow what is served now.

        Args:
            views: the changes to lay over it, taken before this call: what a view leaves out is
                then in what is served.

        Raises:
            ReloaderStoppedError: it was closed.
        """
        contents = self._contents
        if contents is None:
            raise ReloaderStoppedError
        return Snapshot(contents, views)

    def swap(self, contents: Contents) -> None:
        """Serve ``contents`` from now on; the old contents close with their last user.

        That is not before `release_old`, or the next swap.
        """
        old = self.contents
        self._call(self._before, old, contents, when="before")
        if self._contents is None:  # a callback stopped the reloader
            return
        self._old = old
        self._contents = contents
        self._call(self._after, old, contents, when="after")

    def release_old(self) -> None:
        """Stop being a user of what was swapped out."""
        self._old = None

    def open(self) -> None:
        """Serve again, nothing at first; what is served already stays."""
        if self._contents is None:
            self._contents = Contents()

    def close(self) -> None:
        """Serve nothing any more; running queries keep what they have borrowed. Safe twice."""
        self._contents = self._old = None

    def _call(
        self, callbacks: Iterable[SwapCallback], old: Contents, new: Contents, *, when: str
    ) -> None:
        for callback in callbacks:
            with Snapshot(old) as before, Snapshot(new) as after:
                try:
                    callback(before, after)
                except Exception:
                    name = getattr(callback, "__qualname__", repr(callback))
                    log.exception(
                        "swap.callback_failed", when=when, callback=name, release=new.release
                    )
