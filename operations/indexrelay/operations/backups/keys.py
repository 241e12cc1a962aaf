"""Keys of age: for whom a backup is encrypted, and what opens it.

The format is that of https://age-encryption.org/v1, so that the program ``age`` opens what is
written here. A private key never leaves its object, and is in no log and no error.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from indexrelay.operations.backups.errors import BackupKeyError
from indexrelay.schemas.errors import require
from indexrelay.storage.artifacts.files import open_file

_MOST_BYTES: Final = 1 << 16


def recipients_of(texts: Sequence[str]) -> list[Any]:
    """The public keys in the settings, as pyrage takes them.

    Raises:
        BackupKeyError: one of them is none.
        MissingExtraError: pyrage is not installed.
    """
    return [_recipient(text) for text in texts]


def _recipient(text: str) -> Any:
    pyrage = require("pyrage")
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise BackupKeyError(f"backups.recipients: {text[:80]} is no public key: {error}") from None


def read_identities(path: Path) -> list[Any]:
    """The private keys in a file of ``age-keygen`` or ``ssh-keygen``.

    Raises:
        BackupKeyError: there is none in it, or others may read it.
        MissingExtraError: pyrage is not installed.
    """
    pyrage = require("pyrage")
    try:
        with open_file(path, most_bytes=_MOST_BYTES) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as error:
        raise BackupKeyError(f"{path} cannot be read: {error.strerror or error}") from error
    if mode & 0o077:
        raise BackupKeyError(
            f"others may read the private key in {path}; keep it to yourself: chmod 600 {path}"
        )
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        found = [pyrage.x25519.Identity.from_str(key) for key in keys]
    except (pyrage.IdentityError, UnicodeDecodeError):  # whose text may quote the key
        raise BackupKeyError(f"{path} holds no private key of age or OpenSSH") from None
    if not found:
        raise BackupKeyError(f"{path} holds no private key of age or OpenSSH")
    return found


def generate_identity(path: Path) -> str:
    """Write a new private key to a new file, for its owner alone; returns its public key.

    Raises:
        BackupKeyError: the file exists, or cannot be written.
        MissingExtraError: pyrage is not installed.
    """
    identity = require("pyrage").x25519.Identity.generate()
    public = str(identity.to_public())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"# public key: {public}\n{identity}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BackupKeyError(f"{path} cannot be written: {error.strerror or error}") from error
    return public
