"""Database URLs of the settings: which database one means, and the file of one in SQLite.

A path is never pasted into a database URL, where a ``?``, a ``#`` or a percent sequence in a
folder's name would lead elsewhere: SQLAlchemy's own constructor writes it, as its parser reads it.
Only then SQLAlchemy is loaded, which a check of settings does not need.
"""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr


def database_kind(url: SecretStr) -> str:
    """The kind of database, without a driver; empty where it is no URL with a port that can be."""
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:
        return ""
    return parts.scheme.partition("+")[0]


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite database in a file, whatever its folders are called."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path))
    return url.render_as_string(hide_password=False)


def anchored(url: SecretStr, folder: Path) -> SecretStr:
    """An SQLite URL whose file is seen from ``folder``, or from home; every other URL as it is."""
    if database_kind(url) != "sqlite":
        return url
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        return url  # connecting reports what is wrong with it
    path = parsed.database
    if not path or path.startswith((":memory:", "file:")):
        return url
    there = parsed.set(database=str(folder / Path(path).expanduser()))
    return SecretStr(there.render_as_string(hide_password=False))
