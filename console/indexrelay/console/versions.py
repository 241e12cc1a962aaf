"""What is released of one component, and why its builds fail, by the catalog's attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console import figures
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.health.facts import RetryPolicy
from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release, VersionManifest

log = get_logger(__name__)

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
