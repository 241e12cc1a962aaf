"""``indexrelay config``: the settings as they are read. It opens nothing that they name.

What is shown may be pasted into a ticket. So nothing secret is: of the URL of a server or a
database only the password and the options are left out, of a target of notices all but its kind,
and keys and the digests of tokens are not shown at all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

import typer
from pydantic import SecretStr

from indexrelay.console.commands import Config, Json
from indexrelay.console.commands.check import mistake_documents, tried
from indexrelay.console.errors import WrongCallError
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, whole
from indexrelay.console.terminal import ANSWERS, note, print_json, stdout
from indexrelay.schemas import commands
from indexrelay.schemas.diagnostics import HIDDEN, redacted
from indexrelay.schemas.errors import SettingsError, suggestion
from indexrelay.schemas.origins import DEFAULT, Origin, Origins, values_in
from indexrelay.schemas.parameter_files import as_written
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import origins_of
from indexrelay.schemas.urls import database_kind

app = typer.Typer(add_completion=False, no_args_is_help=True)
_MASK: Final = "***"
_SHOWN_OPTIONS: Final = ("db",)
"""Options of a URL that hold no secret; of others only the name is shown."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One value that the roles work with."""

    key: str
    """Dotted, as one would write it in TOML."""
    value: Any
    """As JSON has it, without secrets; ``None``: no limit, or not given."""
    origin: Origin


@app.command()
def check(config: Config = None, json: Json = False) -> None:
    """Whether the settings are right: each mistake with its line, and what would be right."""
    origins = origins_of(config)
    try:
        installation, notes = tried(config)
    except SettingsError as error:
        if json:
            print_json(
                {
                    "right": False,
                    "file": _file(origins),
                    "mistakes": mistake_documents(error),
                    "notes": [],
                }
            )
        raise
    remarks = [f"{key}: {what}" for key, what in notes.items()]
    if json:
        print_json({"right": True, "file": _file(origins), "mistakes": [], "notes": remarks})
        return
    settings = installation.settings
    stdout().print(
        f"✓ {origins.file or 'the variables'}: right, {len(settings.collections)} collection(s), "
        f"{len(settings.components)} component(s)",
        soft_wrap=True,
    )
    for each in remarks:
        stdout().print(f"· {each}", soft_wrap=True)
    note(f"whether there is what they name: {commands.CHECK}")


@app.command()
def show(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="One table or key only, such as rebuilder.workers."),
    ] = None,
    given: Annotated[
        bool, typer.Option("--given", help="Only what the file or a variable gives.")
    ] = False,
    path: Annotated[
        bool, typer.Option("--path", help="Only the path of the file, for scripts.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Every setting as the roles read it, and where it comes from; secrets are left out."""
    if path and (json or given or key is not None):
        raise typer.BadParameter("--path goes alone")
    origins = origins_of(config)
    if path:
        if origins.file is None:
            raise WrongCallError("there is no settings file: name one with --config")
        ANSWERS.stream.write(f"{origins.file.resolve()}\n")
        return
    with Installation.at(config) as installation:
        found = list(settings_in(installation.settings, origins))
    if key is not None:
        known = {each.key for each in found}
        found = [each for each in found if f"{each.key}.".startswith(f"{key}.")]
        if not found:
            tables = {".".join(each.split(".")[:parts]) for each in known for parts in (1, 2, 3)}
            raise WrongCallError(f"there is no setting {key!r}{suggestion(key, known | tables)}")
    if given:
        found = [each for each in found if each.origin != DEFAULT]
    if json:
        print_json({"file": _file(origins), "settings": dict(map(_document, found))})
        return
    sheet = Sheet(
        str(origins.file or "no file: variables and defaults"),
        whole("key"),
        flowing("value"),
        whole("from"),
    )
    for each in found:
        shown = each.value if isinstance(each.value, str) else dumps(each.value, ensure_ascii=False)
        sheet.add(each.key, "none" if each.value is None else shown, str(each.origin))
    stdout().print(sheet)


def settings_in(settings: Settings, origins: Origins) -> Iterator[Setting]:
    """Every setting by its key, in the order of the page that explains them."""
    for key, value in values_in(settings):
        shown = _shown(value, key)
        yield Setting(key=".".join(key), value=shown, origin=_origin(origins, key))


def _origin(origins: Origins, key: tuple[str, ...]) -> Origin:
    """Where a value comes from; a table that is given as one line has all of its keys there."""
    found = origins.of(key)
    short = key[:-1]
    if found == DEFAULT and key[-1] == "function" and short[-1:] == ("embedder",):
        return origins.of(short)  # embedder = "module:function"
    return found


def _shown(value: Any, key: tuple[str, ...]) -> Any:
    """A value of the settings as JSON has it, and without what is secret in it."""
    if key[:1] == ("components",) and key[-1] != "filterable":
        value = as_written(value)  # of a file that was read, its name
    match value:
        case SecretStr():
            return _url(value, key)
        case Path():
            return str(value)
        case Enum():
            return value.value
        case list() | tuple() | set() | frozenset():
            return [_shown(each, key) for each in value]
        case Mapping() if key[-1] in ("filter", "filterable"):
            return {str(name): _shown(each, key) for name, each in value.items()}
        case _:
            return redacted(value, key=key)


def _url(secret: SecretStr, key: tuple[str, ...]) -> str:
    """What may be seen of a URL; of another secret nothing."""
    text = secret.get_secret_value()
    scheme, separator, _ = text.partition("://")
    if not separator or not key[-1].endswith("url"):
        return HIDDEN
    if key[:1] == ("notifications",):  # such URLs hold tokens anywhere
        return f"{scheme}://{_MASK}"
    shown = _server_url(text) if key[:1] == ("redis",) else _database_url(secret)
    # More than one @: a password that is not percent-encoded may stand behind the first.
    return HIDDEN if shown is None or shown.count("@") > 1 else shown


def _server_url(text: str) -> str | None:
    """The URL of a server without passwords; ``None``: it is not clear where they end."""
    parts = urlsplit(text)
    login, at, host = parts.netloc.rpartition("@")
    if (
        "@" in parts.path + parts.query
        or parts.fragment
        or (parts.scheme != "unix") is (host[:1] in ("", ":"))
    ):
        return None
    user, _, password = login.partition(":")
    login = f"{user}:{_MASK}" if password else user
    return f"{parts.scheme}://{login}{at}{host}{parts.path}{_options(parse_qsl(parts.query))}"


def _database_url(secret: SecretStr) -> str | None:
    """The same for a database, by the parser that the connection uses."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(secret.get_secret_value())
    except (ArgumentError, ValueError):
        return None
    if database_kind(secret) == "sqlite":
        return f"{url.drivername}:///{url.database or ''}"
    shown = url.set(query={}).render_as_string(hide_password=True)
    return shown + _options([(name, "") for name in url.query])


def _options(given: list[tuple[str, str]]) -> str:
    if not given:
        return ""
    return "?" + "&".join(
        f"{name}={value if name in _SHOWN_OPTIONS else _MASK}" for name, value in given
    )


def _document(setting: Setting) -> tuple[str, dict[str, Any]]:
    origin = setting.origin
    given = "file" if origin.line is not None else "default"
    return setting.key, {
        "value": setting.value,
        "from": "variable" if origin.variable is not None else given,
        "line": origin.line,
        "variable": origin.variable,
    }


def _file(origins: Origins) -> str | None:
    return None if origins.file is None else str(origins.file.resolve())
