"""Reads the settings, once, at the edge: ``indexrelay.toml``, then ``INDEXRELAY_…`` variables.

A variable wins over the file. It names its key with double underscores for the dots, in capitals:
``INDEXRELAY_REBUILDER__QUIET_SECONDS=0.5`` is ``[rebuilder] quiet_seconds = 0.5``. A value that
begins with ``[`` or ``{`` is a list or table in JSON; everything else is text, which the setting's
own type turns into a number or a truth value. Only a component's keys, whose types the kind knows
and not we, are read as JSON scalars where they are one. An empty variable counts as not set: that
is what a compose file makes of one that is missing. ``INDEXRELAY_CONFIG`` names the file itself.

Relative paths, those in ``sqlite:///`` URLs among them, are relative to the file's folder, so that
a program may be started from anywhere; a leading ``~`` is the home folder. The file is UTF-8, with
a byte-order mark or without. Files that a component's keys name are read here too, and known by
their content (`indexrelay.schemas.parameter_files`).

``kind = "my_kinds:Thing"`` names a module that may lie next to the file. Its folder is added to
``sys.path`` only where the settings name a module at all, and last: a file of the user's that is
called ``queue.py`` must not take the place of the module of that name.
"""

import codecs
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from indexrelay.schemas.diagnostics import HIDDEN
from indexrelay.schemas.errors import (
    Mistake,
    SettingsError,
    mistakes_of,
    reference_mistakes,
    suggestion,
)
from indexrelay.schemas.matrix import expand_matrices
from indexrelay.schemas.origins import Key, Origins, keys_in, lines_of
from indexrelay.schemas.parameter_files import with_files
from indexrelay.schemas.settings import (
    CollectionSettings,
    ComponentDefinition,
    FolderSource,
    Settings,
    TableSource,
)
from indexrelay.schemas.urls import anchored

DEFAULT_FILE = "indexrelay.toml"
KindCheck = Callable[[str, ComponentDefinition, Collection[str]], Iterable[Mistake]]
"""Finds the mistakes in one component's kind and parameters, given its name, its definition and the
names of all components; the kinds live a layer above."""


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
    try:
        return _read_settings(path, environ, check_kind)
    except SettingsError as error:
        mistakes = origins_of(path, environ=environ).located(error.mistakes)
        raise SettingsError(mistakes, origin=error.origin) from error.__cause__


def _read_settings(
    path: Path | None, environ: Mapping[str, str], check_kind: KindCheck | None
) -> Settings:
    file = _file(path, environ)
    variables, mistakes = tables_of(environ, known=frozenset(Settings.model_fields))
    folder = file.resolve().parent if file else Path.cwd()
    raw, wrong = expand_matrices(merged(_from_file(file), variables))
    mistakes += wrong
    raw = with_files(raw, folder)
    if check_kind is not None:
        make_importable(modules_folder(raw, folder))
    settings = check_settings(
        raw, origin=str(file or "settings"), check_kind=check_kind, found=mistakes
    )
    return _anchored(settings, folder)


def origins_of(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Origins:
    """Where each value comes from that `load_settings` reads; its arguments are the same.

    A file that cannot be read has no lines.
    """
    environ = os.environ if environ is None else environ
    file, lines = None, dict[Key, int]()
    with suppress(SettingsError, OSError, UnicodeDecodeError):
        file = _file(path, environ)
        if file is not None:
            lines = lines_of(file.read_text(encoding="utf-8-sig"))
    variables: dict[Key, str] = {}
    for variable in sorted(_ours(environ)):
        key = _key_of(variable)
        with suppress(ValueError, RecursionError):  # it is a mistake, and its key is the variable
            value = _value(environ[variable], scalars=key[0] == "components")
            inner = value if isinstance(value, dict) else {}
            variables |= dict.fromkeys((key, *keys_in(inner, key)), variable)
    return Origins(file=file, lines=lines, variables=variables)


def settings_of(given: Settings | str | Path | None = None) -> Settings:
    """The settings that are given, or those that `load_settings` finds.

    Args:
        given: settings, or the path of their file; ``None``: found.

    Raises:
        SettingsError: with every mistake, each naming its key, its value and what would be right.
    """
    if isinstance(given, Settings):
        return given
    return load_settings(None if given is None else Path(given))


def check_settings(
    raw: dict[str, Any],
    *,
    origin: str,
    check_kind: KindCheck | None = None,
    found: Iterable[Mistake] = (),
) -> Settings:
    """Check tables as TOML gives them, and report every mistake at once.

    Args:
        raw: the tables by name.
        origin: where they come from, for the message.
        check_kind: also check each component against its kind.
        found: mistakes that are known already, to be reported with the others.

    Raises:
        SettingsError: with every mistake.
    """
    raw, wrong = expand_matrices(raw)
    mistakes = [*found, *wrong]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        mistakes += mistakes_of(error, root="", model=Settings)
    mistakes += reference_mistakes(raw)
    if check_kind is not None:
        mistakes += _kind_mistakes(raw, check_kind)
    if mistakes or settings is None:
        raise SettingsError(mistakes, origin=origin)
    return settings


def _file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(CONFIG):
        path = Path(environ[CONFIG])
    if path is not None:
        with suppress(RuntimeError):  # no home folder: then there is no such file
            path = path.expanduser()
        if not path.is_file():
            right = f"there is no such file; name another with --config or {CONFIG}"
            mistake = Mistake(key="config", value=str(path), right=right)
            raise SettingsError([mistake], origin=str(path))
        return path
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        raw = file.read_bytes()
        if raw.startswith(_OTHER_MARKS):
            raise SettingsError(
                [Mistake(key="config", value=str(file), right="not UTF-8; save the file as UTF-8")],
                origin=str(file),
            )
        return tomllib.loads(raw.decode("utf-8-sig"))  # some editors write a byte-order mark
    except OSError as error:
        raise SettingsError(
            [Mistake(key="config", value=str(file), right=f"cannot be read: {error.strerror}")],
            origin=str(file),
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            [Mistake(key="config", value=str(file), right=f"not valid TOML: {error}")],
            origin=str(file),
        ) from error


_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Byte-order marks of other encodings; that of UTF-32 in little-endian begins like one of them."""


def _kind_mistakes(raw: dict[str, Any], check_kind: KindCheck) -> Iterable[Mistake]:
    given = raw.get("components")
    tables = given if isinstance(given, dict) else {}
    for name, table in tables.items():
        try:
            definition = ComponentDefinition.model_validate(table)
        except ValidationError:
            continue  # already reported, with its key
        yield from check_kind(name, definition, tables.keys())


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Make every path absolute, seen from the file's folder."""
    artifacts, catalog, redis = settings.artifacts, settings.catalog, settings.redis
    if artifacts.dir is not None:
        artifacts = artifacts.model_copy(update={"dir": folder / artifacts.dir})
    if artifacts.signing_key_file is not None:
        key_file = folder / artifacts.signing_key_file
        artifacts = artifacts.model_copy(update={"signing_key_file": key_file})
    admin = settings.admin
    if admin.cookie_key_file is not None:
        admin = admin.model_copy(update={"cookie_key_file": folder / admin.cookie_key_file})
    places = {"dir": settings.backups.dir, "identity_file": settings.backups.identity_file}
    found = {key: folder / path for key, path in places.items() if path is not None}
    backups = settings.backups.model_copy(update=found)
    if catalog.url is not None:
        catalog = catalog.model_copy(update={"url": anchored(catalog.url, folder)})
    if redis.url is not None:
        redis = redis.model_copy(update={"url": _socket_at_home(redis.url)})
    return settings.model_copy(
        update={
            "data_dir": folder / settings.data_dir,
            "redis": redis,
            "modules_dir": folder / (settings.modules_dir or "."),
            "artifacts": artifacts,
            "catalog": catalog,
            "backups": backups,
            **({"admin": admin} if settings.has_admin else {}),
            "collections": {
                name: _anchored_source(collection, folder)
                for name, collection in settings.collections.items()
            },
        }
    )


def _anchored_source(collection: CollectionSettings, folder: Path) -> CollectionSettings:
    source = collection.source
    if isinstance(source, FolderSource):
        source = source.model_copy(update={"path": folder / source.path})
    elif isinstance(source, TableSource):
        source = source.model_copy(update={"url": anchored(source.url, folder)})
    return collection.model_copy(update={"source": source})


def _socket_at_home(url: SecretStr) -> SecretStr:
    """``unix://~/PATH``, with the home folder written out; every other URL as it is."""
    text = url.get_secret_value()
    if not text.startswith("unix://~/"):
        return url
    return SecretStr(f"unix://{quote(str(Path.home()))}{text.removeprefix('unix://~')}")


PREFIX: Final = "INDEXRELAY_"
CONFIG: Final = f"{PREFIX}CONFIG"
"""Names the settings file; this variable and the next one are no settings."""
TOKEN: Final = f"{PREFIX}TOKEN"
"""What commands show to readers that ask for a token."""


def tables_of(
    environ: Mapping[str, str], *, known: frozenset[str]
) -> tuple[dict[str, Any], list[Mistake]]:
    """The variables as nested tables, and what is wrong with them.

    Args:
        environ: the process's variables, or a test's.
        known: the top-level keys of the settings, in lower case.
    """
    tables: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    # Sorted, so that COMPONENTS__MAP={…} comes before COMPONENTS__MAP__SEED, which wins.
    for variable in sorted(_ours(environ)):
        path = _key_of(variable)
        if path[0] not in known:
            right = "no such variable" + suggestion(path[0].upper(), {key.upper() for key in known})
            mistakes.append(Mistake(key=variable, value=HIDDEN, right=right))
            continue
        try:
            value = _value(environ[variable], scalars=path[0] == "components")
        except (ValueError, RecursionError):
            right = "begins like a list or table, but is not JSON"
            mistakes.append(Mistake(key=variable, value=HIDDEN, right=right))
            continue
        tables = merged(tables, _nested(path, value))
    return tables, mistakes


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table; ``above`` wins."""
    both = dict(below)
    for key, value in above.items():
        beneath = both.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict):
            both[key] = merged(beneath, value)
        else:
            both[key] = value
    return both


def _ours(environ: Mapping[str, str]) -> Iterator[str]:
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable not in (CONFIG, TOKEN) and value:
            yield variable


def _key_of(variable: str) -> Key:
    return tuple(variable.removeprefix(PREFIX).lower().split("__"))


def _nested(path: Key, value: Any) -> dict[str, Any]:
    table = {path[-1]: value}
    for key in reversed(path[:-1]):
        table = {key: table}
    return table


def _value(text: str, *, scalars: bool) -> Any:
    if text.lstrip().startswith(("[", "{")):
        return json.loads(text)
    if scalars:
        try:
            return json.loads(text)
        except ValueError:
            return text  # a plain word, such as a kind's name
    return text


_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_added: list[str] = []
"""The folders that were added here: with ``sys.path`` they show where modules are searched."""


def let_import(settings: "Settings") -> None:
    """Let the modules be imported that components and embedders of ``settings`` name; safe
    twice."""
    named = any(each.embedder is not None for each in settings.collections.values()) or any(
        _names_module(definition.kind) or any(map(_names_module, definition.parameters.values()))
        for definition in settings.components.values()
    )
    if settings.modules_dir is not None and named:
        make_importable(settings.modules_dir)


def make_importable(folder: Path) -> None:
    """Let modules in ``folder`` be imported, after everything that is installed; safe twice."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.append(text)
    if text not in _added:
        _added.append(text)


def modules_folder(raw: Mapping[str, Any], folder: Path) -> Path:
    """The folder of the modules, for tables that were read in ``folder``."""
    given = raw.get("modules_dir")
    return folder / given if isinstance(given, str) else folder


def where_was_looked() -> str:
    """For an error: the folders of the settings that were read, and this Python's own."""
    folders = [folder for folder in _added if folder in sys.path]
    if not folders:
        return "looked among what is installed, and in no folder of settings (modules_dir)"
    return f"looked in {', '.join(folders)} and among what is installed"


def _names_module(value: object) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None
