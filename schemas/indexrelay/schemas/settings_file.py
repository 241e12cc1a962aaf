"""Reads the settings, once, at the edge: ``indexrelay.toml``, then ``INDEXRELAY_…`` variables.

A variable names its key with double underscores for the dots and wins over the file:
``INDEXRELAY_REDIS__URL``, ``INDEXRELAY_REBUILDER__QUIET_SECONDS``. ``INDEXRELAY_CONFIG`` names the
file itself. Relative paths are relative to the file's folder, so that a program may be started
from anywhere.
"""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.mistakes import (
    Mistake,
    SettingsError,
    mistakes_of,
    reference_mistakes,
    suggestion,
)
from indexrelay.schemas.settings import FolderSource, Settings

DEFAULT_FILE = "indexrelay.toml"
PREFIX = "INDEXRELAY_"
_CONFIG = f"{PREFIX}CONFIG"

KindCheck = Callable[[str, ComponentDefinition], Iterable[Mistake]]
"""Finds the mistakes in one component's kind and parameters; the kinds live a layer above."""


class _Variables(Settings, BaseSettings):
    """Only there to let pydantic-settings read the variables; never instantiated."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )


def load_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    check_kind: KindCheck | None = None,
) -> Settings:
    """Read and check everything, and report every mistake at once.

    Args:
        path: the file; ``None``: ``INDEXRELAY_CONFIG``, else ``indexrelay.toml`` here if there is
            one, else no file.
        environ: the variables; ``None``: the process's own.
        check_kind: also check each component against its kind.

    Raises:
        SettingsError: with every mistake, each naming its key, its value and what would be right.
    """
    environ = os.environ if environ is None else environ
    file = _file(path, environ)
    raw = _merged(_from_file(file), _from_variables(environ))
    mistakes = list(_unknown_variables(environ))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        mistakes += mistakes_of(error, root="", model=Settings)
    mistakes += reference_mistakes(raw)
    if check_kind is not None:
        mistakes += _kind_mistakes(raw, check_kind)
    if mistakes or settings is None:
        raise SettingsError(mistakes, origin=str(file or "settings"))
    return _anchored(settings, file.resolve().parent if file else Path.cwd())


def _file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(_CONFIG):
        path = Path(environ[_CONFIG])
    if path is not None:
        if not path.is_file():
            raise SettingsError(
                [Mistake(key="config", value=str(path), right="there is no such file")],
                origin=str(path),
            )
        return path
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            [Mistake(key="config", value=str(file), right=f"not valid TOML: {error}")],
            origin=str(file),
        ) from error


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(_Variables)
    source.env_vars = {key.lower(): value for key, value in environ.items()}
    return source()


def _unknown_variables(environ: Mapping[str, str]) -> Iterable[Mistake]:
    """A misspelt variable would otherwise do nothing, silently."""
    known = {name.upper() for name in Settings.model_fields}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != _CONFIG:
            head = variable.removeprefix(PREFIX).split("__", 1)[0]
            if head not in known:
                yield Mistake(
                    key=variable,
                    value="(hidden)",
                    right="no such variable" + suggestion(head, known),
                )


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table; ``above`` wins."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def _kind_mistakes(raw: dict[str, Any], check_kind: KindCheck) -> Iterable[Mistake]:
    tables = raw.get("components")
    for name, table in (tables if isinstance(tables, dict) else {}).items():
        try:
            definition = ComponentDefinition.model_validate(table)
        except ValidationError:
            continue  # already reported, with its key
        yield from check_kind(name, definition)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Make every path absolute, seen from the file's folder."""
    collections = {
        name: collection.model_copy(
            update={
                "source": collection.source.model_copy(
                    update={"path": folder / collection.source.path}
                )
            }
        )
        if isinstance(collection.source, FolderSource)
        else collection
        for name, collection in settings.collections.items()
    }
    artifacts = settings.artifacts
    if artifacts.dir is not None:
        artifacts = artifacts.model_copy(update={"dir": folder / artifacts.dir})
    return settings.model_copy(
        update={
            "data_dir": folder / settings.data_dir,
            "artifacts": artifacts,
            "collections": collections,
        }
    )
