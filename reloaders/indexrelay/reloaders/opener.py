"""From a version in the store to an object that answers queries.

A release and its manifests are data. They choose among what this process was told it may run: kinds
that are installed as entry points, and a class that the reader's own settings declare for that very
component. They never choose a path, since files are found by digest.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from indexrelay.components.conformance import served
from indexrelay.components.errors import ContractError
from indexrelay.components.kind import Kind
from indexrelay.components.registry import kind_class
from indexrelay.components.served import VersionFiles
from indexrelay.reloaders.errors import KindNotAllowedError
from indexrelay.reloaders.sandbox import SANDBOX
from indexrelay.reloaders.snapshot import ServedComponent
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import told
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    OpenedVersion,
    VersionUnreadableError,
)


class Opener:
    """Loads single versions from one store."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        definitions: Mapping[str, ComponentDefinition],
        clock: Clock,
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._clock = clock

    def open(
        self, component: str, version: str, *, serving: ServedComponent | None
    ) -> ServedComponent:
        """Check every file of the version and load it, warm; ``serving`` may share with it.

        Raises:
            Exception: whatever the store or the kind raises; nothing is left open then.
        """
        failpoint("reader.before_load")
        started = self._clock.monotonic()
        opened = self._store.open_version(component, version)
        inodes = {
            opened.manifest.files[label].digest: path.stat().st_ino
            for label, path in opened.files.items()
        }
        kind = self._kind(opened.manifest, version)
        files = VersionFiles(opened.files)
        self._try_out(kind, opened)
        try:
            if serving is not None and _may_share(serving, opened.manifest, inodes):
                value = served(kind, kind.reload(files, serving.value))
            else:
                value = served(kind, kind.load(files))
            if not self._store.is_unchanged(opened):
                value.close()
                raise _changed(opened)
        except SystemExit as error:  # of a user's code: it must not end the thread that reloads
            raise ContractError(f"load ended the process: {told(error)}") from error
        failpoint("reader.after_load")
        return ServedComponent(
            value,
            version=version,
            manifest=opened.manifest,
            inodes=inodes,
            seconds=self._clock.monotonic() - started,
            applied_at=self._clock.now(),
        )

    def _try_out(self, kind: Kind[Any, Any], opened: OpenedVersion) -> None:
        """Let a process of its own open what this host has not opened yet."""
        refs = {
            label: opened.manifest.files[label]
            for label in kind.sandboxed & opened.files.keys()
            if not self._store.was_opened(opened.manifest.files[label])
        }
        if refs:
            SANDBOX.try_out(kind, opened.manifest, opened.files, refs.keys())
            for ref in refs.values():
                self._store.remember_opened(ref)

    def _kind(self, manifest: VersionManifest, version: str) -> Kind[Any, Any]:
        component, kind = manifest.component, manifest.kind
        declared = self._definitions.get(component)
        if ":" in kind and (declared is None or declared.kind != kind):
            raise KindNotAllowedError(component, kind)
        found = kind_class(kind)
        try:
            return found(found.Parameters.model_validate(manifest.parameters))
        except ValidationError as error:
            reason = f"{kind} does not take {error.error_count()} of the parameters in its manifest"
            raise VersionUnreadableError(component, version, reason, missing=False) from error


def _changed(opened: OpenedVersion) -> BlobCorruptError:
    ref, path = next((opened.manifest.files[label], path) for label, path in opened.files.items())
    reason = "a file of this version was replaced while it was opened"
    return BlobCorruptError(ref.digest, path, reason, component=opened.manifest.component)


def _may_share(
    serving: ServedComponent, manifest: VersionManifest, inodes: Mapping[str, int]
) -> bool:
    """Whether what is open already is of the same kind, and of the files that were checked now."""
    return serving.manifest.kind == manifest.kind and all(
        inodes.get(digest, inode) == inode for digest, inode in serving.inodes.items()
    )
