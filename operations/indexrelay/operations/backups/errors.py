"""What can go wrong with backups."""

from pathlib import Path

from indexrelay.schemas.errors import IndexRelayError


class BackupCorruptError(IndexRelayError):
    """Raised when a backup is cut short, altered, or not of our making; nothing was changed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is not sound: {reason}")
        self.path = path
        self.reason = reason


class BackupKeyError(IndexRelayError):
    """Raised when a key cannot be used, or does not open a backup; nothing was changed."""

    is_misuse = True


class BackupRefusedError(IndexRelayError):
    """Raised when a sound backup does not fit here; nothing was changed."""

    is_misuse = True


class BackupSourceError(IndexRelayError):
    """Raised when what is to be backed up is corrupt, or of two histories; no backup was made."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"no backup was made: {what}: {reason}")
        self.what = what
        self.reason = reason
