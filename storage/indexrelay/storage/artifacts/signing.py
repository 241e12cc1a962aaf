"""Signatures of releases: who made what is served, for readers that do not trust the store.

A release names its versions by digest, and a version its blobs, so a signature of a release covers
every byte that it adds. It is Ed25519 (RFC 8032) over the namespace and the release's digest,
which covers its number: a release of another installation, or under another number, does not
verify.

A signature is a file of its own, named by the digest that it signs, and is written before the
release: every process that sees a release finds its signature, and a reader of an earlier version
sees nothing new. The file may hold several signatures: while keys change, a release can be signed
with the old and with the new one.
"""

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, require
from indexrelay.schemas.names import Digest, canonical_json
from indexrelay.schemas.versions import SCHEMA_VERSION, Release, SchemaVersion
from indexrelay.storage.artifacts.files import Layout, open_file, read_file
from indexrelay.storage.errors import NotAFileError, ReleaseUntrustedError, SigningRefusedError

PREFIX: Final = "ed25519:"
_CONTEXT: Final = b"indexrelay release v1\n"
_KEY_BYTES: Final = 32
_MOST_KEY_FILE_BYTES: Final = 10_000
_MOST_SIGNATURES: Final = 20
_MOST_REMEMBERED: Final = 1000
"""Verified releases that are remembered: readers look at the same one again and again."""


class SigningKeyError(IndexRelayError):
    """Raised when a file holds no signing key, or others may read it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used to sign: {reason}")
        self.path = path
        self.reason = reason


class _Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    """The public key, as settings name it."""
    signature: str
    """In base64."""


class _Signatures(BaseModel):
    """The content of ``signatures/<digest>.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = SCHEMA_VERSION
    digest: Digest
    signatures: tuple[_Signature, ...]


class SigningKey:
    """A private key, which never leaves this object."""

    def __init__(self, private: Any) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> "SigningKey":
        """Create a new one at random.

        Raises:
            MissingExtraError: ``cryptography`` is not installed.
        """
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """The key in a file from `write`, or from ``openssl genpkey -algorithm ed25519``.

        Raises:
            SigningKeyError: the file holds none, or others may read it.
            MissingExtraError: ``cryptography`` is not installed.
        """
        kind = _ed25519().Ed25519PrivateKey
        unsupported = require("cryptography.exceptions").UnsupportedAlgorithm
        serialization = require("cryptography.hazmat.primitives.serialization")

        try:
            with open_file(path, most_bytes=_MOST_KEY_FILE_BYTES) as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read()
        except OSError as error:
            raise SigningKeyError(path, error.strerror or str(error)) from error
        if mode & 0o077:
            raise SigningKeyError(
                path, f"others may read it; keep it to yourself: chmod 600 {path}"
            )
        try:
            private = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, unsupported) as error:
            raise SigningKeyError(path, "it is no private key in PEM without a password") from error
        if not isinstance(private, kind):
            raise SigningKeyError(path, "it is a key of another kind; Ed25519 is needed")
        return cls(private)

    def write(self, path: Path) -> None:
        """Write it to a new file that only its owner may read.

        Raises:
            OSError: the file exists, or cannot be written.
        """
        serialization = require("cryptography.hazmat.primitives.serialization")

        content: bytes = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    @property
    def public(self) -> str:
        """The public key, as `artifacts.trusted_keys` takes it."""
        raw: bytes = self._private.public_key().public_bytes_raw()
        return PREFIX + base64.b64encode(raw).decode()

    def sign(self, message: bytes) -> str:
        """The signature, in base64."""
        signature: bytes = self._private.sign(message)
        return base64.b64encode(signature).decode()


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose releases are accepted, and how this process signs its own."""

    namespace: str = ""
    signing_key_file: Path | None = None
    """``None``: this process signs nothing."""
    trusted_keys: Sequence[str] | None = None
    """``None``: every release is accepted."""


class Signatures:
    """The signatures of one store; safe to share between threads."""

    def __init__(self, layout: Layout, trust: Trust) -> None:
        self.required = trust.trusted_keys is not None
        """Whether only releases that verify are accepted."""
        self.wanted = self.required or trust.signing_key_file is not None
        """Whether a new release is to be signed."""
        if self.wanted:
            _ed25519()  # a missing package is an error when the store is opened, not later
        self._layout = layout
        self._trust = trust
        self._verified: dict[str, None] = {}

    def sign(self, release: Release) -> None:
        """Sign a release, which may not be committed yet.

        Raises:
            SigningRefusedError: this process has no key, or none that is trusted.
            SigningKeyError, MissingExtraError: the key cannot be used.
            StoreAccessError: it cannot be written.
        """
        trust = self._trust
        if trust.signing_key_file is None:
            raise SigningRefusedError(
                "the release has to be signed, and this process has no "
                "artifacts.signing_key_file: do it where the rebuilder runs, or name the file"
            )
        key = SigningKey.read(trust.signing_key_file)
        if trust.trusted_keys is not None and key.public not in trust.trusted_keys:
            raise SigningRefusedError(
                f"the key of {trust.signing_key_file} is not among artifacts.trusted_keys, so "
                f"nobody here would accept what it signs; its public key is {key.public}"
            )
        self._add(release, key)

    def document(self, release: Release) -> bytes | None:
        """The signatures as they lie on disk; ``None``: there are none that count."""
        if not self._read(release):
            return None
        return read_file(self._layout.signature(release.digest))

    def check(self, release: Release, document: bytes | None = None) -> None:
        """Check that an intact release is signed with a trusted key, where that is `required`.

        Args:
            document: its signatures, of a release from elsewhere; ``None``: those in the store.

        Raises:
            ReleaseUntrustedError: it is not.
            MissingExtraError: ``cryptography`` is not installed.
        """
        if self._trust.trusted_keys is None or release.digest in self._verified:
            return
        signatures = self._read(release) if document is None else _signatures(document, release)
        reason = "it is not signed"
        for each in signatures:
            if each.key not in self._trust.trusted_keys:
                reason = f"it is signed by {each.key[:80]}, which artifacts.trusted_keys has not"
            elif self._is_by(each, release):
                while len(self._verified) >= _MOST_REMEMBERED:
                    self._verified.pop(next(iter(self._verified)))
                self._verified[release.digest] = None
                return
            else:
                raise ReleaseUntrustedError(release.number, "its signature does not verify")
        raise ReleaseUntrustedError(release.number, reason)

    def signers(self, release: Release) -> tuple[str, ...]:
        """The public keys whose signatures of an intact release verify, trusted or not."""
        return tuple(each.key for each in self._read(release) if self._is_by(each, release))

    def _add(self, release: Release, key: SigningKey) -> None:
        """Write a signature beside the existing ones that verify."""
        own = _Signature(key=key.public, signature=key.sign(self._message(release)))
        others = [
            each
            for each in self._read(release)
            if each.key != own.key and self._is_by(each, release)
        ]
        document = _Signatures(digest=release.digest, signatures=(own, *others))
        path = self._layout.signature(release.digest)
        self._layout.make_folder(path.parent)
        data = canonical_json(document.model_dump(mode="json"))
        if not self._layout.write_once(data, path):
            self._layout.overwrite(data, path)

    def _read(self, release: Release) -> tuple[_Signature, ...]:
        """The signatures of a release; a file that is no list of signatures counts as none."""
        with contextlib.suppress(FileNotFoundError, NotAFileError):
            return _signatures(read_file(self._layout.signature(release.digest)), release)
        return ()

    def _is_by(self, signature: _Signature, release: Release) -> bool:
        invalid = require("cryptography.exceptions").InvalidSignature

        try:
            public = _ed25519().Ed25519PublicKey.from_public_bytes(public_bytes(signature.key))
            public.verify(
                base64.b64decode(signature.signature, validate=True), self._message(release)
            )
        except (ValueError, binascii.Error, invalid):
            return False
        return True

    def _message(self, release: Release) -> bytes:
        return _CONTEXT + f"{self._trust.namespace}\n{release.digest}\n".encode()


def _signatures(data: bytes, release: Release) -> tuple[_Signature, ...]:
    """Those in a document; one that is of another release, or no such document, has none."""
    with contextlib.suppress(ValidationError):
        document = _Signatures.model_validate_json(data)
        if document.digest == release.digest:
            return document.signatures[:_MOST_SIGNATURES]
    return ()


def public_bytes(key: str) -> bytes:
    """The raw public key in a text as settings hold it.

    Raises:
        ValueError: it is none.
    """
    raw = base64.b64decode(key.removeprefix(PREFIX), validate=True)
    if not key.startswith(PREFIX) or len(raw) != _KEY_BYTES:
        raise ValueError(
            f"a public key is {PREFIX} and 44 characters, as {commands.SHOW_KEY} has it"
        )
    return raw


def _ed25519() -> Any:
    return require("cryptography.hazmat.primitives.asymmetric.ed25519")
