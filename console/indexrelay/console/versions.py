"""What is released of one component: its version, the versions before it, and why builds fail.

The kept releases are the history: a version that its gates refused is in no release, and a version
that a rollback served again is there twice. An unreadable release is skipped. Failures come from
the catalog's attempts.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console import figures
from indexrelay.console.errors import CommandError
from indexrelay.console.golden import golden_figures
from indexrelay.console.installation import Installation
from indexrelay.health.facts import RetryPolicy
from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, ReleaseUnreadableError

log = get_logger(__name__)

MOST_VERSIONS: Final = 10
"""What fits on a screen beside the rest; releases are kept for longer."""
NOTHING_RELEASED: Final = (
    "nothing was released yet: commit a batch while a rebuilder runs, "
    f"or build what is due now: {commands.rebuild(here=True)}"
)


@dataclass(frozen=True, kw_only=True)
class ReleasedVersion:
    """The version of one component that is released now."""

    id: str
    """As the release names it. The id of a manifest that a later minor version wrote cannot be
    derived here: the fields that it adds are not read."""
    manifest: VersionManifest


def released_version(installation: Installation, component: str) -> ReleasedVersion:
    """The version that is released now.

    Raises:
        UnknownNameError: there is no such component.
        CommandError: nothing was released yet, or not of this component; with the reason.
        ArtifactError: it cannot be read.
    """
    version_id = require_released(installation, [component])[component]
    manifest = installation.store.version(component, version_id)
    return ReleasedVersion(id=version_id, manifest=manifest)


def require_released(installation: Installation, components: Sequence[str]) -> dict[str, str]:
    """What is served of all components, by name; refuses one of which nothing is released.

    Raises:
        CommandError: nothing is released of one; with the reason, and what to do.
        UnknownNameError: there is no such component.
    """
    release = installation.store.newest_release()
    for component in components:
        if release is None or component not in release.components:
            raise _not_released(installation, component, release)
    return dict(release.components) if release is not None else {}


def manifest_of(store: ArtifactStore, component: str, version: str) -> VersionManifest | None:
    """A version's manifest; ``None``: it is corrupt, or garbage collected since the release."""
    try:
        return store.version(component, version)
    except ArtifactError:
        return None


class HistoricalVersion(BaseModel):
    """One version, and the releases in a row that named it."""

    model_config = ConfigDict(frozen=True)

    version: str
    first_release: int
    last_release: int
    reason: str
    """Why the first of them was made."""
    manifest: VersionManifest | None
    """``None``: it is corrupt, or garbage collected."""

    def as_json(self) -> dict[str, Any]:
        """The facts that a person compares; `manifest` has all of them."""
        facts = self.model_dump(mode="json", exclude={"manifest"})
        if self.manifest is None:
            return facts
        return {
            **facts,
            **self.manifest.model_dump(
                mode="json",
                include={"created_at", "covers", "entries", "build_seconds", "verify_seconds"},
            ),
            "bytes": self.manifest.size,
            "index": self.manifest.details.get("index"),
            "golden": None if (found := golden_figures(self.manifest)) is None else found.as_json(),
        }


def version_history(store: ArtifactStore, component: str) -> list[HistoricalVersion]:
    """At most `MOST_VERSIONS`, from the newest release backwards.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    runs: list[list[tuple[Release, str]]] = []
    for release in _releases(store):
        version = release.components.get(component)
        if version is None:
            continue
        if runs and runs[-1][0][1] == version:
            runs[-1].append((release, version))
        elif len(runs) == MOST_VERSIONS:
            break
        else:
            runs.append([(release, version)])
    return [
        HistoricalVersion(
            version=version,
            first_release=first.number,
            last_release=last.number,
            reason=first.reason,
            manifest=manifest_of(store, component, version),
        )
        for (last, version), (first, _) in ((run[0], run[-1]) for run in runs)
    ]


@dataclass(frozen=True, kw_only=True)
class Failing:
    """The builds of one component that failed since the last good one."""

    component: str
    failures: int
    """How many in a row."""
    failing_since: datetime
    """When the first of them failed."""
    failed_at: datetime
    """When the last one did."""
    error: str
    """Its own words, and where in the user's own code it came from."""
    transient: bool
    """Whether the cause lies outside of the build: then it is retried for as long as that lasts."""
    retry_at: datetime | None
    """When a running rebuilder tries again; ``None``: not before something changes."""

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        count = "its last build" if self.failures == 1 else f"its last {self.failures} builds"
        last = f"{count} failed, {figures.ago(self.failed_at)}"
        if self.failing_since < self.failed_at:
            last = f"it fails since {figures.moment(self.failing_since)}, {last}"
        return f"{last}: {self.error}"

    @property
    def next(self) -> str:
        """What comes next, and what a person can do."""
        here = commands.rebuild(self.component, here=True)
        at_once = f"{commands.rebuild(self.component)}, or where no rebuilder runs: {here}"
        if self.retry_at is None:
            return (
                "it is not tried again until its input, its files or its definition change; "
                f"correct the cause, then: {at_once}"
            )
        seconds = (self.retry_at - datetime.now(UTC)).total_seconds()
        soon = f"in {figures.seconds(seconds)}" if seconds > 0 else "at its next look"
        return f"correct the cause; a running rebuilder tries again {soon}; or at once: {at_once}"

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "failures": self.failures,
            "failing_since": self.failing_since.isoformat(),
            "failed_at": self.failed_at.isoformat(),
            "error": self.error,
            "transient": self.transient,
            "retry_at": self.retry_at.isoformat() if self.retry_at else None,
        }


def failing(installation: Installation, component: str) -> Failing | None:
    """Whether the last builds of a component failed; a catalog that is away only warns."""
    try:
        attempt = installation.catalog.attempts.all().get(component)
    except SQLAlchemyError as error:
        log.warning("attempts.unknown", error=str(getattr(error, "orig", None) or error))
        return None
    if attempt is None:
        return None
    return Failing(
        component=component,
        failures=attempt.failures,
        failing_since=attempt.first_failed_at,
        failed_at=attempt.failed_at,
        error=attempt.error,
        transient=attempt.transient,
        retry_at=RetryPolicy.of(
            installation.settings.rebuilder, installation.settings.components
        ).retry_at(attempt),
    )


def _not_released(
    installation: Installation, component: str, release: Release | None
) -> IndexRelayError:
    """Why nothing is released of a component, as far as the catalog shows it."""
    if component not in installation.settings.components:
        released = () if release is None else release.components
        near = suggestion(component, {*released, *installation.settings.components})
        return UnknownNameError(f"there is no component {component!r}{near}")
    fails = failing(installation, component)
    if fails is not None:
        return CommandError(
            f"no version of {component!r} is released: {fails.sentence}; {fails.next}"
        )
    if release is None:
        return CommandError(NOTHING_RELEASED)
    return CommandError(
        f"release {release.number} has no {component!r} yet; build it: "
        f"{commands.rebuild(component, here=True)}"
    )


def _releases(store: ArtifactStore) -> Iterator[Release]:
    """Those that are kept and readable, from the newest, read as they are asked for."""
    for number in store.release_numbers():
        with contextlib.suppress(ReleaseUnreadableError):
            yield store.release(number)
