"""Making a person's release known, and refusing names that mean nothing."""

from collections.abc import Iterable

from redis.exceptions import RedisError

from indexrelay.console.installation import Installation
from indexrelay.producers.errors import UndeclaredComponentError
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.events import Event, ReleasePublished
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.streams.announcing import announce

log = get_logger(__name__)


def announced(installation: Installation, release: Release) -> int:
    """Tell the readers of a release that was committed; returns its number.

    Should Redis be away the release stands all the same: readers find it at their next look, and a
    rebuilder announces it at its next reconcile.
    """
    event = Event.of(
        ReleasePublished(
            release=release.number, digest=release.digest, components=release.components
        ),
        source="indexrelay/console",
        time=SystemClock().now(),
    )
    try:
        announce(
            installation.connection,
            installation.keys,
            number=release.number,
            release_event=event.to_bytes(),
            result_event=None,
        )
    except (RedisError, IndexRelayError, OSError) as error:
        log.warning("release.not_announced", release=release.number, error=str(error))
    return release.number


def require_declared(settings: Settings, names: Iterable[str]) -> None:
    """Refuse components that the settings do not declare.

    Raises:
        UndeclaredComponentError: with the name that may have been meant.
    """
    for name in names:
        if name not in settings.components:
            raise UndeclaredComponentError(name, settings.components)
