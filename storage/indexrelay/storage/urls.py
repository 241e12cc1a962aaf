"""Database URLs as users write them, and the driver that each of them means."""

import sqlite3
import warnings
from importlib.util import find_spec
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SAWarning

from indexrelay.schemas.errors import EXTRAS, MissingExtraError, require

CONNECT_SECONDS: Final = 10
"""How long a connection to a PostgreSQL server may take, for each of its addresses, unless the URL
has a ``connect_timeout``. The driver's default is 130."""
_SILENCE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""Of a connection that is open: when a server whose host or network is gone counts as gone, after
30 s. The system's defaults are a quarter of an hour for what was sent, and two hours for an answer.
Seconds, but the last one, which is milliseconds; a server that only takes long answers these
probes."""
_POSTGRESQL = {"postgres", "postgresql", "postgresql+psycopg"}


def driver_url(url: str) -> URL:
    """``url`` with psycopg 3 as the driver of PostgreSQL, however it was spelt; others stay.

    Raises:
        MissingExtraError: the URL is PostgreSQL's and psycopg is not installed.
        sqlalchemy.exc.ArgumentError: it is no URL.
    """
    try:
        parsed = make_url(url)
    except ValueError:  # chained, it would show what stands where the port should: a password
        raise ArgumentError("the port of a database URL is no number") from None
    if parsed.drivername not in _POSTGRESQL:
        return parsed
    if find_spec("psycopg") is None:
        raise MissingExtraError("psycopg", EXTRAS["psycopg"])
    return parsed.set(drivername="postgresql+psycopg")


def connect_arguments(url: URL) -> dict[str, int]:
    """Further arguments of a driver: an absent server must not block for minutes, neither at the
    first connection nor later. What the URL says counts."""
    if url.drivername != "postgresql+psycopg":
        return {}
    ours = {"connect_timeout": CONNECT_SECONDS, **_SILENCE}
    return {name: value for name, value in ours.items() if name not in url.query}


def lacking_driver(url: str) -> str | None:
    """What this host lacks to connect to ``url``; ``None``: nothing. It does not connect."""
    try:
        dialect = driver_url(url).get_dialect()
    except MissingExtraError as error:
        return str(error)
    except NoSuchModuleError as error:
        return f"SQLAlchemy does not know this kind of database ({error})"
    except ArgumentError:
        return "it cannot be read as an SQLAlchemy URL"
    try:
        dialect.import_dbapi()
    except Exception as error:  # noqa: BLE001 - whatever a driver does when it is imported
        return f"its driver cannot be imported: {type(error).__name__}: {error}"
    return None


_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def refused_options(url: str) -> str | None:
    """Which options of a URL its driver would refuse, without any part of the URL; ``None``: none.

    The driver itself reads them, and connects to nothing. A missing driver refuses nothing.
    """
    try:
        parsed = driver_url(url)
        dialect = parsed.get_dialect()()
    except (ArgumentError, MissingExtraError, NoSuchModuleError, ImportError):
        return None  # `lacking_driver` says so
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SAWarning)  # of options that are not used
            _, options = dialect.create_connect_args(parsed)
    except ImportError:
        return None
    except (ArgumentError, ValueError, TypeError, SAWarning):
        return "an option in its query is not known or cannot be read"
    try:
        if parsed.get_backend_name() == "sqlite":
            sqlite3.connect(":memory:", **{**options, "uri": False}).close()
        elif parsed.drivername == "postgresql+psycopg":
            require("psycopg.conninfo").make_conninfo(**options)
            if options.get("sslmode", "prefer") not in _SSL_MODES:
                return f"its sslmode must be one of {', '.join(_SSL_MODES)}"
    except Exception:  # noqa: BLE001 - whatever a driver raises; it may quote a password
        return "an option in its query is not known, or has a value that the driver refuses"
    return None
