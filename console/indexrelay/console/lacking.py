"""What right settings still want of a host: functions, drivers, and folders that can be made."""

import os
from collections.abc import Iterator
from pathlib import Path

from indexrelay.components.conformance import lacks_of
from indexrelay.components.registry import kind_of
from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.settings import Settings, TableSource
from indexrelay.storage.artifacts import SigningKey, SigningKeyError
from indexrelay.storage.urls import lacking_driver


def lacking(settings: Settings) -> dict[str, str]:
    """By key of the settings: what a build on this host would not find.

    A host that only reads needs none of it.
    """
    return {
        **dict(_of_kinds(settings)),
        **dict(_drivers(settings)),
        **dict(_folders(settings)),
        **dict(_signing(settings)),
    }


def _of_kinds(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, definition in settings.components.items():
        lacks = "; ".join(lacks_of(kind_of(definition)))
        if lacks:
            yield f"components.{name}", f"{lacks}; a build on this host would fail"


def _drivers(settings: Settings) -> Iterator[tuple[str, str]]:
    urls = {"catalog.url": settings.catalog_url}
    for name, collection in settings.collections.items():
        if isinstance(collection.source, TableSource):
            urls[f"collections.{name}.source.url"] = collection.source.url.get_secret_value()
    for key, url in urls.items():
        lacks = lacking_driver(url)
        if lacks is not None:
            yield key, f"{lacks}; nothing on this host could connect to it"


def _signing(settings: Settings) -> Iterator[tuple[str, str]]:
    artifacts = settings.artifacts
    key = "artifacts.signing_key_file"
    if artifacts.signing_key_file is None:
        if artifacts.trusted_keys is not None:
            yield key, "not given: this host takes signed releases only, and can make none"
        return
    try:
        public = SigningKey.read(artifacts.signing_key_file).public
    except (SigningKeyError, MissingExtraError) as error:
        yield key, f"{error}; no release could be made on this host"
        return
    if artifacts.trusted_keys is not None and public not in artifacts.trusted_keys:
        yield key, f"its public key {public} is not in artifacts.trusted_keys"


def _folders(settings: Settings) -> Iterator[tuple[str, str]]:
    for key, folder in (("data_dir", settings.data_dir), ("artifacts.dir", settings.artifacts_dir)):
        obstacle = _obstacle(folder)
        if obstacle is not None:
            yield key, f"{folder} cannot be a folder: {obstacle} is something else"


def _obstacle(folder: Path) -> Path | None:
    """What stands where ``folder`` or one above it would have to be; a dangling link does, too."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return None if os.path.isdir(there) else there  # noqa: PTH112 - asks without raising
