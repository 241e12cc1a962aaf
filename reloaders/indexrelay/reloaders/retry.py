"""What a reader remembers of loads that failed, and when it tries them again.

What may pass (`indexrelay.storage.errors`) is tried again with a growing wait; what cannot is not,
until another version is named, its files are replaced, or someone says so. The members of a group
wait for each other: a part of a release may be tried when none of its members is known to fail.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from indexrelay.reloaders.plan import Part
from indexrelay.schemas.clock import Clock, backoff_seconds
from indexrelay.schemas.diagnostics import told
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import is_transient

log = get_logger(__name__)

MAX_WAIT_SECONDS = 60.0
MAX_WORDS = 1000


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
    """By the monotonic clock; ``None``: not as long as they look like that."""

    def due(self, now: float) -> bool:
        """Whether it is time to try again."""
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
        """Know of none, so that everything may be tried."""
        self._failures = {}

    def remember(self, name: str, version: str, looks: str, error: BaseException) -> Failure:
        """A load of ``name`` failed; what is remembered of it."""
        before = self._failures.get(name)
        count = before.count + 1 if before is not None and before.version == version else 1
        wait = backoff_seconds(
            count,
            first=self._first_wait_seconds,
            longest=MAX_WAIT_SECONDS,
            key=f"{self._spread_key}/{name}",  # readers that failed together come back apart
        )
        failure = self._failures[name] = Failure(
            version=version,
            looks=looks,
            error=in_words(error),
            count=count,
            retry_at=self._clock.monotonic() + wait if is_transient(error) else None,
        )
        return failure

    def succeeded(self, name: str) -> None:
        """A load of ``name`` went well."""
        self._failures.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Forget those of all other components."""
        self._failures = {name: self._failures[name] for name in self._failures if name in names}

    def try_again(self) -> bool:
        """Let everything be tried now, however it failed; whether there is anything."""
        now = self._clock.monotonic()
        self._failures = {
            name: replace(failure, retry_at=now) for name, failure in self._failures.items()
        }
        if self._failures:
            log.info("components.told_to_retry", components=sorted(self._failures))
        return bool(self._failures)

    def notice_repairs(self) -> bool:
        """Let what failed for good be tried now where its files were replaced; whether any is."""
        repaired = False
        for name, failure in self._failures.items():
            if failure.retry_at is not None:
                continue
            if self._store.version_looks(name, failure.version) != failure.looks:
                self._failures[name] = replace(failure, retry_at=self._clock.monotonic())
                repaired = True
                log.info("component.files_replaced", component=name, version=failure.version)
        return repaired

    def known(self, part: Part) -> dict[str, Failure]:
        """The members whose wanted version was tried and failed."""
        return {
            name: failure
            for name in part.changed
            if (failure := self._failures.get(name)) is not None
            and failure.version == part.wanted[name]
        }

    def may_try(self, part: Part) -> bool:
        """Whether no member of the part is known to fail, or all that do may be tried again."""
        now = self._clock.monotonic()
        return all(failure.due(now) for failure in self.known(part).values())

    def retry_at(self, part: Part) -> float | None:
        """When all failed members may be tried again; ``None``: one of them never."""
        times = [failure.retry_at for failure in self.known(part).values()]
        return None if None in times else max(at for at in times if at is not None)

    def reasons(self, part: Part) -> dict[str, str]:
        """Why each changed member of a part that cannot flip is not at the wanted version."""
        known = self.known(part)
        culprits = ", ".join(sorted(known))
        waits = f"waits for {culprits}, which failed: group {part.name} flips as a whole"
        return {name: known[name].error if name in known else waits for name in part.changed}


def in_words(error: BaseException) -> str:
    """The error in one line (`told`), of which the first `MAX_WORDS` characters.

    Presence and reports carry it, and what a kind raises may quote a whole file.
    """
    words = told(error)
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
