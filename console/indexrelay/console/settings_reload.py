"""SIGHUP: a role reads its settings again, and goes on with them or with those that it had.

Nothing is taken up in part. Settings that are wrong, that cannot be read, or that need another
process are refused as a whole, and the role goes on as it was; whoever looks at it sees that, and
why. Variables are those that the process was started with: nobody can change these from outside.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from indexrelay.console.hangup import Hangup
from indexrelay.console.installation import read_settings
from indexrelay.schemas import commands
from indexrelay.schemas.diagnostics import describe_error, without_secrets
from indexrelay.schemas.errors import IndexRelayError, Mistake, SettingsError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.origins import changed_keys
from indexrelay.schemas.settings import Settings

log = get_logger(__name__)

OF_THE_SERVER: Final = ("data_dir", "redis.url")
"""Keys that decide where the embedded server is: other processes have found it there."""
_MOST_KEYS: Final = 20
"""Changed keys that a log line names."""


class SettingsReload:
    """The settings of one role, and those that it is to go on with; for one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        *,
        asked: Hangup,
        sets_up_logs: bool = True,
        reads: Callable[[Settings], object] = lambda _settings: None,
    ) -> None:
        """Begin with the settings that it was started with.

        Args:
            config: the file; ``None``: found as `read_settings` says.
            asked: set by SIGHUP.
            sets_up_logs: whether log lines follow ``[log]``.
            reads: what the role reads once of files that the settings name, such as a key: they
                may hold something else under the same name. It raises where they cannot be used.
        """
        self.settings = settings
        """Those that it works with."""
        self.refused: str | None = None
        """Why the last ones that were read are refused; ``None``: they are not."""
        self._config = config
        self._asked = asked
        self._sets_up_logs = sets_up_logs
        self._reads = reads
        self._has_read: object = None

    @property
    def asked(self) -> bool:
        """Whether SIGHUP came, and nobody has looked since."""
        return self._asked.is_set()

    def note_read(self, settings: Settings) -> None:
        """The role has read its files by these settings."""
        self._has_read = self._reads(settings)

    def look(self, current: Settings | None = None) -> Settings | None:
        """Other settings to go on with, if SIGHUP came; ``None``: there is nothing to do.

        Whoever gets some says what became of them: by `take`, or by `refuse`.

        Args:
            current: those that are to be gone on with already; ``None``: those that it works with.
        """
        if not self._asked.is_set():
            return None
        self._asked.clear()
        try:
            new = read_settings(self._config)
            _require_no_restart(self.settings, new, origin=str(self._config or "settings"))
            has_read = self._reads(new)
        except Exception as error:  # noqa: BLE001 - modules of users are imported; the role goes on
            self.refuse(error)
            return None
        self.refused = None
        if new == (current or self.settings) and has_read == self._has_read:
            log.info("settings.unchanged")
            return None
        return new

    def take(self, new: Settings) -> None:
        """The role goes on with these."""
        changed = changed_keys(self.settings, new)
        self.settings = new
        if self._sets_up_logs:
            configure_logs(new.log)
        log.info(
            "settings.taken_up",
            changed=changed[:_MOST_KEYS],
            more=max(len(changed) - _MOST_KEYS, 0) or None,
        )

    def refuse(self, error: BaseException) -> None:
        """The role goes on with what it had."""
        ours = isinstance(error, IndexRelayError)
        self.refused = without_secrets(str(error)) if ours else describe_error(error)
        log.error(
            "settings.refused",
            error=self.refused,
            consequence="the settings that it had stay",
            advice=f"correct them, and send SIGHUP again: {commands.CHECK_SETTINGS}",
        )


def _require_no_restart(before: Settings, after: Settings, *, origin: str) -> None:
    """Require that the embedded server stays where it is.

    Raises:
        SettingsError: it would be elsewhere, or there would be another one in its place.
    """
    if before.redis_url is not None and after.redis_url is not None:
        return
    moved: Sequence[str] = [key for key in changed_keys(before, after) if key in OF_THE_SERVER]
    if moved:
        right = "the embedded server cannot move while roles run: start them again to take this up"
        raise SettingsError(
            [Mistake(key=key, value=None, right=right) for key in moved], origin=origin
        )
