"""Makes a release of what becomes of the newest one, against whoever else publishes.

It is asked for again when somebody else was faster, so that a hold never undoes what was released
meanwhile.
"""

from collections.abc import Callable
from typing import Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts.errors import NothingReleasedError, ReleaseExistsError
from indexrelay.storage.artifacts.releases import Releases

Change = Callable[[Release], Release | None]
"""From the newest release to the next one; ``None``: nothing to change."""
_ATTEMPTS: Final = 100
"""Each lost one means that another publisher won."""


def commit_change(releases: Releases, change: Change, *, clock: Clock, lost: int = 0) -> Release:
    """Commit what ``change`` makes of the newest release; that one where it is nothing.

    ``lost``: numbers up to here are taken by releases that are not in the store any more.

    Raises:
        NothingReleasedError: there is no release.
        ReleaseExistsError: others were faster a hundred times.
    """
    attempts = 0
    while True:
        newest = releases.newest()
        if newest is None:
            raise NothingReleasedError
        changed = change(newest)
        if changed is None:
            return newest
        update = {
            "number": max(releases.next_number(), lost + 1),
            "previous": newest.number,
            "created_at": clock.now(),
            "by": "",  # whoever made the newest one
        }
        try:
            return releases.commit(changed.model_copy(update=update), lost=lost)
        except ReleaseExistsError:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise
