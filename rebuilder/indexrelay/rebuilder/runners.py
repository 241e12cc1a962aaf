"""Where builds run: the contract, and the runner that uses the calling process itself."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

from indexrelay.rebuilder.building import Progress, build_component
from indexrelay.rebuilder.requests import BuildRequest
from indexrelay.rebuilder.snapshots import Snapshots
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.results import ComponentResult
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog

P = ParamSpec("P")
T = TypeVar("T")


class BuildSession(Protocol):
    """Builds one component after another, all from the same snapshots; for use by one thread.

    One that fails fails alone. Where it takes the snapshots with it (its process died, the source
    could not be read), the next build opens them anew.
    """

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,
        memory_bytes: int | None,
        progress: Progress,
    ) -> ComponentResult:
        """Build one component, and return when it is over.

        Raises:
            BuildError: it was killed by a limit, died, or was stopped; a build that failed by
                itself is a result, not an error.
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


class InlineRunner:
    """Builds in the calling process: no limits, no children; for tests and for one-off passes."""

    parallel = False

    def __init__(self, *, catalog: Catalog, store: ArtifactStore, clock: Clock) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock

    def start(self) -> None:
        """Nothing to get ready."""

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator[BuildSession]:  # noqa: ARG002 - the snapshots end with the session
        """Builds in this thread."""
        with Snapshots(self._catalog) as snapshots:
            yield _InlineSession(self._catalog, self._store, self._clock, snapshots)

    def stop(self) -> None:
        """Nothing runs in the background."""


class _InlineSession:
    def __init__(
        self, catalog: Catalog, store: ArtifactStore, clock: Clock, snapshots: Snapshots
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._snapshots = snapshots

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,  # noqa: ARG002 - nothing here could be stopped half-way
        memory_bytes: int | None,  # noqa: ARG002 - the process is the caller's own
        progress: Progress,
    ) -> ComponentResult:
        """Build here and now."""
        return build_component(
            request,
            catalog=self._catalog,
            store=self._store,
            clock=self._clock,
            progress=progress,
            snapshots=self._snapshots,
        )


class SerialExecutor(Executor):
    """An executor that is done when `submit` returns: a pass without threads."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call ``fn`` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future holds it, as any executor's does
            future.set_exception(error)
        return future
