"""Database URLs as users write them, and the driver that each of them means."""

from importlib.util import find_spec

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from indexrelay.schemas.errors import MissingExtraError

_POSTGRESQL = {"postgres", "postgresql", "postgresql+psycopg"}


def driver_url(url: str) -> URL:
    """``url`` with psycopg 3 named for PostgreSQL, however it was spelt; others stay.

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
        raise MissingExtraError("psycopg", "postgresql")
    return parsed.set(drivername="postgresql+psycopg")


def lacking_driver(url: str) -> str | None:
    """What this host lacks to connect to ``url``, which is not tried; ``None``: nothing."""
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
