"""Backups: a release with all that it names, and on request the catalog, as one file.

`Backups` makes, verifies, restores and removes them. What is in one is described by
`indexrelay.schemas.backups`, how it is written by `indexrelay.operations.backups.archive`.
"""

from indexrelay.operations.backups.backups import Backups, Created
from indexrelay.operations.backups.errors import (
    BackupCorruptError,
    BackupKeyError,
    BackupRefusedError,
    BackupSourceError,
)
from indexrelay.operations.backups.keys import generate_identity
from indexrelay.operations.backups.restore import Restored

__all__ = [
    "BackupCorruptError",
    "BackupKeyError",
    "BackupRefusedError",
    "BackupSourceError",
    "Backups",
    "Created",
    "Restored",
    "generate_identity",
]
