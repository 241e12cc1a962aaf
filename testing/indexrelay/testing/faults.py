"""Faults that a test asks for, put where the real ones come from.

A failed build is raised by the runner, as when a child process dies. A corrupt version is a blob
whose bytes on disk do not match its name, as after a bad disk: the reader's own check finds
it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from indexrelay.rebuilder import BuildError, BuildRunner, BuildSession
from indexrelay.rebuilder.builds import BuildRequest, Progress
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.messages import ComponentResult
from indexrelay.storage.artifacts import ArtifactStore


class NothingToCorruptError(IndexRelayError):
    """Raised when no release names a component that is to be corrupt, or no file is its alone.

    Settle the pipeline first; give components that hold the same files different entries.
    """

    def __init__(self, component: str) -> None:
        super().__init__(f"no release names a file that belongs to {component!r} alone")
        self.component = component


@dataclass
class _Fault:
    error: str
    times: int | None


class FaultyRunner:
    """Hands every build to another runner, but those that are to fail."""

    parallel = False

    def __init__(self, runner: BuildRunner) -> None:
        self._runner = runner
        self._faults: dict[str, _Fault] = {}

    def fail(self, component: str, *, error: str, times: int | None) -> None:
        """Let the next ``times`` builds of ``component`` fail; ``None``: all until `heal`."""
        self._faults[component] = _Fault(error, times)

    def heal(self, component: str) -> None:
        """Let it build again; nothing if it does."""
        self._faults.pop(component, None)

    def start(self) -> None:
        """Get ready."""
        self._runner.start()

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator[BuildSession]:
        """Builds that fail as asked."""
        with self._runner.session(components) as session:
            yield _FaultySession(session, self)

    def error_of_next(self, component: str) -> str | None:
        """The error of the next build of ``component``; ``None``: it builds."""
        fault = self._faults.get(component)
        if fault is None:
            return None
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.heal(component)
        return fault.error

    def stop(self) -> None:
        """End it."""
        self._runner.stop()


class _FaultySession:
    def __init__(self, session: BuildSession, runner: FaultyRunner) -> None:
        self._session = session
        self._runner = runner

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,
        memory_bytes: int | None,
        progress: Progress,
    ) -> ComponentResult:
        """Build, or fail as asked."""
        error = self._runner.error_of_next(request.component)
        if error is not None:
            raise BuildError(error)
        return self._session.run(
            request,
            timeout_seconds=timeout_seconds,
            memory_bytes=memory_bytes,
            progress=progress,
        )


def corrupt_version(store: ArtifactStore, component: str) -> None:
    """Change the last byte of the files of ``component`` that the newest release names.

    Files with the same content are one blob: those that another component has too stay whole.

    Raises:
        NothingToCorruptError: there is no such version, or all of its files are others' too.
    """
    release = store.newest_release()
    if release is None or component not in release.components:
        raise NothingToCorruptError(component)
    blobs = {
        name: set(store.version(name, version).files.values())
        for name, version in release.components.items()
    }
    own = blobs.pop(component).difference(*blobs.values())
    if not own:
        raise NothingToCorruptError(component)
    for path in map(store.blob, own):
        content = bytearray(path.read_bytes())
        content[-1] ^= 0xFF
        # In place would change what readers have mapped already, which a bad disk does not.
        path.unlink()
        path.write_bytes(content)
