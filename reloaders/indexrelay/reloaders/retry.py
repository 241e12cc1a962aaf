"""What a reader remembers of loads that failed, and when it retries them.

A transient failure (`indexrelay.storage.errors`) is retried with growing waits. Any other is
remembered with its version and not retried until another version is wanted, its files are replaced
(restore a corrupt blob from a backup, and every reader takes it up by itself), or someone asks for
it. What the memory budget had no room for is loaded in the first round that has. The members of a
group wait for each other: a part of a release is retried when all of its members that failed may be
retried.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from indexrelay.components.errors import CorruptFileError
from indexrelay.reloaders.errors import AnswersDifferError, MemoryBudgetError
from indexrelay.schemas.clock import Clock, backoff_seconds
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import Refusal
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    VersionUnreadableError,
)
from indexrelay.storage.errors import is_transient

log = get_logger(__name__)

MAX_WAIT_SECONDS = 60.0
MAX_ERROR_CHARACTERS = 1000

Wanted = Mapping[str, str | None]
"""By component: the version to serve; ``None``: serve it no more."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last failed load of a component."""

    version: str
    """The version that could not be loaded."""
    error: str
    count: int
    """How often in a row."""
    looks: str
    """What the version's files looked like then."""
    retry_at: float | None
    """By the monotonic clock; ``None``: not as long as the files look like that."""
    damaged: bool = False
    """Whether a file of it is missing or corrupt."""
    refusal: Refusal | None = None
    """What kind of failure it is; ``None``: a transient one."""

    def due(self, now: float) -> bool:
        """Whether it is time to retry."""
        return self.retry_at is not None and now >= self.retry_at


class Failures:
    """The failed loads of one reader, the last one of each component; used by one thread."""

    def __init__(
        self, store: ArtifactStore, *, first_wait_seconds: float, spread_key: str, clock: Clock
    ) -> None:
        self._store = store
        self._first_wait_seconds = first_wait_seconds
        self._spread_key = spread_key
        self._clock = clock
        self._failures: dict[str, Failure] = {}

    def forget(self) -> None:
        """Forget all of them, so that everything may be loaded."""
        self._failures = {}

    def remember(self, name: str, version: str, looks: str, error: BaseException) -> Failure:
        """A load of ``name`` failed; returns what is remembered of it."""
        before = self._failures.get(name)
        count = before.count + 1 if before is not None and before.version == version else 1
        wait = backoff_seconds(
            count,
            first=self._first_wait_seconds,
            longest=MAX_WAIT_SECONDS,
            key=f"{self._spread_key}/{name}",  # readers that failed together retry apart
        )
        failure = self._failures[name] = Failure(
            version=version,
            looks=looks,
            error=error_text(error),
            count=count,
            retry_at=self._clock.monotonic() + wait if is_transient(error) else None,
            damaged=_is_damage(error),
            refusal=None if is_transient(error) else _refusal(error),
        )
        return failure

    def damaged(self) -> dict[str, str]:
        """By component: the version whose files are corrupt or missing."""
        return {name: each.version for name, each in [*self._failures.items()] if each.damaged}

    def succeeded(self, name: str) -> None:
        """A load of ``name`` succeeded."""
        self._failures.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Forget those of all other components."""
        self._failures = {name: self._failures[name] for name in self._failures if name in names}

    def retry_all(self) -> bool:
        """Let everything be retried now, however it failed; whether there is anything."""
        now = self._clock.monotonic()
        self._failures = {
            name: replace(failure, retry_at=now) for name, failure in self._failures.items()
        }
        if self._failures:
            log.info("components.retry_requested", components=sorted(self._failures))
        return bool(self._failures)

    def retry_repaired(self) -> bool:
        """Let permanent failures be retried where files were replaced; whether any were."""
        repaired = False
        for name, failure in self._failures.items():
            if failure.retry_at is not None:
                continue
            if self._store.version_fingerprint(name, failure.version) != failure.looks:
                self._failures[name] = replace(failure, retry_at=self._clock.monotonic())
                repaired = True
                log.info("component.files_replaced", component=name, version=failure.version)
        return repaired

    def known(self, wanted: Wanted) -> dict[str, Failure]:
        """Those of the components whose wanted version failed."""
        return {
            name: failure
            for name, version in wanted.items()
            if (failure := self._failures.get(name)) is not None and failure.version == version
        }

    def may_load(self, wanted: Wanted, *, fits: bool) -> bool:
        """Whether none of these versions is known to fail, or all that do may be retried.

        ``fits``: whether the memory budget has room for them: that is all that one which did not
        fit waits for.
        """
        now = self._clock.monotonic()
        return all(
            failure.due(now) or (fits and failure.refusal is Refusal.MEMORY)
            for failure in self.known(wanted).values()
        )

    def retry_at(self, wanted: Wanted) -> float | None:
        """When all that failed may be retried; ``None``: one of them never."""
        times = [failure.retry_at for failure in self.known(wanted).values()]
        return None if None in times else max(at for at in times if at is not None)

    def reasons(self, wanted: Wanted, *, part: str) -> dict[str, str]:
        """Why each component of a part that cannot flip is not at the wanted version."""
        known = self.known(wanted)
        failed = ", ".join(sorted(known))
        waits = f"waits for {failed}, which failed: group {part} flips as a whole"
        return {name: known[name].error if name in known else waits for name in wanted}

    def refusals(self, wanted: Wanted) -> dict[str, Refusal]:
        """What kind of failure each of those is that is not retried by itself."""
        return {
            name: failure.refusal
            for name, failure in self.known(wanted).items()
            if failure.refusal is not None
        }


def _refusal(error: BaseException) -> Refusal:
    match error:
        case MemoryBudgetError():
            return Refusal.MEMORY
        case AnswersDifferError():
            return Refusal.ANSWERS
        case _:
            return Refusal.DAMAGE if _is_damage(error) else Refusal.LOAD


def _is_damage(error: BaseException) -> bool:
    """Whether a file of the version is missing or corrupt, and a new build is what helps."""
    return isinstance(
        error, BlobCorruptError | BlobMissingError | CorruptFileError | VersionUnreadableError
    )


def error_text(error: BaseException) -> str:
    """The error in one line, of which the first `MAX_ERROR_CHARACTERS`.

    Presence and reports carry it, and what a kind raises may quote a whole file.
    """
    text = describe_error(error)
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]}…"
